"""One adapter for ArviZ 0.x and 1.x: right groups and labels, and nothing read before it is used."""

import gc
import sys
from types import SimpleNamespace

import arviz as az
import numpy as np
import pytest
import xarray as xr

from vihier import open_posterior


@pytest.fixture(scope="module")
def post(fit_file):
    with open_posterior(fit_file) as opened:
        yield opened


def test_selection_reaches_every_variable_it_concerns(post, known):
    data = post.to_arviz(hugo_symbol=["TP53", "KRAS"], lineage="skin")
    posterior = data.posterior
    assert set(posterior) == set(known.dims)
    assert dict(posterior.sizes) == {
        "chain": 1,
        "draw": 200,
        "sgrna": 3,
        "depmap_id": 3,
        "lineage": 1,
        "hugo_symbol": 2,
    }
    np.testing.assert_array_equal(posterior["effect"].values[0], known.draws["effect"][:, [4, 1]][:, :, [0, 2, 5]])
    np.testing.assert_array_equal(posterior["alpha"].values[0], known.draws["alpha"][:, [1, 4, 6]])
    np.testing.assert_array_equal(posterior["sigma"].values[0], known.draws["sigma"])
    assert "log_p" in data.sample_stats
    assert data.attrs["model"] == "additive"


def test_arviz_works_with_it(post):
    table = az.summary(
        post.to_arviz(hugo_symbol="KRAS"), var_names=["gamma"], kind="stats", hdi_prob=0.89, round_to="none"
    )
    ours = post.summary("gamma", hugo_symbol="KRAS")
    # ArviZ sums float32 draws in float32
    np.testing.assert_allclose(table["mean"], ours["mean"], rtol=1e-5)
    np.testing.assert_array_equal(table["hdi_5.5%"].astype(np.float32), ours["hdi_5.5%"])


def test_without_a_selection_it_is_lazy_and_right(post, known):
    gamma = post.to_arviz().posterior["gamma"]
    assert not gamma.variable._in_memory
    part = gamma.sel(hugo_symbol=["TP53", "BRAF"], depmap_id="ACH-000009").isel(draw=slice(10, 20, 3))
    np.testing.assert_array_equal(part.values[0], known.draws["gamma"][10:20:3, [4, 0], 3])
    np.testing.assert_array_equal(
        gamma.isel(draw=-1, hugo_symbol=slice(None, None, -1)).values[0], known.draws["gamma"][-1, ::-1]
    )
    np.testing.assert_array_equal(gamma.values[0], known.draws["gamma"])
    assert not gamma.variable._in_memory, "not kept either"


def test_the_file_outlives_the_posterior_it_was_made_from(known, fit_file):
    data = open_posterior(fit_file).to_arviz()
    gc.collect()
    np.testing.assert_array_equal(data.posterior["beta"].values[0], known.draws["beta"])


def test_it_can_be_saved_and_read_again(post, tmp_path):
    data = post.to_arviz(hugo_symbol="KRAS")
    data.to_netcdf(tmp_path / "kras.nc")
    again = az.from_netcdf(tmp_path / "kras.nc")
    np.testing.assert_array_equal(again.posterior["gamma"], data.posterior["gamma"])


@pytest.mark.parametrize("version", ["1.0.0", "1.4.2", "2.0.0.dev0"])
def test_newer_arviz_gets_a_data_tree(version, post, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__=version))
    tree = post.to_arviz(hugo_symbol="KRAS")
    assert isinstance(tree, xr.DataTree)
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert tree["posterior"].sizes["hugo_symbol"] == 1 and tree.attrs["seed"] == 3


def test_an_unknown_dimension_is_refused(post, refusal):
    assert "did you mean 'lineage'?" in refusal(post.to_arviz, linage="skin")
