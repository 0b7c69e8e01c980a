"""Local false sign rates of known posteriors, and sets whose share of wrong signs is the one promised."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from vihier.answers.false_sign import false_discovery_rate, local_false_sign_rate

N_DRAWS = 20_000


@pytest.mark.parametrize("beyond", [0.0, 0.4])
def test_that_of_a_normal_posterior_is_its_tail(beyond: float) -> None:
    mean, sd = np.array([-2.0, -0.5, 0.0, 0.3, 1.0]), np.array([1.0, 0.5, 1.0, 0.6, 2.0])
    draws = np.random.default_rng(0).normal(mean, sd, (N_DRAWS, 5))
    expected = np.minimum(norm.sf(-beyond, mean, sd), norm.cdf(beyond, mean, sd))
    # Four standard errors of a fraction of so many draws, which the half draw added is far below.
    error = 4 * np.sqrt(expected * (1 - expected) / N_DRAWS)
    assert (np.abs(local_false_sign_rate(draws, beyond) - expected) < error).all()


def test_it_is_never_zero_and_has_no_favourite_sign() -> None:
    draws = np.random.default_rng(1).normal(3.0, 0.1, (99, 4))
    assert_allclose(local_false_sign_rate(draws), 0.005)
    assert_allclose(local_false_sign_rate(-draws), 0.005)
    assert_allclose(local_false_sign_rate(np.array([[-1.0], [1.0]])), 0.5)


def test_what_is_exactly_zero_or_not_a_number_has_no_sign() -> None:
    draws = np.stack([np.zeros(100), np.full(100, np.nan)], axis=1)
    assert (local_false_sign_rate(draws) > 0.99).all()


def test_the_rate_of_a_set_is_the_mean_of_its_members() -> None:
    lfsr = np.random.default_rng(2).choice([0.001, 0.02, 0.1, 0.3, 0.5], 200)
    expected = [lfsr[lfsr <= own].mean() for own in lfsr]
    assert_allclose(false_discovery_rate(lfsr), expected, rtol=1e-12)


def test_the_share_of_wrong_signs_is_the_one_promised() -> None:
    # Effects from their prior, N(0, 1), seen with noise of sd 1: the posterior is N(y / 2, 1/2) and rates are exact.
    rng = np.random.default_rng(3)
    effect = rng.normal(size=100_000)
    mean = (effect + rng.normal(size=effect.shape)) / 2
    lfsr = norm.sf(np.abs(mean), scale=np.sqrt(0.5))
    for level in (0.01, 0.05, 0.1):
        called = false_discovery_rate(lfsr) <= level
        wrong = (np.sign(mean) != np.sign(effect))[called]
        assert_allclose(lfsr[called].mean(), level, rtol=0.01)  # no further effect fits in
        assert abs(wrong.mean() - level) < 4 * np.sqrt(level / called.sum())
