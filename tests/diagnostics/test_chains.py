"""R-hat, effective sample sizes and BFMI held to ArviZ's, which take one quantity at a time."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest

from vihier.diagnostics.chains import bfmi, ess_bulk, ess_tail, rhat


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """Autoregressive chains from antithetic to sticky, one heavy-tailed, one whose chains disagree: [4, 501, 8]."""
    noise = np.random.default_rng(0).standard_normal((4, 501, 8))
    chains = noise.copy()
    for i, memory in enumerate((-0.7, 0.0, 0.3, 0.9, 0.99, 0.5, 0.5, 0.0)):
        for t in range(1, 501):
            chains[:, t, i] = memory * chains[:, t - 1, i] + noise[:, t, i]
    chains[:, :, 5] = np.tan(np.clip(chains[:, :, 5], -1.5, 1.5))
    chains[:, :, 6] += 0.5 * np.arange(4)[:, None]
    chains[:, :, 7] = np.round(chains[:, :, 7])  # ties
    return chains


@pytest.mark.parametrize("ours", [rhat, ess_bulk, ess_tail])
def test_they_are_arvizs(ours, draws: np.ndarray) -> None:
    method = {"rhat": None, "ess_bulk": "bulk", "ess_tail": "tail"}[ours.__name__]
    each = [draws[:, :, i] for i in range(draws.shape[2])]
    theirs = [az.rhat(one) if method is None else az.ess(one, method=method) for one in each]
    # The same algorithm in float64; sums are taken in another order.
    np.testing.assert_allclose(ours(draws), theirs, rtol=1e-9)
    np.testing.assert_allclose(ours(draws.reshape(4, 501, 2, 4)), np.reshape(theirs, (2, 4)), rtol=1e-9)


def test_bfmi_is_arvizs(draws: np.ndarray) -> None:
    np.testing.assert_allclose(bfmi(draws[:, :, 3]), az.bfmi(draws[:, :, 3]), rtol=1e-9)


def test_a_constant_has_no_rhat_and_no_error() -> None:
    constant = np.ones((2, 100, 1))
    with np.errstate(all="raise"):
        assert np.isnan(rhat(constant)).all()
    assert ess_bulk(constant).tolist() == [200.0]
