"""Pyro's NUTS on densities whose answer is known, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from vihier.diagnostics.chains import ess_bulk
from vihier.refinement.chain import MAX_TREE_DEPTH, ChainDraws, ChainPlan, run_chain
from vihier.refinement.verdict import Limits, judge, tree_depth

F64 = torch.float64


@dataclass(frozen=True)
class Made:
    """A density in the place of a screen's."""

    log_density: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        at = x.detach().requires_grad_()
        with torch.enable_grad():
            value = self.log_density(at)
        return value.detach(), torch.autograd.grad(value, at)[0]


def plan(log_density: Callable[[Tensor], Tensor], size: int, **given) -> ChainPlan:
    settings = {"centre": torch.zeros(size, dtype=F64), "root": torch.eye(size, dtype=F64)} | given
    start = torch.full((size,), 0.3, dtype=F64)
    defaults = {"start": start, "warmup": 150, "draws": 600, "target_accept": 0.8, "seed": 1}
    return ChainPlan(Made(log_density), **(defaults | settings))  # type: ignore[arg-type]


def test_a_normal_seen_through_the_guides_coordinates() -> None:
    covariance = torch.tensor([[1.0, 1.2], [1.2, 4.0]], dtype=F64)
    mean, precision = torch.tensor([3.0, -2.0], dtype=F64), torch.linalg.inv(covariance)

    def log_density(x: Tensor) -> Tensor:
        return -0.5 * (x - mean) @ precision @ (x - mean)

    # The guide is off in mean and sd, as it may be.
    root = torch.linalg.cholesky(covariance + torch.diag(torch.tensor([0.3, 0.3], dtype=F64)))
    drawn = run_chain(plan(log_density, 2, centre=mean + 0.2, root=root))
    error = np.sqrt(covariance.diagonal().numpy() / ess_bulk(drawn.x[None]))
    assert (np.abs(drawn.x.mean(0) - mean.numpy()) < 4 * error).all()
    # 600 draws: an sd is known to 1 / sqrt(2 x 600) = 3 %, a correlation of 0.6 to 0.03.
    np.testing.assert_allclose(np.cov(drawn.x.T), covariance, rtol=0.25)
    assert not drawn.diverging.any()
    np.testing.assert_allclose(
        drawn.lp, [float(log_density(torch.as_tensor(x))) for x in drawn.x], rtol=1e-9, atol=1e-9
    )
    # Kinetic energy is half a chi-squared of two degrees: one on average. It is drawn at the point before.
    kinetic = drawn.energy[1:] + drawn.lp[:-1]
    assert (kinetic >= 0).all() and abs(kinetic.mean() - 1) < 4 / np.sqrt(600)


def test_a_wall_makes_transitions_diverge_and_the_verdict_says_what_to_do() -> None:
    def wall(x: Tensor) -> Tensor:
        return -0.5 * x.square().sum() - 1e7 * torch.relu(x[0] - 0.5).square()

    drawn = [run_chain(plan(wall, 2, warmup=20, draws=100, seed=seed)) for seed in (1, 2)]
    assert sum(chain.diverging.sum() for chain in drawn) > 0
    limits = {"sigma": Limits.of(np.stack([chain.x for chain in drawn]))}
    verdict = judge(drawn, ["sigma"], limits, [], 100)
    assert not verdict.passed
    assert "divergent transitions; take smaller steps: --target-accept 0.95" in verdict.failures[0]


def made_chains(shift: float = 0.0, n: int = 1000) -> list[ChainDraws]:
    random = np.random.default_rng(0)
    return [
        ChainDraws(
            x=random.normal(shift * i, 1, (n, 3)),
            energy=random.normal(size=n),
            n_steps=np.full(n, 7),
            lp=np.zeros(n),
            diverging=np.zeros(n, dtype=bool),
            step_size=0.3,
            warmup_steps=100,
        )
        for i in range(4)
    ]


def test_chains_that_agree_pass_and_chains_that_do_not_are_named() -> None:
    for shift, ok in ((0.0, True), (0.5, False)):
        chains = made_chains(shift)
        x = np.stack([chain.x for chain in chains])
        limits = {"sigma": Limits.of(x[:, :, 0]), "effect": Limits.of(x[:, :, 1:])}
        verdict = judge(chains, ["sigma"], limits, [], 1000)
        assert verdict.passed is ok, verdict.failures
        if not ok:
            assert any("R-hat of sigma" in said and "--draws 2000" in said for said in verdict.failures)
            assert any("R-hat of effect" in said for said in verdict.failures)
            # What the data do not identify is not held against the chains.
            assert judge(made_chains(), ["sigma"], limits | {"sigma": Limits.of(np.zeros((4, 9)))}, ["effect"], 1000)


def test_too_few_effective_draws_and_stuck_energies_are_named() -> None:
    chains = made_chains(n=60)
    for chain in chains:
        chain.energy[:] = np.linspace(0, 10, 60)
    verdict = judge(chains, [], {"effect": Limits.of(np.stack([chain.x for chain in chains]))}, [], 60)
    assert any("bulk ESS of effect" in said for said in verdict.failures)
    assert any("BFMI" in said for said in verdict.failures)


@pytest.mark.parametrize(("steps", "depth"), [(1, 1), (3, 2), (7, 3), (8, 4), (1023, 10)])
def test_depth_of_a_tree(steps: int, depth: int) -> None:
    assert tree_depth(np.array([steps]))[0] == depth <= MAX_TREE_DEPTH
