"""`covariate_correlated`: what its file holds, its terms, other guides; it and `covariate` beside long NUTS runs."""

from __future__ import annotations

from pathlib import Path

import arviz
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_covariate_models import TABLE, flat

import vihier
from vihier.diagnostics.sbc import SbcStudy, draw_truth
from vihier.errors import FitWarning

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
DIMS = ("coefficient", "coefficient_other")


def test_a_file_holds_the_correlations_by_name(tmp_path: Path) -> None:
    out = tmp_path / "fit.h5"
    with vihier.fit(TABLE, "covariate_correlated", draws=200, out=out, quiet=True) as post:
        assert post.converged
        correlation = post.draws("correlation")
        assert correlation.dims[2:] == DIMS
        for dim in DIMS:
            assert correlation[dim].values.tolist() == ["intercept", "copy_number", "rna_expr"]
        chol, values = flat(post, "correlation_chol"), flat(post, "coefficients")
        # Stored in float32.
        np.testing.assert_allclose(flat(post, "correlation"), chol @ chol.transpose(0, 2, 1), atol=1e-6)
        for i, name in enumerate(["mu_alpha", "kappa", "mu_phi"]):
            np.testing.assert_array_equal(flat(post, name).squeeze(), values[..., i].squeeze())
        table = post.summary("correlation", coefficient=["intercept"], coefficient_other=["copy_number"])
        assert table["mean"].item() == pytest.approx(float(correlation[0, :, 0, 1].mean()), abs=1e-5)
        rows = vihier.predict(post, TABLE.sample(100, random_state=1), draws=100)
        assert (rows["lfc"] - rows["mean"]).std() < 0.35  # noise of 0.3, as made
    assert arviz.from_netcdf(str(out)).posterior["coefficients"].dims[2:] == ("hugo_symbol", "coefficient")
    with xr.open_datatree(out, engine="h5netcdf") as tree:
        assert tree["moments"]["correlation_mean"].dims == DIMS


def test_coefficients_are_those_of_the_terms_that_are_on() -> None:
    off = {"rna_expr": "off"}
    with (
        pytest.warns(FitWarning, match="stopped after 5 sweeps"),
        vihier.fit(TABLE, "covariate_correlated", draws=50, max_steps=5, covariates=off, quiet=True) as post,
    ):
        assert post.labels("coefficient").tolist() == ["intercept", "copy_number"]
        known = TABLE.head(20)
        new = known.assign(hugo_symbol="NEW", sgrna="N" + known["sgrna"])
        sd = vihier.predict(post, pd.concat([known, new]), draws=50).groupby("hugo_symbol")["sd"].mean()
        assert sd["NEW"] > 1.2 * sd[known["hugo_symbol"].iloc[0]]  # its vector is drawn from the prior


def test_mean_field_takes_the_program() -> None:
    with (
        pytest.warns(FitWarning, match="stopped by max_steps"),
        vihier.fit(TABLE, "covariate_correlated", guide="mean_field", draws=100, max_steps=200, quiet=True) as post,
    ):
        correlation = flat(post, "correlation")
        np.testing.assert_allclose(np.diagonal(correlation, axis1=1, axis2=2), 1, atol=1e-5)
        assert np.linalg.eigvalsh(correlation.astype(float)).min() > 0


def test_simulated_truths_are_correlated_as_they_say() -> None:
    """In units of their sds, 24 genes' vectors whitened by the true factor are standard normals."""
    study = SbcStudy.of(vihier.read_screen(TABLE), "covariate_correlated", seed=2)
    whitened = []
    for number in range(4):
        true = draw_truth(study, number).variables
        means = np.array([true[name] for name in ("mu_mu_alpha", "mu_kappa", "mu_mu_phi")])
        sds = np.array([true[name] for name in ("sigma_mu_alpha", "sigma_kappa", "sigma_mu_phi")])
        whitened.append(np.linalg.solve(true["correlation_chol"], ((true["coefficients"] - means) / sds).T).T)
    covariance = np.cov(np.concatenate(whitened).T)
    # 96 vectors: entries err by 1 / sqrt(96) = 0.10, those of the diagonal by 0.14.
    np.testing.assert_allclose(covariance, np.eye(3), atol=0.5)


def table_of(reference: dict[str, np.ndarray]) -> pd.DataFrame:
    names = ("sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id")
    codes = {name: reference[f"code.{name}"].astype(int) for name in names}
    table = pd.DataFrame({name: reference[f"label.{name}"][code] for name, code in codes.items()})
    table["lfc"] = reference["row.lfc"].astype(float)
    for name in ("copy_number", "rna_expr", "is_mutated"):
        table[name] = reference[f"pair.{name}"][codes["hugo_symbol"], codes["depmap_id"]].astype(float)
    return table


@pytest.mark.slow
@pytest.mark.parametrize("model", ["covariate", "covariate_correlated"])
def test_agrees_with_nuts_on_the_whole_model(model: str) -> None:
    """Long NUTS runs of the program as it stands, nothing integrated out; see tests/reference/README.md."""
    with np.load(REFERENCE / "covariate.simulated.npz") as file:
        table = table_of(dict(file))
    with np.load(REFERENCE / f"{model}.simulated.npz") as file:
        reference = dict(file)
    asis = dict.fromkeys(("copy_number", "rna_expr", "is_mutated"), "asis")
    with vihier.fit(table, model, covariates=asis, draws=4000, seed=1, quiet=True) as post:
        assert post.converged
        for name in (key.removesuffix(".mean") for key in reference if key.endswith(".mean")):
            draws = flat(post, name).reshape(-1, *reference[f"{name}.mean"].shape)
            varies = reference[f"{name}.sd"] > 1e-6  # the diagonal of a correlation matrix does not
            sd = reference[f"{name}.sd"][varies]
            z = (draws.mean(0) - reference[f"{name}.mean"])[varies] / sd
            ratio = draws.std(0)[varies] / sd
            # 4,000 draws of 250 chains err by some 0.03 sd, and 3 % of an sd; the reference by half of that.
            assert np.sqrt((z**2).mean()) < 0.1 and np.abs(z).max() < 0.25, name
            if name == "correlation" or name.startswith("sigma"):
                known = np.stack([reference[f"{name}.{q}"][varies] for q in ("q05", "q50", "q95")])
                found = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)[:, varies]
                unit = (known[2] - known[0]) / 3.29
                # Of four lineages: a tail like that of a Cauchy scale.
                limit = 0.5 if name in ("sigma_mu_beta", "sigma_sigma_beta") else 0.3
                assert (np.abs(found - known) / unit).max() < limit, name
            else:
                assert ratio.min() > 0.85 and ratio.max() < 1.15, name
