"""One NUTS chain over log-scales, by Pyro's sampler (Hoffman & Gelman 2014, JMLR 15, 1593; Betancourt 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from vihier.refinement.given_shared import GivenShared
from vihier.refinement.log_posterior import LogPosterior

MAX_TREE_DEPTH = 10


@dataclass(frozen=True)
class ChainPlan:
    """What a chain needs: where it starts, how it sees the log-scales, how long it runs, its random stream.

    Attributes
    ----------
    log_posterior : LogPosterior or GivenShared
        The second changes between transitions.
    centre, root : Tensor
        NUTS walks in z, log-scales = centre + root z, shapes [D] and [D, D]: independent and of unit variance under the
        guide.
    start : Tensor
        Log-scales to start from, shape [D].
    warmup, draws : int
    target_accept : float
        Mean acceptance that the step size is tuned to.
    seed : int
    """

    log_posterior: LogPosterior | GivenShared
    centre: Tensor
    root: Tensor
    start: Tensor
    warmup: int
    draws: int
    target_accept: float
    seed: int


@dataclass(frozen=True)
class ChainDraws:
    """Draws of one chain, warm-up left out.

    x [draws, D] are log-scales; energy, n_steps, lp and diverging [draws]; step_size is that after warm-up. `local`
    [draws, L] are the genes' deviations where they were drawn along the way, L = 0 elsewhere.
    """

    x: np.ndarray
    energy: np.ndarray
    n_steps: np.ndarray
    lp: np.ndarray
    diverging: np.ndarray
    step_size: float
    warmup_steps: int
    local: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))


class _Energy(torch.autograd.Function):
    """Potential energy whose gradient is known with its value."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, plan: ChainPlan) -> Tensor:
        value, gradient = plan.log_posterior(plan.centre + plan.root @ z)
        ctx.save_for_backward(gradient @ plan.root)
        return -value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return -grad * gradient, None


class _Nuts(NUTS):
    """Pyro's NUTS, which also tells the energy that each transition starts with."""

    energy = float("nan")

    @property
    def potential_energy(self) -> float:
        """Potential energy of the last draw."""
        return float(cast(Tensor, self._potential_energy_last))

    def _sample_r(self, name: str) -> Any:
        r, r_unscaled = super()._sample_r(name)
        self.energy = float(self._kinetic_energy(r_unscaled)) + self.potential_energy
        return r, r_unscaled


def run_chain(plan: ChainPlan, told: Callable[[int], None] = lambda done: None) -> ChainDraws:
    """Run one chain; `told` is called with the number of iterations that are done."""
    n_evaluations = 0

    def energy(z: dict[str, Tensor]) -> Tensor:
        nonlocal n_evaluations
        n_evaluations += 1
        return _Energy.apply(z["z"], plan)

    start = torch.linalg.solve_triangular(plan.root, (plan.start - plan.centre)[:, None], upper=False)[:, 0]
    x, local, energies, steps, lps = [], [], [], [], []
    moving = plan.log_posterior if isinstance(plan.log_posterior, GivenShared) else None
    if moving is not None:
        moving.begin(plan.start)
    before = 0
    done = 0
    warmup_steps = 0

    def after(kernel: _Nuts, params: dict[str, Tensor], stage: str, number: int) -> None:
        nonlocal before, done, warmup_steps
        done += 1
        told(done)
        deviations, potential = torch.zeros(0), kernel.potential_energy
        if moving is not None:
            deviations = moving.move(plan.centre + plan.root @ params["z"].detach(), done)
            kernel.clear_cache()
        if stage.startswith("Warmup"):
            warmup_steps = n_evaluations
        else:
            x.append(params["z"].detach().clone())
            local.append(deviations)
            energies.append(kernel.energy)
            steps.append(n_evaluations - before)
            lps.append(-potential)
        before = n_evaluations

    # The mass matrix is the guide's: identity in z. One adapted to some hundred draws of the chain is further off.
    kernel = _Nuts(
        potential_fn=energy,
        adapt_mass_matrix=False,
        target_accept_prob=plan.target_accept,
        max_tree_depth=MAX_TREE_DEPTH,
    )
    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False), warnings.catch_warnings():
        torch.manual_seed(plan.seed)
        sampler = MCMC(
            kernel,
            num_samples=plan.draws,
            warmup_steps=plan.warmup,
            initial_params={"z": start},
            hook_fn=after,
            disable_progbar=True,
        )
        sampler.run()
    diverging = np.zeros(plan.draws, dtype=bool)
    diverging[sampler.diagnostics()["divergences"]["chain 0"]] = True
    z = torch.stack(x)
    return ChainDraws(
        x=(plan.centre + z @ plan.root.T).numpy(),
        local=torch.stack(local).numpy(),
        energy=np.array(energies),
        n_steps=np.array(steps),
        lp=np.array(lps),
        diverging=diverging,
        step_size=kernel.step_size,
        warmup_steps=warmup_steps,
    )
