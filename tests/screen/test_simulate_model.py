"""Screens drawn from a model: the rows and the truth follow its densities, whatever the program."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy import stats

import vihier
from vihier.errors import VihierError
from vihier.models.batch import Batch
from vihier.screen import simulate as simulate_module
from vihier.screen import simulate_design
from vihier.screen.simulate import SimulatedScreen, simulate
from vihier.screen.simulate_model import SIMULATION_PRIORS

GENE_LINE, GENE, SGRNA, LINE = ("hugo_symbol", "depmap_id"), ("hugo_symbol",), ("sgrna",), ("depmap_id",)
LINEAGE, ADDITIVE_GLOBALS = ("lineage",), ("mu_mu_alpha", "sigma_mu_alpha", "sigma_sigma_alpha", "mu_mu_beta")
ADDITIVE = {
    **dict.fromkeys(("effect", "effect_dev", "gamma", "gamma_dev"), GENE_LINE),
    **dict.fromkeys(("effect_gene", "mu_alpha", "sigma_alpha", "sigma_gamma"), GENE),
    **dict.fromkeys(("alpha", "alpha_dev"), SGRNA),
    **dict.fromkeys(("beta", "beta_dev"), LINE),
    **dict.fromkeys(("mu_beta", "sigma_beta"), LINEAGE),
    **dict.fromkeys((*ADDITIVE_GLOBALS, "sigma_mu_beta", "sigma_sigma_beta", "sigma_sigma_gamma", "sigma"), ()),
}
DIMS = {
    "additive": {**ADDITIVE, "mu_gamma": ()},
    "crossed": {
        **ADDITIVE,
        **dict.fromkeys(("eta", "eta_plus_mu_alpha"), GENE),
        **dict.fromkeys(("theta", "beta_plus_theta"), LINE),
        **dict.fromkeys(("mu_theta", "sigma_theta"), LINEAGE),
        **dict.fromkeys(("mu_eta", "sigma_eta", "mu_mu_theta", "sigma_mu_theta", "sigma_sigma_theta"), ()),
    },
    "gene_lineage": {
        **dict.fromkeys(("effect", "effect_dev", "gamma"), GENE_LINE),
        **dict.fromkeys(("effect_gene", "mu_mu_gamma", "sigma_mu_gamma"), GENE),
        "mu_gamma": ("hugo_symbol", "lineage"),
        "sigma_gamma": LINEAGE,
        **dict.fromkeys(("mu_mu_mu_gamma", "sigma_mu_mu_gamma", "sigma_sigma_mu_gamma"), ()),
        **dict.fromkeys(("sigma_sigma_gamma", "sigma"), ()),
    },
}


def truth_of(screen: SimulatedScreen) -> xr.Dataset:
    return xr.open_dataset(screen.truth, group="truth", engine="h5netcdf")


def residuals(written: SimulatedScreen, truth: xr.Dataset, additive: bool) -> np.ndarray:
    """What is left of the rows when the truth's mean is taken off: [N]."""
    screen = vihier.read_screen(written.table)
    mean = truth["gamma"].values[screen.gene, screen.line]
    if additive:
        mean = mean + truth["alpha"].values[screen.sgrna] + truth["beta"].values[screen.line]
    return screen.lfc - mean


@pytest.mark.parametrize("model", ["additive", "crossed", "gene_lineage"])
def test_rows_are_the_model_at_the_truth(tmp_path: Path, model: str) -> None:
    written = simulate(tmp_path / "s.parquet", genes=40, lines=20, model=model, sgrnas=(2, 6), seed=2)
    truth = truth_of(written)
    z = residuals(written, truth, additive=model != "gene_lineage") / float(truth["sigma"])
    # Exactly standard Normal: a Kolmogorov-Smirnov test that fails by chance for one seed in a thousand.
    assert stats.kstest(z, "norm").pvalue > 1e-3


