"""A refined fit: what is in its file, that the seed alone decides, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import arviz as az
import h5py
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from refined_fit import Refined

import vihier
from vihier.cli import main
from vihier.models.batch import Batch
from vihier.refinement import processes
from vihier.refinement.agreement import agreement_table, compared, element_table
from vihier.refinement.fit_to_refine import FitToRefine

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference posteriors (../shared) are not here")


def datasets(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def note(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node[()]

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_draws_of_the_chosen_genes_lie_beside_the_fit(refined: Refined) -> None:
    before, after = datasets(refined.fit), datasets(refined.path)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)
    added = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert added == {"nuts", "nuts_sample_stats", "nuts_diagnostics"}
    with vihier.open_posterior(refined.path) as post, xr.open_datatree(refined.path, engine="h5netcdf") as tree:
        nuts, fitted = tree["nuts"].to_dataset(), tree["posterior"].to_dataset()
        assert set(nuts) == set(fitted)
        for name in nuts:
            assert nuts[name].dims == fitted[name].dims
            assert nuts[name].sizes["chain"] == 2 and nuts[name].sizes["draw"] == 300
            assert np.isfinite(nuts[name].values).all()
        assert nuts["hugo_symbol"].values.tolist() == post.labels("hugo_symbol")[[2, 11, 20]].tolist()
        assert nuts["depmap_id"].equals(fitted["depmap_id"])
        # What the program says of its derived variables holds in every draw (float32).
        np.testing.assert_allclose(nuts["effect_gene"], nuts["effect"].mean("depmap_id"), atol=1e-5)
        stats = tree["nuts_sample_stats"].to_dataset()
        assert set(stats) == {"energy", "n_steps", "lp", "diverging", "tree_depth", "step_size"}
        assert (2.0 ** (stats["tree_depth"] - 1) <= stats["n_steps"]).all()
        for name in nuts:
            theirs = az.rhat(nuts[[name]])[name]
            # Ours is of draws not yet rounded to single precision, which may swap the ranks of two that lie as far from
            # the median on either side.
            np.testing.assert_allclose(tree["nuts_diagnostics"][f"{name}_rhat"], theirs, rtol=1e-3)
    idata = az.from_netcdf(refined.path)
    assert idata.nuts["effect"].shape[:2] == (2, 300)


def test_nuts_and_the_swept_guide_are_the_same_posterior(refined: Refined) -> None:
    # Sweeps leave the exact posterior as it is, so the guide's draws are those of another sampler of everything. Here
    # 23 genes stand in the density by what was summed up of them.
    with vihier.open_posterior(refined.path) as post:
        table = agreement_table(post).set_index("variable")
        others = post.group("nuts", only=()).attrs["other_genes"]
    assert others == 23
    assert table["agrees"].all(), table.to_string()
    # 400 and 600 draws, neither independent: means within 0.3 sds of each other, of some 24 elements a variable.
    assert (table["difference_max"] < 0.3).all(), table.to_string()


def test_the_draws_depend_on_the_seed_only(refined: Refined, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    alone, together = tmp_path / "alone.h5", tmp_path / "together.h5"
    options = {"warmup": 50, "draws": 100, "chains": 2, "seed": 8, "quiet": True}
    genes = ["GENE00003", "GENE00012"]
    vihier.refine(refined.fit, refined.table, genes=genes, processes=1, out=alone, **options).close()
    # The caller's own random numbers go on as if nothing had been drawn.
    assert torch.equal(state, torch.get_rng_state())
    # A script without `if __name__ == "__main__"`: spawned workers would run it again, a child with its plan does not.
    script = tmp_path / "script.py"
    script.write_text(
        f"import vihier\npost = vihier.refine({str(refined.fit)!r}, {str(refined.table)!r}, genes={genes[::-1]}, "
        f"processes=2, out={str(together)!r}, **{options})\nprint(post.group('nuts')['effect'].sizes['chain'])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
    first, again = datasets(alone), datasets(together)
    assert first.keys() == again.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1, said.err
    return said.err


def test_what_is_refused_is_one_line(refined: Refined, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit, screen = refined.fit, ("--screen", refined.table)
    before = fit.read_bytes()
    assert "give one of --genes" in refused(capsys, "refine", fit, *screen)
    assert "give one of --genes" in refused(capsys, "refine", fit, *screen, "--full", "--worst", 2)
    first = vihier.open_posterior(fit).labels("hugo_symbol")[0]
    assert f"did you mean {first!r}" in refused(capsys, "refine", fit, *screen, "--genes", f"{first}x")
    assert "from 1 to 26" in refused(capsys, "refine", fit, *screen, "--worst", 27)
    assert "lineage" in refused(capsys, "refine", fit, *screen, "--lineage", "moon")
    assert "draws 5" in refused(capsys, "refine", fit, *screen, "--worst", 2, "--draws", 5)
    assert "holds NUTS draws already" in refused(capsys, "refine", refined.path, *screen, "--worst", 2)
    assert "is there already" in refused(capsys, "refine", fit, *screen, "--worst", 2, "--out", refined.path)
    other = tmp_path / "other.parquet"
    vihier.simulate(other, genes=26, lines=8, lineages=2, sgrnas=3, seed=2, model="gene_lineage")
    assert "is a fit of another screen" in refused(capsys, "refine", fit, "--screen", other, "--worst", 2)
    assert fit.read_bytes() == before
    assert "holds no NUTS draws" in refused(capsys, "compare", fit)


def test_a_fit_of_a_part_is_refined_with_the_whole_table(refined: Refined, tmp_path: Path) -> None:
    part = refined.screen.subset(lines=refined.screen.index.lines[:5].tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vihier.FitWarning)
        vihier.fit(part, "gene_lineage", out=tmp_path / "part.h5", draws=50, max_steps=2, quiet=True).close()
    with vihier.open_posterior(tmp_path / "part.h5") as post:
        found = FitToRefine.of(post, refined.screen)
        assert found.screen.hash == part.hash
        assert post.attrs["screen_source"] == str(refined.table)


def test_an_end_before_time_leaves_the_fit_as_it_was(
    refined: Refined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = tmp_path / "fit.h5"
    shutil.copy(refined.fit, fit)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("vihier.refinement.refine.run_chains", "vihier.refinement.writing.judge"):
        with monkeypatch.context() as patched:
            patched.setattr(name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                vihier.refine(fit, refined.table, worst=1, warmup=50, draws=100, chains=2, processes=1, quiet=True)
        assert fit.read_bytes() == refined.fit.read_bytes()
        assert list(tmp_path.iterdir()) == [fit]


def test_a_chain_whose_process_dies_is_one_line(refined: Refined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(vihier.FitError, match=r"chain \d: its process ended early .*--processes 1"):
        vihier.refine(refined.fit, refined.table, worst=1, warmup=50, draws=100, chains=2, processes=2, quiet=True)


def own_program(batch: Batch) -> None:
    """Genes, lines and rows; the name of no model."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with batch.local(), pyro.plate("gene", len(batch.gene_idx), dim=-2):
        base = pyro.sample("base", dist.Normal(0.0, spread))
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        pyro.sample("lfc", dist.Normal(base[batch.gene, 0], sigma), obs=batch.lfc)


