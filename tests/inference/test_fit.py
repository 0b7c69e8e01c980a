"""`vihier.fit` from a screen to a file."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from ragged import ragged_frame, ragged_screen

import vihier
from vihier.errors import FitWarning, VihierError
from vihier.inference import svi, user_fit
from vihier.inference.svi import Schedule
from vihier.models.batch import Batch

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")


def ten_lines(batch: Batch) -> None:
    """The program of the README: a user's own, in ten lines."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-2), pyro.plate("line", batch.n_lines, dim=-1):
            gamma = pyro.sample("gamma", dist.Normal(level, 0.5))
            pyro.deterministic("effect", gamma)
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(gamma[batch.gene, batch.line], sigma), obs=batch.lfc)


def quick(screen: Any, model: Any = ten_lines, **options: Any) -> vihier.Posterior:
    return vihier.fit(screen, model, **{"guide": "mean_field", "draws": 50, "max_steps": 20, "quiet": True, **options})


def everything_in(path: Path) -> dict[str, bytes]:
    """Bytes of every dataset of a file."""
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: str(item[()]).encode() if item.dtype == object else item[()].tobytes()})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


def test_a_users_program_has_its_effect_with_labels_and_is_near_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svi, "Schedule", lambda: Schedule(window=80, max_windows=2))
    frame = ragged_frame(sgrnas=(6, 8), n_lines=3)
    with vihier.fit(frame, ten_lines, guide="mean_field", draws=400, quiet=True) as fit:
        assert fit.converged and fit.model == "ten_lines"
        assert fit.variables["effect"] == ("hugo_symbol", "depmap_id")
        assert {"effect_gene", "effect_dev"} <= set(fit.variables)
        sigma = fit.draws("sigma").mean().item()
        level = fit.draws("level").mean().item()
        effect = fit.moments("effect")["mean"].to_pandas()
        cells = frame.groupby(["hugo_symbol", "depmap_id"])["lfc"].agg(["mean", "size"])
        precision = cells["size"] / sigma**2 + 1 / 0.5**2
        expected = (cells["mean"] * cells["size"] / sigma**2 + level / 0.5**2) / precision
        # The conditional mean at the posterior mean of sigma and level: 0.2 sd for their spread and 400 draws.
        for (gene, line), value in expected.items():
            assert abs(effect.loc[gene, line] - value) < 0.2 / precision[gene, line] ** 0.5
        gene_mean = fit.draws("effect").mean("depmap_id")
        np.testing.assert_allclose(fit.draws("effect_gene"), gene_mean, atol=1e-6)
        np.testing.assert_allclose(fit.draws("effect_dev"), fit.draws("effect") - gene_mean, atol=1e-6)


@pytest.mark.parametrize("model", ["additive", "crossed", "gene_lineage"])
def test_the_file_has_every_site_and_derived_variable_as_design_defines_it(model: str) -> None:
    screen = ragged_screen()
    with quick(screen, model) as fit:
        x = {name: fit.draws(name).to_numpy()[0] for name in fit.variables}
        of_sgrna, of_line = screen.index.gene_of_sgrna, screen.index.lineage_of_line
        assert (fit.group("index")["gene_of_sgrna"].to_numpy() == of_sgrna).all()
        assert (fit.group("index")["lineage_of_line"].to_numpy() == of_line).all()
        if model == "gene_lineage":
            np.testing.assert_array_equal(x["effect"], x["gamma"])
            assert fit.variables["mu_gamma"] == ("hugo_symbol", "lineage")
            return
        onehot = np.eye(screen.n_genes)[of_sgrna]
        mean_alpha = x["alpha"] @ (onehot / onehot.sum(0))
        expected = {
            "effect": mean_alpha[:, :, None] + x["beta"][:, None, :] + x["gamma"],
            "alpha_dev": x["alpha"] - mean_alpha[:, of_sgrna],
            "beta_dev": x["beta"] - x["beta"].mean(1, keepdims=True),
        }
        if model == "additive":
            expected["gamma_dev"] = x["gamma"] - x["mu_gamma"][:, None, None]
        else:
            expected["gamma_dev"] = x["gamma"] - x["eta"][:, :, None] - x["theta"][:, None, :]
            expected["beta_plus_theta"] = x["beta"] + x["theta"]
            expected["eta_plus_mu_alpha"] = x["eta"] + x["mu_alpha"]
            assert {"beta", "theta", "mu_alpha", "sigma_theta"} <= set(fit.not_identified)
        for name, value in expected.items():
            np.testing.assert_allclose(x[name], value, atol=2e-6, err_msg=name)  # float32
        assert {dim: len(fit.labels(dim)) for dim in fit.dims} == {
            "sgrna": screen.n_sgrnas,
            "hugo_symbol": screen.n_genes,
            "depmap_id": screen.n_lines,
            "lineage": screen.n_lineages,
        }


