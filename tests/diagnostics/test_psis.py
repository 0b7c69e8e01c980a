"""Pareto k-hat against ArviZ and against known tails."""

from __future__ import annotations

import numpy as np
import pytest

from vihier.diagnostics.psis import pareto_khat


@pytest.mark.parametrize("n_draws", [100, 1000])
@pytest.mark.parametrize("sd", [0.3, 1.0, 3.0])
def test_equals_arviz(n_draws: int, sd: float) -> None:
    arviz = pytest.importorskip("arviz")
    weights = np.random.default_rng(0).normal(0, sd, (4, n_draws))
    expected = [arviz.psislw(row.copy())[1] for row in weights]
    np.testing.assert_allclose(pareto_khat(weights), expected, atol=1e-6)


def test_known_tail_index() -> None:
    weights = np.random.default_rng(1).pareto(1 / 0.9, size=(50, 4000)) + 1
    # The sd of one estimate from 190 exceedances is about (1 + k) / sqrt(190) = 0.14; of the mean of 50, 0.02. The
    # prior of the estimator, worth ten exceedances at 1/2, pulls by 0.02.
    assert pareto_khat(np.log(weights)).mean() == pytest.approx(0.9, abs=0.08)


def test_equal_weights_are_as_good_as_can_be_and_missing_ones_as_bad() -> None:
    weights = np.zeros((2, 500))
    weights[1, 3] = np.nan
    assert pareto_khat(weights).tolist() == [-np.inf, np.inf]
