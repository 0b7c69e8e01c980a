"""The realistic screen: schema, seeding, streaming, and that the rows are what the truth says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import vihier
from vihier.errors import VihierError
from vihier.posterior.writer import TruthWriter
from vihier.screen import simulate as simulate_module
from vihier.screen import simulate_design
from vihier.screen.simulate import SimulatedScreen, simulate
from vihier.screen.simulate_design import make_design, sequence_codes
from vihier.screen.simulate_realistic import RealisticScreen


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimulatedScreen:
    return simulate(tmp_path_factory.mktemp("small") / "screen.parquet", genes=40, lines=30, seed=3)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> SimulatedScreen:
    """Many replicates and no gaps: the mean of a gene in a line approaches its effect."""
    out = tmp_path_factory.mktemp("deep") / "deep.parquet"
    return simulate(out, genes=60, lines=12, lineages=3, replicates=40, missing=0, seed=5)


def truth_of(screen: SimulatedScreen) -> xr.Dataset:
    return xr.open_dataset(screen.truth, group="truth", engine="h5netcdf")


def gene_line_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean lfc of each gene in each line, sgRNAs counting equally, as the effect does: [G, C]."""
    cells = table.groupby(["hugo_symbol", "sgrna", "depmap_id"])["lfc"].mean()
    pairs = cells.rename("lfc").reset_index()
    return pairs.pivot_table(index="hugo_symbol", columns="depmap_id", values="lfc", aggfunc="mean")


def test_table_has_the_schema(small: SimulatedScreen) -> None:
    table = pd.read_parquet(small.table)
    wanted = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc"]
    assert list(table) == [*wanted, "p_dna_batch", "copy_number", "rna_expr", "is_mutated"]
    assert table["hugo_symbol"].min() == "GENE00001" and table["hugo_symbol"].nunique() == 40
    assert table["depmap_id"].min() == "SIM-000001" and table["depmap_id"].nunique() == 30
    assert table["sgrna"].str.fullmatch("[ACGT]{20}").all() and table["sgrna"].nunique() == 160
    assert not table.duplicated(["sgrna", "replicate_id"]).any()
    assert len(table[["sgrna", "hugo_symbol"]].drop_duplicates()) == 160
    assert len(table[["depmap_id", "lineage"]].drop_duplicates()) == 30
    assert table["lfc"].between(-20, 20).all()
    lines_without_rna = table["rna_expr"].isna().groupby(table["depmap_id"]).mean()
    assert set(lines_without_rna.unique()) <= {0.0, 1.0}


@pytest.mark.filterwarnings("error")
def test_read_screen_takes_it_without_a_warning(small: SimulatedScreen) -> None:
    screen = vihier.read_screen(small.table)
    truth = truth_of(small)
    assert (screen.n_genes, screen.n_lines, screen.n_sgrnas, screen.n_lineages) == (40, 30, 160, 4)
    assert list(screen.index.sgrnas) == list(truth["sgrna"].values)
    assert list(screen.index.genes) == list(truth["hugo_symbol"].values)
    assert list(screen.index.lines) == list(truth["depmap_id"].values)
    index = xr.open_dataset(small.truth, group="index", engine="h5netcdf")
    assert list(screen.index.lineages) == list(index["lineage"].values)
    assert list(screen.index.replicates) == list(truth["replicate"].values)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".tsv.gz"])
def test_text_tables_read_as_the_same_screen(tmp_path: Path, suffix: str) -> None:
    arguments = {"genes": 5, "lines": 8, "lineages": 2, "seed": 11}
    parquet = simulate(tmp_path / "a.parquet", **arguments)
    text = simulate(tmp_path / f"b{suffix}", **arguments)
    assert text.truth.name == "b.truth.h5"
    assert vihier.read_screen(text.table).hash == vihier.read_screen(parquet.table).hash


def test_same_seed_same_files_other_seed_other_rows(tmp_path: Path) -> None:
    one, two, other = (
        simulate(tmp_path / f"{name}.parquet", genes=20, lines=6, seed=seed)
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert one.table.read_bytes() == two.table.read_bytes()
    xr.testing.assert_identical(truth_of(one), truth_of(two))
    assert not set(pd.read_parquet(one.table)["sgrna"]) & set(pd.read_parquet(other.table)["sgrna"])


def test_rows_do_not_depend_on_how_they_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_design, "GENES_PER_BLOCK", 8)
    arguments = {"genes": 50, "lines": 7, "sgrnas": (1, 6), "seed": 4}
    whole = simulate(tmp_path / "whole.parquet", **arguments)
    monkeypatch.setattr(simulate_module, "ROWS_PER_GROUP", 1)
    pieces = simulate(tmp_path / "pieces.parquet", **arguments)
    pd.testing.assert_frame_equal(pd.read_parquet(whole.table), pd.read_parquet(pieces.table))
    xr.testing.assert_identical(truth_of(whole), truth_of(pieces))