def test_an_overridden_prior_takes_effect() -> None:
    screen = ragged_screen(sgrnas=(2,) * 3)
    levels = {}
    for prior in ("Normal(0, 3)", "Normal(3, 0.01)"):
        with vihier.fit(screen, "gene_lineage", guide="mean_field", draws=200, quiet=True, max_steps=60,
                        priors={"mu_mu_mu_gamma": prior}) as fit:  # fmt: skip
            levels[prior] = fit.draws("mu_mu_mu_gamma").mean().item()
            assert fit.priors == {"mu_mu_mu_gamma": prior}
    assert abs(levels["Normal(0, 3)"]) < 1 and abs(levels["Normal(3, 0.01)"] - 3) < 0.05


@pytest.mark.parametrize(
    ("priors", "what"),
    [
        ({"nu": "Normal(0, 1)"}, "'nu'.*no such site"),
        ({"sigma": "Normal(0, 1)"}, "sigma=Normal"),
        ({"sigma": "HalfNormal(-1)"}, "positive"),
        ({"lfc": "Normal(0, 1)"}, "lfc"),
    ],
)
def test_priors_that_cannot_be_are_refused(priors: dict[str, str], what: str) -> None:
    with pytest.raises(VihierError, match=what):
        quick(ragged_screen(), "additive", priors=priors)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    screen = ragged_screen()
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    for path, seed in zip(paths, (4, 4, 5), strict=True):
        torch.manual_seed(len(path.name) + seed)  # the global state must not matter
        quick(screen, "additive", out=path, seed=seed, batch_size=2, max_steps=9, draws=20).close()
    first, second, third = (everything_in(path) for path in paths)
    assert first == second
    assert first["posterior/gamma"] != third["posterior/gamma"]


@pytest.mark.slow
def test_batch_sizes_and_row_batches_agree_with_the_whole_screen() -> None:
    screen = ragged_screen(sgrnas=(4, 7, 2, 6), n_lines=5)
    fits = [
        vihier.fit(screen, ten_lines, guide="mean_field", draws=2000, quiet=True, dtype="float64", **options)
        for options in ({}, {"batch_size": 2}, {"batch": "rows", "batch_size": 60})
    ]
    whole, *others = (fit.moments("effect") for fit in fits)
    for other in others:
        # 2,000 draws put 0.03 sd on a mean and 1.6 % on an sd; the averages of the last phase 0.1 sd and 5 %.
        assert float((abs(other["mean"] - whole["mean"]) / whole["sd"]).max()) < 0.25
        assert float(abs(other["sd"] / whole["sd"] - 1).max()) < 0.2


def test_one_gene_or_one_line_is_fitted_with_a_warning() -> None:
    frame = ragged_frame()
    with pytest.warns(FitWarning, match="one gene.*rests on the prior"):
        of_gene = quick(frame[frame["hugo_symbol"] == "GENE2"], "additive")
    with pytest.warns(FitWarning, match="one cell line"):
        of_line = quick(frame[frame["depmap_id"] == "ACH-1"], "additive")
    for fit, one in ((of_gene, "hugo_symbol"), (of_line, "depmap_id")):
        effect = fit.moments("effect")
        assert effect["mean"].sizes[one] == 1 and bool((effect["sd"] > 0).all())