def test_ones_own_program_is_refined_when_it_is_given(refined: Refined, tmp_path: Path) -> None:
    out = tmp_path / "own.h5"
    fit = vihier.fit(refined.screen, own_program, draws=100, out=out, quiet=True)
    with pytest.raises(vihier.VihierError, match="your own program 'own_program'"):
        vihier.refine(fit, refined.screen, full=True)
    settings = {"warmup": 100, "draws": 300, "chains": 2, "processes": 1, "quiet": True}
    again = vihier.refine(fit, refined.screen, full=True, model=own_program, **settings)
    table = agreement_table(again).set_index("variable")
    assert table["agrees"].all(), table.to_string()
    assert json.loads(again.group("nuts", only=()).attrs["figures"])["divergences"] == 0


@needs_shared
@pytest.mark.slow
def test_full_reproduces_a_reference_posterior(tmp_path: Path) -> None:
    folder = SHARED / "reference" / "A.additive"
    with vihier.fit(folder / "data.csv.gz", draws=400, out=tmp_path / "fit.h5", quiet=True) as fit:
        refined = vihier.refine(fit, full=True, chains=2, warmup=100, draws=250, quiet=True)
    nuts = refined.group("nuts")
    diagnostics = refined.group("nuts_diagnostics")
    assert not refined.group("nuts_sample_stats")["diverging"].any()
    with np.load(folder / "reference.npz") as reference:
        names = [key.removesuffix(".mean") for key in reference.files if key.endswith(".mean")]
        for name in names:
            draws = nuts[name].values.reshape(-1, *nuts[name].shape[2:])
            mean, sd, ess = (reference[f"{name}.{kind}"] for kind in ("mean", "sd", "ess"))
            if name.startswith("sigma"):  # heavy-tailed: in the logarithm's stead, its median
                z = np.abs(np.median(draws, axis=0) - reference[f"{name}.q50"])
                # The error of a median is 1.25 times that of a mean, for a Normal; more where there are two humps.
                error = 1.6 * sd * np.sqrt(1 / ess + 1 / diagnostics[f"{name}_ess_bulk"].values)
            else:
                z = np.abs(draws.mean(axis=0) - mean)
                error = sd * np.sqrt(1 / ess + 1 / diagnostics[f"{name}_ess_bulk"].values)
            # The largest of 880 elements is 3.3 errors off.
            assert (z < 4.5 * error).all(), (name, float((z / error).max()))