def test_a_block_drawn_alone_equals_the_block_drawn_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_design, "GENES_PER_BLOCK", 16)
    design = make_design(genes=40, lines=5, lineages=2, sgrnas=(3, 3), replicates=2, unequal=True, seed=8, missing=0.1)
    blocks = list(design.blocks())
    assert [block.n_genes for block in blocks] == [16, 16, 8]
    in_turn = []
    for block in blocks:
        sgrna, replicate = np.nonzero(design.present(block))
        in_turn.append(RealisticScreen(design).draw(block, sgrna, replicate).lfc)
    simulator = RealisticScreen(design)
    for block, expected in reversed(list(zip(blocks, in_turn, strict=True))):
        np.testing.assert_array_equal(simulator.draw(block, *np.nonzero(design.present(block))).lfc, expected)


def test_rows_scatter_around_the_true_effect(deep: SimulatedScreen) -> None:
    table = pd.read_parquet(deep.table)
    means = gene_line_means(table)
    effect = truth_of(deep)["effect"].to_pandas()
    assert list(means.index) == list(effect.index) and list(means.columns) == list(effect.columns)
    within = table.groupby(["sgrna", "depmap_id"])["lfc"]
    n_rows = table.pivot_table(index="hugo_symbol", columns="depmap_id", values="lfc", aggfunc="count")
    pooled = within.var().groupby("depmap_id").mean()
    z = (means - effect) / np.sqrt(pooled / n_rows)
    # 720 standardised deviations: their mean has sd 0.037, their sd about 0.03 (noise unequal within a line included).
    assert abs(z.to_numpy().mean()) < 0.15
    assert abs(z.to_numpy().std() - 1) < 0.12
    # Noise of a mean is near 0.03 beside effects of sd 0.4: the slope's standard error is 0.003.
    slope = np.polyfit(effect.to_numpy().ravel(), means.to_numpy().ravel(), 1)[0]
    assert abs(slope - 1) < 0.012


def test_effect_splits_into_gene_and_deviation(deep: SimulatedScreen) -> None:
    truth = truth_of(deep)
    # Float32 on disk: 1e-6 at values near 1.
    np.testing.assert_allclose(truth["effect"].mean("depmap_id"), truth["effect_gene"], atol=2e-6)
    np.testing.assert_allclose(truth["effect"] - truth["effect_gene"], truth["effect_dev"], atol=2e-6)


def test_genes_are_what_their_class_says(tmp_path: Path) -> None:
    truth = truth_of(simulate(tmp_path / "s.parquet", genes=500, lines=40, sgrnas=4, seed=0))
    kind, gene = truth["gene_class"].values, truth["effect_gene"].values
    assert (kind == 1).sum() == 60
    # 60 genes of sd 0.33 (base 0.3, efficacy 0.17 of it): the standard error of their mean is 0.045.
    assert abs(gene[kind == 1].mean() + 1) < 0.18
    # Neutral genes: sgRNA offsets 0.12 / 2 and a base of 0.06 make sd 0.085; line effects shift all by about 0.02.
    assert abs(gene[kind == 0].mean()) < 0.08 and gene[kind == 0].std() < 0.15
    lowest = truth["effect_dev"].min("depmap_id").values
    assert (lowest[kind == 2] < -0.4).mean() > 0.8
    assert (truth["efficacy"] < 0.2).mean() == pytest.approx(1 / 12, abs=0.03)  # 2,000 sgRNAs: 4.5 standard errors


def test_replicates_are_unequal_and_their_noise_differs(deep: SimulatedScreen, tmp_path: Path) -> None:
    table = pd.read_parquet(simulate(tmp_path / "s.parquet", genes=2, lines=100, seed=2).table)
    n_replicates = table.groupby("depmap_id")["replicate_id"].nunique()
    assert set(n_replicates) == {1, 2, 3} and abs(n_replicates.mean() - 2) < 0.3
    rows = pd.read_parquet(deep.table)
    residual = rows["lfc"] - rows.groupby(["sgrna", "depmap_id"])["lfc"].transform("mean")
    by_replicate = residual.groupby(rows["depmap_id"] + "|" + rows["replicate_id"]).std()
    noise = truth_of(deep)["noise_sd"].to_series()
    # 240 rows of a t with 5 degrees of freedom tell a sd to about 8 %, so its logarithm to 0.08 (0.4 between them).
    assert np.corrcoef(np.log(by_replicate), np.log(noise.loc[by_replicate.index]))[0, 1] > 0.95
    assert np.log(noise).std() == pytest.approx(0.4, abs=0.06)