def test_a_fit_cut_short_says_so_in_the_file_and_in_a_warning(tmp_path: Path) -> None:
    with pytest.warns(FitWarning, match="did not converge: .*after 5 steps"):
        fit = quick(ragged_screen(), max_steps=5, out=tmp_path / "fit.h5")
    assert not fit.converged and "5 steps" in fit.attrs["reason"]
    assert fit.group("vi_history")["elbo_per_row"].shape == (5,)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of `additive` to the ragged screen, not to be written to."""
    path = tmp_path_factory.mktemp("written") / "fit.h5"
    quick(ragged_frame(), "additive", out=path).close()
    return path


def test_a_fit_that_is_there_already_is_opened(written: Path, tmp_path: Path) -> None:
    frame = ragged_frame()
    path = Path(shutil.copy2(written, tmp_path))
    before = path.stat().st_mtime_ns
    shuffled = frame.sample(frac=1, random_state=0)
    quick(shuffled.assign(note="not read by the model"), "additive", out=path).close()
    assert path.stat().st_mtime_ns == before
    quick(frame, "additive", out=path, force=True, seed=3).close()
    assert path.stat().st_mtime_ns != before and vihier.open_posterior(path).seed == 3


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"seed": 1}, "seed 0, and 1 was asked for"),
        ({"draws": 60}, "draws 50"),
        ({"model": "gene_lineage"}, "model 'additive'"),
        ({"max_steps": None}, "max_steps 20, and the default"),
        ({"dtype": "float64"}, "dtype 'float32'"),
        ({"priors": {"sigma": "HalfNormal(1)"}}, "prior of sigma the default.*'HalfNormal.1.'"),
        ({"batch_size": 2}, "batch_size 5"),
        ({"screen": ragged_frame(seed=1)}, "another screen"),
        ({"screen": ragged_frame().replace({"lineage": {"lung": "bone"}})}, "another screen"),
    ],
)
def test_another_fit_at_the_same_place_is_refused_naming_the_difference(
    changed: dict[str, Any], what: str, written: Path
) -> None:
    asked: dict[str, Any] = {"screen": ragged_frame(), "model": "additive", "out": written}
    with pytest.raises(VihierError, match=what) as refused:
        quick(**{**asked, **changed})
    assert "--force" in str(refused.value) and "\n" not in str(refused.value)


def test_two_programs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    def program_with(scale: float) -> Callable[[Batch], None]:
        def program(batch: Batch) -> None:
            level = pyro.sample("level", dist.Normal(0.0, scale))
            with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
                pyro.sample("lfc", dist.Normal(level, 1.0), obs=batch.lfc)

        return program

    screen, path = ragged_screen(), tmp_path / "fit.h5"
    quick(screen, program_with(1.0), out=path).close()
    quick(screen, program_with(1.0), out=path).close()
    with pytest.raises(VihierError, match="model_code"):
        quick(screen, program_with(2.0), out=path)


def test_what_is_no_fit_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "notes.h5"
    path.write_text("my notes")
    with pytest.raises(VihierError, match=r"notes\.h5.*--force"):
        quick(ragged_screen(), out=path)
    assert path.read_text() == "my notes"


def test_the_file_says_what_it_ran_with(tmp_path: Path) -> None:
    path = tmp_path / "fit.h5"
    quick(ragged_screen(), "additive", out=path, priors={"sigma": dist.HalfNormal(2.0)}, seed=7).close()
    with h5py.File(path) as file:
        attrs = dict(file.attrs)
    config = tomllib.loads(attrs["config"])
    assert config["priors"] == json.loads(attrs["priors"]) == {"sigma": "HalfNormal(2)"}
    assert config["seed"] == attrs["seed"] == 7 and config["batch_size"] == 5 and config["dtype"] == "float32"
    assert len(attrs["screen_hash"]) == 64 and attrs["complete"] and attrs["model"] == "additive"


def test_it_starts_from_an_earlier_fit_matched_by_label(tmp_path: Path) -> None:
    frame = ragged_frame(n_lines=5)
    old = vihier.fit(frame[frame["depmap_id"] != "ACH-2"], "additive", guide="mean_field", draws=200, quiet=True,
                     max_steps=200, out=tmp_path / "old.h5")  # fmt: skip
    new = quick(frame, "additive", init=tmp_path / "old.h5", max_steps=1, draws=1000)
    before, after = old.moments("alpha"), new.moments("alpha")
    # One step moves by at most 0.1 starting sd; 200 and 1,000 draws put 0.08 sd on the means.
    sd = np.maximum(before["sd"], after["sd"])
    assert float((abs(before["mean"] - after["mean"]) / sd).max()) < 0.5
    theirs, ours = old.moments("gamma"), new.moments("gamma", depmap_id=old.labels("depmap_id").tolist())
    sd = np.maximum(theirs["sd"], ours["sd"])
    assert float((abs(theirs["mean"] - ours["mean"]) / sd).max()) < 0.5
    # What the old fit did not have sits at its prior given what it had.
    fresh = new.moments("gamma", depmap_id="ACH-2")
    centre = old.moments("mu_gamma")["mean"].item()
    assert float((abs(fresh["mean"] - centre) / fresh["sd"]).max()) < 0.5
    assert tomllib.loads(new.attrs["config"])["init"] == str(tmp_path / "old.h5")
    with pytest.raises(VihierError, match="no site of this model"):
        quick(frame, lambda batch: other_sites(batch), init=old)


def other_sites(batch: Batch) -> None:
    level = pyro.sample("another", dist.Normal(0.0, 1.0))
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        pyro.sample("lfc", dist.Normal(level, 1.0), obs=batch.lfc)


def own_guide(batch: Batch) -> None:
    """A guide of a user's own, right in minibatches."""
    loc = pyro.param("loc", lambda: torch.zeros(batch.n_genes, batch.n_lines))
    sd = pyro.param("sd", lambda: torch.full((batch.n_genes, batch.n_lines), 0.1), constraint=dist.constraints.positive)
    level = pyro.param("level_loc", torch.tensor(0.0))
    sigma = pyro.param("sigma_loc", torch.tensor(-1.0))
    pyro.sample("level", dist.Normal(level, 0.05))
    pyro.sample("sigma", dist.LogNormal(sigma, 0.05))
    with batch.local(), pyro.plate("gene", len(batch.gene_idx), dim=-2), pyro.plate("line", batch.n_lines, dim=-1):
        pyro.sample("gamma", dist.Normal(loc[batch.gene_idx], sd[batch.gene_idx]))