def test_compare_says_how_far_apart_they_are(
    refined: Refined, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / "compared.csv", tmp_path / "compared.png"
    assert main(["compare", str(refined.path), "--out", str(out), "--figure", str(figure), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["agrees"] is True and said["n_rows"] == len(out.read_text().splitlines()) - 1
    assert figure.stat().st_size > 10_000
    assert main(["compare", str(refined.path), "--var", "effect"]) == 0
    assert "quantile" in capsys.readouterr().out


def test_differences_are_in_nuts_sds(refined: Refined, tmp_path: Path) -> None:
    doctored = tmp_path / "doctored.h5"
    shutil.copy(refined.path, doctored)
    with h5py.File(doctored, "r+") as file:
        values = file["nuts/effect"][()]
        file["posterior/effect"][0, :, 2] = values.reshape(-1, *values.shape[2:])[:400, 0] * 2 + 1
    with vihier.open_posterior(doctored) as post:
        row = agreement_table(post, ["effect"]).iloc[0]
        assert not row["agrees"]
        table = element_table(post, "effect")
        gene = post.group("nuts", only=())["hugo_symbol"].values[0]
        assert set(table["hugo_symbol"][:8]) == {gene}
        (one,) = compared(post, ["effect"])
        first, nuts = one.guide[:, 0], one.nuts[:, 0]
        entry = table[(table["hugo_symbol"] == gene) & (table["depmap_id"] == one.labels["depmap_id"][0])].iloc[0]
        assert entry["difference"] == pytest.approx((first.mean() - nuts.mean()) / nuts.std(), rel=1e-6)
        assert entry["sd_ratio"] == pytest.approx(2, rel=0.15)  # twice, of 400 draws of the 600
        unit = (np.quantile(nuts, 0.95) - np.quantile(nuts, 0.05)) / 3.29
        moved = (np.quantile(first, 0.95) - np.quantile(nuts, 0.95)) / unit
        assert entry["q95_difference"] == pytest.approx(moved, rel=1e-6)
        khat = post.group("diagnostics")["khat"].sel(hugo_symbol=gene).item()
        assert entry["khat"] == pytest.approx(khat)