@pytest.mark.parametrize("noise", ["line", "replicate"])
def test_student_t_rows_are_the_model_at_the_truth(tmp_path: Path, noise: str) -> None:
    """Residuals in units of their own noise scales are Student-t with the truth's degrees of freedom."""
    written = simulate(
        tmp_path / "s.parquet", genes=40, lines=20, model="additive", seed=2, likelihood="student_t", noise=noise
    )
    truth, screen = truth_of(written), vihier.read_screen(written.table)
    scale = truth[f"sigma_{noise}"].values[screen.replicate if noise == "replicate" else screen.line]
    if noise == "replicate":
        assert list(truth["replicate"].values) == list(screen.index.replicates)
    z = residuals(written, truth, additive=True) / scale
    assert stats.kstest(z, stats.t(float(truth["nu"])).cdf).pvalue > 1e-3
    assert np.ptp(scale) > 0.05


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": "realistic", "noise": "replicate"}, "for a model by its name"),
        ({"model": "additive", "likelihood": "cauchy"}, "normal or student_t rows"),
    ],
)
def test_rows_that_cannot_be_simulated_are_refused(tmp_path: Path, options: dict[str, str], named: str) -> None:
    with pytest.raises(VihierError, match=named):
        simulate(tmp_path / "s.parquet", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["additive", "crossed", "gene_lineage"])
def test_truth_has_every_variable_over_its_dims(tmp_path: Path, model: str) -> None:
    # Sizes that could be taken for one another.
    truth = truth_of(simulate(tmp_path / "s.parquet", genes=4, lines=4, lineages=4, sgrnas=1, model=model))
    assert {name: variable.dims for name, variable in truth.data_vars.items()} == DIMS[model]


