"""The stopping rule on iterates whose answer is known."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest

from vihier.inference.convergence import judge, moved, r_hat

STATIONARY_ELBO = np.random.default_rng(9).normal(-1.0, 0.01, 200)


def test_r_hat_is_the_one_of_gelman_and_rubin() -> None:
    random = np.random.default_rng(0)
    iterates = random.normal(size=(400, 5)) + np.linspace(0, 2, 400)[:, None] * np.arange(5)
    chains = iterates.reshape(4, 100, 5)
    expected = [az.rhat(chains[:, :, i], method="identity") for i in range(5)]
    np.testing.assert_allclose(r_hat(iterates), expected, rtol=1e-12)


def test_iterates_of_white_noise_are_settled() -> None:
    iterates = np.random.default_rng(1).normal(size=(400, 30))
    verdict = judge(iterates, STATIONARY_ELBO, [f"p{i}" for i in range(30)])
    assert verdict.settled and verdict.r_hat < 1.1 and "R-hat at most 1.1" in verdict.reason


def test_a_drift_is_named_with_its_parameter_and_its_size() -> None:
    iterates = np.random.default_rng(1).normal(size=(400, 3))
    iterates[:, 1] += np.linspace(0, 6, 400)
    verdict = judge(iterates, STATIONARY_ELBO, ["a", "location of beta[7]", "c"])
    assert not verdict.settled and verdict.reason.startswith("location of beta[7] still moves")
    assert verdict.moved == pytest.approx(3.0, abs=0.3)  # halves of a ramp of 6 are 3 apart; noise of means 0.1


def test_a_slow_wander_within_a_part_of_the_unit_is_let_pass() -> None:
    iterates = np.linspace(0, 0.3, 400)[:, None]
    assert r_hat(iterates)[0] > 3 and moved(iterates)[0] == pytest.approx(0.15, rel=0.01)
    assert judge(iterates, STATIONARY_ELBO, ["a"]).settled


def test_an_elbo_that_rises_beyond_its_noise_is_not_settled() -> None:
    iterates = np.random.default_rng(1).normal(size=(400, 3))
    rising = STATIONARY_ELBO + np.linspace(0, 0.05, 200)
    verdict = judge(iterates, rising, list("abc"))
    assert not verdict.settled and "the ELBO still rises: by 0.02" in verdict.reason


def test_a_program_without_shared_parameters_is_judged_by_its_elbo() -> None:
    nothing = np.zeros((400, 0))
    assert judge(nothing, STATIONARY_ELBO, []).settled
    assert not judge(nothing, STATIONARY_ELBO + np.linspace(0, 1, 200), []).settled