def test_noise_has_heavy_tails(deep: SimulatedScreen) -> None:
    rows = pd.read_parquet(deep.table)
    cell_mean = rows.groupby(["sgrna", "depmap_id"])["lfc"].transform("mean")
    name = rows["depmap_id"] + "|" + rows["replicate_id"]
    z = (rows["lfc"] - cell_mean) / truth_of(deep)["noise_sd"].to_series().loc[name].to_numpy()
    # Student-t with 5 degrees of freedom: kurtosis 9 where a Normal has 3, and 1.2 % beyond 3 sd where it has 0.27 %.
    assert z.kurt() > 2.5
    assert 0.009 < (z.abs() > 3).mean() < 0.016


def test_the_missing_share_is_what_was_asked_for(tmp_path: Path) -> None:
    complete = pd.read_parquet(simulate(tmp_path / "a.parquet", genes=100, lines=60, missing=0, seed=1).table)
    gaps = pd.read_parquet(simulate(tmp_path / "b.parquet", genes=100, lines=60, missing=0.03, seed=1).table)
    # Pairs of about 8 rows come and go together, so the share of 48,000 rows has a standard error of 0.0014.
    assert len(gaps) / len(complete) == pytest.approx(0.97, abs=0.005)
    pairs = gaps.groupby(["hugo_symbol", "depmap_id"]).ngroups
    # 6,000 pairs, 0.3 % of them wholly missing: 18 with sd 4.2.
    assert 3 <= 6000 - pairs <= 35


def test_every_sgrna_line_and_replicate_keeps_a_row(tmp_path: Path) -> None:
    written = simulate(tmp_path / "s.parquet", genes=30, lines=3, lineages=2, replicates=1, missing=0.9, seed=0)
    screen, truth = vihier.read_screen(written.table), truth_of(written)
    assert (screen.n_sgrnas, screen.n_lines) == (truth.sizes["sgrna"], truth.sizes["depmap_id"])


def test_ragged_genes_have_between_the_fewest_and_the_most_sgrnas(tmp_path: Path) -> None:
    table = pd.read_parquet(simulate(tmp_path / "s.parquet", genes=60, lines=2, lineages=1, sgrnas=(2, 8)).table)
    assert set(table.groupby("hugo_symbol")["sgrna"].nunique()) == set(range(2, 9))


def test_a_single_gene_and_line(tmp_path: Path) -> None:
    written = simulate(tmp_path / "s.csv", genes=1, lines=1, lineages=1, sgrnas=1, replicates=1)
    assert vihier.read_screen(written.table).n_rows == 1


def test_sequences_never_collide() -> None:
    assert len(np.unique(sequence_codes(300_000, seed=0))) == 300_000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"genes": 0}, "genes=0"),
        ({"lines": 3, "lineages": 4}, "lineages=4"),
        ({"sgrnas": (4, 2)}, "sgrnas"),
        ({"missing": 1.0}, "missing=1.0"),
        ({"missing": float("nan")}, "missing=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"genes": 2.5}, "genes=2.5"),
        ({"sgrnas": "4"}, "sgrnas='4'"),
        ({"model": "no_such"}, "no_such"),
        ({"priors": {"sigma": "HalfNormal(1)"}}, "realistic"),
    ],
)
def test_refuses_what_makes_no_screen(tmp_path: Path, arguments: dict[str, object], named: str) -> None:
    with pytest.raises(VihierError, match=named) as refused:
        simulate(tmp_path / "s.parquet", **arguments)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [("s.xlsx", "ends in"), ("s", "ends in"), (".csv", "ends in"), ("nowhere/s.csv", "directory"), ("d.csv", "file")],
)
def test_refuses_an_output_it_cannot_write(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(VihierError, match=reason):
        simulate(tmp_path / name, genes=1, lines=1, lineages=1)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = simulate(tmp_path / "s.parquet", genes=2, lines=2, lineages=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("disk")

    monkeypatch.setattr(TruthWriter, "finish", fail)
    with pytest.raises(RuntimeError):
        simulate(written.table, genes=3, lines=2, lineages=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