def test_derived_variables_are_what_the_design_says(tmp_path: Path) -> None:
    written = simulate(tmp_path / "s.parquet", genes=40, lines=20, model="additive", sgrnas=(1, 5), seed=1)
    screen, truth = vihier.read_screen(written.table), truth_of(written)
    index, alpha = screen.index, truth["alpha"].values
    assert list(index.sgrnas) == list(truth["sgrna"].values)
    mean_alpha = pd.Series(alpha).groupby(index.gene_of_sgrna).mean().to_numpy()
    effect = mean_alpha[:, None] + truth["beta"].values + truth["gamma"].values
    # Float32 on disk: some units of 1e-7 at values near 1.
    np.testing.assert_allclose(truth["effect"], effect, atol=1e-6)
    np.testing.assert_allclose(truth["alpha_dev"], alpha - mean_alpha[index.gene_of_sgrna], atol=1e-6)
    np.testing.assert_allclose(truth["effect_dev"], effect - effect.mean(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(truth["gamma_dev"], truth["gamma"] - truth["mu_gamma"], atol=1e-6)


def test_sites_follow_their_priors(tmp_path: Path) -> None:
    priors = {
        "mu_mu_alpha": "Normal(0, 0.1)",
        "sigma_mu_alpha": "Gamma(400, 1000)",
        "sigma": dist.Gamma(2500.0, 5000.0),
    }
    truth = truth_of(
        simulate(tmp_path / "s.parquet", genes=600, lines=60, lineages=3, model="additive", priors=priors, seed=9)
    )
    assert float(truth["sigma"]) == pytest.approx(0.5, abs=0.04)  # Gamma(2500, 5000) has sd 0.01
    scaled = {
        "mu_alpha": (truth["mu_alpha"] - truth["mu_mu_alpha"]) / truth["sigma_mu_alpha"],
        "gamma": (truth["gamma_dev"] / truth["sigma_gamma"]).values[:, :2].ravel(),
    }
    for values in scaled.values():
        assert stats.kstest(np.asarray(values), "norm").pvalue > 1e-3
    half = truth["sigma_gamma"] / truth["sigma_sigma_gamma"]
    assert stats.kstest(np.asarray(half), "halfnorm").pvalue > 1e-3


def test_what_genes_share_is_the_same_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_design, "GENES_PER_BLOCK", 16)
    written = simulate(tmp_path / "s.parquet", genes=64, lines=30, model="additive", seed=6)
    truth, screen = truth_of(written), vihier.read_screen(written.table)
    left = residuals(written, truth, additive=True)
    # Had a block its own beta, its residuals would keep line effects with sd near 0.2 instead of sigma / sqrt(n).
    by_line = pd.Series(left).groupby([screen.gene // 16, screen.line]).agg(["mean", "count"])
    z = by_line["mean"] * np.sqrt(by_line["count"]) / float(truth["sigma"])
    assert z.std() == pytest.approx(1, abs=0.3)  # 120 values: standard error 0.065


def test_rows_do_not_depend_on_how_they_are_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"genes": 40, "lines": 6, "lineages": 2, "model": "crossed", "seed": 3}
    monkeypatch.setattr(simulate_design, "GENES_PER_BLOCK", 16)
    torch.manual_seed(1)
    whole = simulate(tmp_path / "a.parquet", **arguments)
    monkeypatch.setattr(simulate_module, "ROWS_PER_GROUP", 1)
    torch.manual_seed(2)
    pieces = simulate(tmp_path / "b.parquet", **arguments)
    pd.testing.assert_frame_equal(pd.read_parquet(whole.table), pd.read_parquet(pieces.table))
    xr.testing.assert_identical(truth_of(whole), truth_of(pieces))


def test_the_callers_random_stream_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    simulate(tmp_path / "s.parquet", genes=2, lines=2, lineages=1, model="additive")
    assert torch.equal(torch.rand(1), expected)


def test_the_default_model_screen_is_balanced(tmp_path: Path) -> None:
    written = simulate(tmp_path / "s.parquet", model="gene_lineage", missing=0)
    assert len(pd.read_parquet(written.table)) == 20 * 140 * 4 * 2


@pytest.mark.parametrize("model", list(DIMS))
def test_simulation_priors_name_every_global(model: str) -> None:
    scalars = {name for name, dims in DIMS[model].items() if dims == ()}
    assert set(SIMULATION_PRIORS[model]) == scalars


def my_model(batch: Batch) -> None:
    """Another plate order, and no line effects."""
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("lineage", batch.n_lineages, dim=-1):
        mean = pyro.sample("mean", dist.Normal(0.0, 0.5))
    with batch.local():
        genes, lines = pyro.plate("gene", len(batch.gene_idx), dim=-1), pyro.plate("line", batch.n_lines, dim=-2)
        with genes, lines:
            delta = pyro.sample("delta", dist.Normal(mean[batch.lineage_of_line][:, None], 0.3))
            pyro.deterministic("effect", delta)
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(delta[batch.line, batch.gene], sigma), obs=batch.lfc)


def test_a_program_of_ones_own_needs_no_simulator(tmp_path: Path) -> None:
    written = simulate(tmp_path / "s.parquet", genes=20, lines=9, lineages=3, model=my_model, seed=4)
    screen, truth = vihier.read_screen(written.table), truth_of(written)
    assert truth["delta"].dims == truth["effect"].dims == ("hugo_symbol", "depmap_id")
    left = screen.lfc - truth["effect"].values[screen.gene, screen.line]
    assert stats.kstest(left / float(truth["sigma"]), "norm").pvalue > 1e-3


def no_rows(batch: Batch) -> None:
    """Nothing is observed."""
    pyro.sample("sigma", dist.HalfNormal(1.0))


def per_row(batch: Batch) -> None:
    """A latent in every row."""
    with batch.local(), pyro.plate("row", len(batch.gene)):
        weight = pyro.sample("weight", dist.Gamma(2.0, 2.0))
        pyro.sample("lfc", dist.Normal(0.0, weight), obs=batch.lfc)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "additive", "priors": {"sigm": "HalfNormal(1)"}}, "sigm"),
        ({"model": "additive", "priors": {"sigma": "Normal(0, 1)"}}, "sigma"),
        ({"model": "additive", "priors": {"mu_gamma": "Normal(100, 1)"}}, "lfc"),
        ({"model": no_rows}, "no_rows"),
        ({"model": per_row}, "weight"),
    ],
)
def test_refuses_by_name(tmp_path: Path, arguments: dict[str, object], named: str) -> None:
    with pytest.raises(VihierError, match=named) as refused:
        simulate(tmp_path / "s.parquet", genes=3, lines=3, lineages=1, **arguments)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prior", ["LogNormal(-1, 0.001)", "Gamma(1.3533e5, 3.6788e5)"])
def test_a_scale_is_drawn_from_a_positive_prior_of_any_family(tmp_path: Path, prior: str) -> None:
    priors = {"sigma": prior, "sigma_gamma": prior}
    truth = truth_of(simulate(tmp_path / "s.parquet", genes=6, lines=5, model="additive", priors=priors))
    # Both priors have their mass within 0.3 % of exp(-1); a draw beyond four sds is none of seed 0's.
    np.testing.assert_allclose(truth["sigma"], np.exp(-1), rtol=0.012)
    np.testing.assert_allclose(truth["sigma_gamma"], np.full(6, np.exp(-1)), rtol=0.012)
