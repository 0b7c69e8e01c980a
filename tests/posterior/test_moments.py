"""Moments, quantiles and intervals are those of numpy and ArviZ on the same draws."""

import arviz as az
import numpy as np
import pytest

from vihier.posterior.moments import hdi_of_draws, moments_of_draws


@pytest.fixture(scope="module")
def draws():
    """[2 chains, 251 draws, 3, 4]: skewed, symmetric and two-humped elements, in float32 as a file has them."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 251, 3, 4))
    x[:, :, 1] = np.exp(x[:, :, 1])
    x[:, :, 2] += 4 * (rng.random((2, 251, 4)) < 0.4)
    return x.astype(np.float32)


def test_moments_and_quantiles_equal_numpys(draws):
    found = moments_of_draws(draws)
    flat = draws.astype(np.float64).reshape(-1, 3, 4)
    # Both sides sum float64; only the order of summation differs.
    np.testing.assert_allclose(found["mean"], flat.mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found["sd"], flat.std(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(found["prob_negative"], (flat < 0).mean(0), rtol=1e-15)
    for name, at in {"q05": 0.05, "q50": 0.5, "q95": 0.95}.items():
        np.testing.assert_allclose(found[name], np.quantile(flat, at, axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("prob", [0.01, 0.5, 0.89, 0.94, 0.999])
def test_interval_is_arvizs(draws, prob):
    lower, upper = hdi_of_draws(draws, prob)
    expected = az.hdi(az.convert_to_dataset({"x": draws}), hdi_prob=prob)["x"].values
    # The bounds are draws, so they are the same numbers and not only near ones.
    np.testing.assert_array_equal(lower, expected[..., 0])
    np.testing.assert_array_equal(upper, expected[..., 1])


def test_blocks_do_not_show():
    # 1,000 draws of 300 elements take several blocks of 64,000 values, the last one short.
    x = np.random.default_rng(2).normal(size=(1, 1000, 300)).astype(np.float32)
    whole = moments_of_draws(x)
    for element in (0, 63, 64, 299):
        alone = moments_of_draws(x[:, :, [element]])
        for name, values in alone.items():
            assert values[0] == whole[name][element]


def test_scalar_and_single_draw():
    found = moments_of_draws(np.full((1, 1), 2.5, dtype=np.float32))
    assert found["mean"].shape == ()
    assert found["mean"] == found["q05"] == found["q95"] == found["hdi_lower"] == found["hdi_upper"] == 2.5
    assert np.isnan(found["sd"]), "one draw says nothing about spread"


def test_undefined_draws_make_undefined_moments_and_touch_nothing_else():
    x = np.random.default_rng(3).normal(size=(1, 50, 3)).astype(np.float32)
    x[0, 7, 1] = np.nan
    x[0, 7, 2] = np.inf
    found = moments_of_draws(x)
    assert all(np.isnan(values[1]) and np.isfinite(values[0]) for values in found.values())
    assert found["mean"][2] == np.inf
    assert np.isfinite(found["q50"][2])


def test_mean_and_sd_survive_a_large_offset():
    # Raw offsets of `additive` are wide; at 1e4 float32 accumulation would lose an sd of 0.01 altogether.
    x = (1e4 + 0.01 * np.random.default_rng(4).normal(size=(1, 4000, 1))).astype(np.float32)
    found = moments_of_draws(x)
    np.testing.assert_allclose(found["sd"][0], x.astype(np.float64).std(ddof=1), rtol=1e-10)