def test_a_users_own_guide_is_trained_in_gene_blocks_and_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_fit, "SCHEDULE", Schedule((0.05, 0.02, 0.006, 0.002), window=80, max_windows=2))
    screen = ragged_screen(sgrnas=(6, 8, 5), n_lines=3)
    pyro.clear_param_store()
    monkeypatch.setattr(svi, "Schedule", lambda: Schedule(window=80, max_windows=2))
    ours = vihier.fit(screen, ten_lines, guide="mean_field", draws=300, quiet=True)
    theirs = vihier.fit(screen, ten_lines, guide=own_guide, draws=300, quiet=True, batch_size=2)
    assert theirs.guide == "own_guide" and not list(pyro.get_param_store())
    a, b = ours.moments("effect"), theirs.moments("effect")
    # Two trainings by SVI of the same family for gamma: 0.08 sd of Monte Carlo error, some 0.3 sd of SVI's.
    assert float((abs(a["mean"] - b["mean"]) / a["sd"]).max()) < 0.4
    assert float(abs(b["sd"] / a["sd"] - 1).max()) < 0.3


def test_an_autoguide_is_taken_on_the_whole_screen_and_refused_in_blocks() -> None:
    screen = ragged_screen(sgrnas=(3, 4), n_lines=3)
    with quick(screen, ten_lines, guide=AutoNormal(ten_lines), draws=40) as fit:
        assert fit.draws("gamma").shape == (1, 40, 2, 3) and fit.draws("gamma").std("draw").min() > 0
        assert fit.guide == "AutoNormal"
    with pytest.raises(VihierError, match="AutoNormal: its parameters have the size of one batch"):
        quick(screen, ten_lines, guide=AutoNormal(ten_lines), batch_size=1)


def test_a_guide_that_leaves_out_a_site_is_refused_naming_it() -> None:
    def half(batch: Batch) -> None:
        pyro.sample("level", dist.Normal(0.0, 1.0))
        pyro.sample("sigma", dist.LogNormal(0.0, 1.0))

    with pytest.raises(VihierError, match="does not sample 'gamma'"):
        quick(ragged_screen(), ten_lines, guide=half)


def test_a_users_own_plate_and_covariates_are_labelled_in_the_file() -> None:
    frame = ragged_frame()
    frame["p_dna_batch"] = np.where(frame["depmap_id"].isin(["ACH-0", "ACH-3"]), "first", "second")

    def program(batch: Batch) -> None:
        with pyro.plate("p_dna_batch", 2, dim=-1):
            shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        vector = pyro.sample("vector", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with batch.local():
            with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
                alpha = pyro.sample("alpha", dist.Normal(0.0, 1.0))
            with pyro.plate("row", len(batch.gene), dim=-1):
                mean = alpha[batch.sgrna] + shift[batch.covariates["p_dna_batch"]] + vector.sum()
                pyro.sample("lfc", dist.Normal(mean, 1.0), obs=batch.lfc)

    with quick(frame, program, batch_size=2) as fit:
        assert fit.variables == {
            "alpha": ("sgrna",),
            "shift": ("p_dna_batch",),
            "vector": ("vector_dim_0",),
        }
        assert fit.labels("p_dna_batch").tolist() == ["first", "second"]
        assert fit.draws("vector").shape == (1, 50, 3)


def test_a_frame_a_path_and_a_screen_are_the_same(tmp_path: Path) -> None:
    frame = ragged_frame()
    path = tmp_path / "screen.csv"
    frame.to_csv(path, index=False)
    draws = [quick(source).draws("sigma").to_numpy() for source in (frame, path, str(path), vihier.read_screen(path))]
    assert all((one == draws[0]).all() for one in draws)


def test_a_failed_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    def breaks(batch: Batch) -> None:
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(level, 1.0), obs=batch.lfc)
        pyro.deterministic("broken", level.new_zeros(pd.NA if len(batch.gene) == 1 else 1))

    with pytest.raises(TypeError):
        quick(ragged_screen(), breaks, out=tmp_path / "fit.h5")
    assert list(tmp_path.iterdir()) == []
