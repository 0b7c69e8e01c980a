"""Predicted rows of new elements have the spread that the hierarchy gives them, no more and no less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from ragged import ragged_frame

import vihier
from vihier.cli import main
from vihier.errors import VihierError
from vihier.inference.predict_table import coverage, predict
from vihier.inference.predictor import Predictor
from vihier.models.batch import Batch
from vihier.models.program import load_program
from vihier.posterior.reader import Posterior
from vihier.screen import read_screen

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge", "ignore:Pareto k-hat")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "avana_ky.parquet"
KEYS = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id"]


def crossed_levels(batch: Batch) -> None:
    """Known sds: gene 1, sgRNA 0.7, line 0.6 around lineage 0.8, gene x line 0.3, row 0.5."""
    genes, lines = pyro.plate("gene", len(batch.gene_idx), dim=-2), pyro.plate("line", batch.n_lines, dim=-1)
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    with pyro.plate("lineage", batch.n_lineages, dim=-1):
        of_lineage = pyro.sample("of_lineage", dist.Normal(level, 0.8))
    with lines:
        of_line = pyro.sample("of_line", dist.Normal(of_lineage[batch.lineage_of_line], 0.6))
    with batch.local():
        with genes:
            of_gene = pyro.sample("of_gene", dist.Normal(0.0, 1.0))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            of_sgrna = pyro.sample("of_sgrna", dist.Normal(of_gene[batch.gene_of_sgrna, 0], 0.7))
        with genes, lines:
            of_both = pyro.sample("of_both", dist.Normal(0.0, 0.3))
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = of_sgrna[batch.sgrna] + of_line[batch.line] + of_both[batch.gene, batch.line]
            pyro.sample("lfc", dist.Normal(mean, 0.5), obs=batch.lfc)


@pytest.fixture(scope="module")
def fit() -> Iterator[Posterior]:
    with vihier.fit(ragged_frame(), crossed_levels, guide="mean_field", draws=1000, max_steps=50, quiet=True) as post:
        yield post


def rows(**changed: str) -> pd.DataFrame:
    """One row of a known sgRNA and line, with some of its labels replaced."""
    known = ragged_frame().iloc[[0]][KEYS]
    return known.assign(**changed)


@pytest.mark.parametrize(
    ("changed", "new", "parents", "own"),
    [
        ({"replicate_id": "Z"}, "", ["of_sgrna", "of_line", "of_both"], 0.0),
        ({"sgrna": "NEW"}, "sgrna", ["of_gene", "of_line", "of_both"], 0.7**2),
        ({"depmap_id": "NEW"}, "line", ["of_sgrna", "of_lineage"], 0.6**2 + 0.3**2),
        ({"depmap_id": "NEW", "lineage": "new"}, "lineage", ["of_sgrna", "level"], 0.8**2 + 0.6**2 + 0.3**2),
        ({"sgrna": "NEW", "hugo_symbol": "NEW"}, "gene", ["of_line"], 1 + 0.7**2 + 0.3**2),
        ({"sgrna": "NEW", "hugo_symbol": "NEW", "depmap_id": "NEW"}, "gene+line", ["of_lineage"], 1 + 0.94),
    ],
)
def test_a_row_is_its_known_parents_and_the_spread_of_what_is_new(
    fit: Posterior, changed: dict[str, str], new: str, parents: list[str], own: float
) -> None:
    table = rows(**changed)
    row = predict(fit, table, model=crossed_levels).iloc[0]
    assert row["new"] == new
    known = ragged_frame().iloc[0]
    labels = {"of_sgrna": ["sgrna"], "of_gene": ["hugo_symbol"], "of_line": ["depmap_id"], "of_lineage": ["lineage"]}
    labels |= {"of_both": ["hugo_symbol", "depmap_id"], "level": []}
    total = sum(fit.draws(name, **{x: known[x] for x in labels[name]}).to_numpy().ravel() for name in parents)
    variance = total.var() + own + 0.25
    # 1,000 draws: a mean has a standard error of sd / sqrt(1000), an sd one of sd / sqrt(2000).
    assert row["mean"] == pytest.approx(total.mean(), abs=5 * (own / 1000) ** 0.5 + 1e-5)
    assert row["sd"] == pytest.approx(variance**0.5, rel=5 / 2000**0.5)
    # 8 rows of each draw: the noise of the bounds is that of the 1,000 draws of the mean.
    assert row["eti_95%"] - row["eti_5%"] == pytest.approx(2 * 1.645 * variance**0.5, rel=0.1)


def test_the_noise_of_a_new_replicate_is_drawn_from_that_of_all_replicates() -> None:
    options = {"likelihood": "normal", "noise": "replicate", "draws": 1000, "quiet": True}
    with vihier.fit(ragged_frame(), "additive", **options) as post:
        known, new = (predict(post, rows(replicate_id=name)).iloc[0] for name in ("A", "Z"))
        common, spread = (post.draws(name).to_numpy().ravel() for name in ("sigma", "sigma_sigma"))
        own = float((post.draws("sigma_replicate", replicate="ACH-0|A") ** 2).mean())
    assert known["new"] == "" and new["new"] == "replicate"
    assert new["mean"] == pytest.approx(known["mean"], abs=1e-6)
    # A log-normal's second moment, the largest draws left to chance: its sd over 1,000 draws is some 10 %.
    expected = float((common**2 * np.exp(2 * spread**2)).mean())
    assert new["sd"] ** 2 - known["sd"] ** 2 == pytest.approx(expected - own, abs=0.3 * expected)


def test_rows_of_one_new_line_share_its_draws_across_blocks(fit: Posterior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vihier.inference.predictor.ELEMENTS_AT_ONCE", 1)  # one gene a block
    frame = ragged_frame().drop_duplicates("hugo_symbol").assign(depmap_id="NEW", lineage="skin")
    drawn = vihier.posterior_predictive(fit, read_screen(frame), model=crossed_levels).to_numpy()[0]
    correlated = np.cov(drawn.T)[np.triu_indices(len(frame), 1)]
    skin = float(fit.draws("of_lineage", lineage="skin").var())
    # What two genes share in a new line of a known lineage; standard error of a covariance 1.7 / sqrt(1000).
    assert np.abs(correlated.mean() - (skin + 0.36)) < 4 * 1.7 / 1000**0.5


def test_what_is_measured_is_weighed_and_its_rows_stay_in_place(fit: Posterior) -> None:
    table = ragged_frame().sample(frac=1, random_state=1)
    table.loc[table.index[:7], "lfc"] = np.nan
    found = predict(fit, table, model=crossed_levels)
    assert len(found) == len(table) and found["lfc"].isna().sum() == 7
    both = found.merge(table, on=KEYS, suffixes=("", "_given"))
    assert len(both) == len(table)
    np.testing.assert_array_equal(both["lfc"], both["lfc_given"])
    assert found["log_density"].isna().sum() == 7
    covered = found["lfc"].between(found["eti_5%"], found["eti_95%"])[found["lfc"].notna()].mean()
    assert coverage(found, 0.9) == covered
    without = predict(fit, table.drop(columns=["lfc", "lineage"]), model=crossed_levels)
    np.testing.assert_array_equal(without["mean"], found["mean"])  # the fit knows the lines' lineages


def test_programs_that_vmap_cannot_take_are_run_draw_by_draw() -> None:
    def heavy(batch: Batch) -> None:
        nu = pyro.sample("nu", dist.Gamma(4.0, 1.0))  # no inverse distribution function
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.StudentT(nu + 2, 0.0, 1.0), obs=batch.lfc)

    rows = vihier.prior_predictive(read_screen(ragged_frame()), heavy, draws=300).to_numpy()
    assert 1.2 < rows.std() < 2  # E (nu + 2) / nu is 5 / 3, and the median of nu 3.7


def test_refusals_name_what_and_the_cure(fit: Posterior) -> None:
    with pytest.raises(VihierError, match="its hugo_symbol is 'OTHER' here and 'GENE0' in"):
        predict(fit, rows(hugo_symbol="OTHER"), model=crossed_levels)
    with pytest.raises(VihierError, match="depmap_id 'ACH-0': its lineage is 'eye' here and 'skin'"):
        predict(fit, rows(lineage="eye"), model=crossed_levels)
    with pytest.raises(VihierError, match=r"does not know line 'NEW'.*add the column"):
        predict(fit, rows(depmap_id="NEW").drop(columns="lineage"), model=crossed_levels)
    with pytest.raises(VihierError, match="column 'lfc' holds text, such as 'none'"):
        predict(fit, rows().assign(lfc="none"), model=crossed_levels)
    with pytest.raises(VihierError, match=r"prob: 1\.5 is not between 0 and 1"):
        predict(fit, rows(), prob=1.5, model=crossed_levels)


def test_the_runs_of_a_fit_are_the_programs_own_row_means(fit: Posterior) -> None:
    screen = read_screen(ragged_frame())
    predictor = Predictor.of(fit, screen, load_program(crossed_levels), draws=7)
    (block,) = predictor.blocks()
    mean = torch.cat([run.rows.mean for _, run in block.runs()]).numpy()
    chosen = np.arange(7) * 1000 // 7
    parts = [fit.draws(name).to_numpy()[0][chosen] for name in ("of_sgrna", "of_line", "of_both")]
    expected = parts[0][:, screen.sgrna] + parts[1][:, screen.line] + parts[2][:, screen.gene, screen.line]
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_the_command_predicts_from_a_fit_and_from_priors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, fit = tmp_path / "screen.csv", tmp_path / "fit.h5"
    ragged_frame().to_csv(table, index=False)
    vihier.fit(table, "additive", guide="mean_field", draws=100, max_steps=20, out=fit, quiet=True).close()
    out, draws = tmp_path / "rows.csv", tmp_path / "draws.h5"
    assert main(["predict", str(fit), "--screen", str(table), "--genes", "GENE1", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(pd.read_csv(out)["hugo_symbol"]) == {"GENE1"} and 0.5 < said["coverage"] <= 1
    assert main(["predict", str(fit), "--new", str(table), "--draws-out", str(draws)]) == 0
    with xr.open_datatree(draws, engine="h5netcdf") as tree:
        assert tree["posterior_predictive/lfc"].shape == (1, 100, len(ragged_frame()))
    alone = [
        "predict",
        "--from-prior",
        "--model",
        "gene_lineage",
        "--new",
        str(table),
        "--draws",
        "50",
        "--out",
        str(out),
    ]
    assert main(alone) == 0 and pd.read_csv(out)["sd"].min() > 1
    capsys.readouterr()
    for bad in (["predict", "--new", str(table)], [*alone[:3], str(fit), *alone[3:]], [*alone, "--prior", "x"]):
        assert main(bad) == 2
        assert capsys.readouterr().err.count("\n") == 1
