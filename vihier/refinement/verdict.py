"""Did the chains converge? Stated limits, and what to do where one is not met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vihier.diagnostics.chains import bfmi, ess_bulk, ess_tail, rhat
from vihier.refinement.chain import MAX_TREE_DEPTH, ChainDraws

# Vehtari et al. (2021) for R-hat and effective sample sizes, Betancourt (2016) for the energy.
RHAT_SAMPLED, RHAT_OTHERS = 1.01, 1.02
LEAST_ESS = 400
LEAST_BFMI = 0.3

MORE_DRAWS = "run longer: --draws {draws}"
SMALLER_STEPS = "take smaller steps: --target-accept 0.95"


@dataclass(frozen=True)
class Limits:
    """R-hat, bulk and tail effective sample sizes of one variable, each over its dims."""

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray

    @classmethod
    def of(cls, draws: np.ndarray) -> Limits:
        """Compute them from draws [chain, draw, ...]."""
        return cls(rhat(draws), ess_bulk(draws), ess_tail(draws))

    def named(self, variable: str) -> dict[str, np.ndarray]:
        """Return them under the names that the file has: `variable_rhat`, ..."""
        return {f"{variable}_{name}": values for name, values in vars(self).items()}


@dataclass(frozen=True)
class Verdict:
    """What the chains say of themselves.

    Attributes
    ----------
    failures
        One sentence for each limit that is not met, with what to do.
    figures
        Divergences, worst R-hat and effective sample sizes with their variables, BFMI, step size, tree depth.
    """

    failures: tuple[str, ...]
    figures: Mapping[str, float | int | str]

    @property
    def passed(self) -> bool:
        """Whether every limit is met."""
        return not self.failures


def tree_depth(n_steps: np.ndarray) -> np.ndarray:
    """Depth of the trees that so many leapfrog steps made: a tree of depth d has at most 2^d - 1."""
    return np.floor(np.log2(np.maximum(n_steps, 1))).astype(np.int64) + 1


def judge(
    chains: Sequence[ChainDraws],
    sampled: Sequence[str],
    limits: Mapping[str, Limits],
    not_identified: Sequence[str],
    n_draws: int,
) -> Verdict:
    """Judge chains by every variable but those that the data do not identify.

    Parameters
    ----------
    chains
        What NUTS drew.
    sampled
        Variables whose logarithms were sampled; they have the tighter limit.
    limits
        Of every variable.
    not_identified
        Variables that nothing is asked of.
    n_draws
        Draws of each chain, for what to do.
    """
    judged = {name: found for name, found in limits.items() if name not in not_identified}
    energies = bfmi(np.stack([chain.energy for chain in chains]))
    n_divergent = int(sum(chain.diverging.sum() for chain in chains))
    n_deep = int(sum((tree_depth(chain.n_steps) >= MAX_TREE_DEPTH).sum() for chain in chains))
    figures: dict[str, float | int | str] = {"divergences": n_divergent, "deepest_trees": n_deep}
    failures = []
    if n_divergent:
        failures.append(f"{n_divergent} divergent transitions; {SMALLER_STEPS}")
    if n_deep:
        failures.append(f"{n_deep} trees of the largest depth, {MAX_TREE_DEPTH}; run a longer warm-up: --warmup 1000")
    longer = MORE_DRAWS.format(draws=2 * n_draws)
    for group, most in (("sampled", RHAT_SAMPLED), ("other", RHAT_OTHERS)):
        chosen = {name: found.rhat for name, found in judged.items() if (name in sampled) == (group == "sampled")}
        if chosen:
            name, worst = _extreme(chosen, np.nanmax)
            figures |= {f"rhat_{group}": round(worst, 4), f"rhat_{group}_of": name}
            if not worst <= most:
                failures.append(f"R-hat of {name} is {worst:.3f}, above {most}; {longer}")
    for kind in ("ess_bulk", "ess_tail"):
        name, worst = _extreme({name: getattr(found, kind) for name, found in judged.items()}, np.nanmin)
        figures |= {kind: round(worst, 1), f"{kind}_of": name}
        if not worst >= LEAST_ESS:
            failures.append(f"{kind.removeprefix('ess_')} ESS of {name} is {worst:.0f}, below {LEAST_ESS}; {longer}")
    least = float(energies.min())
    figures |= {
        "bfmi": round(least, 3),
        "step_size": round(float(np.mean([chain.step_size for chain in chains])), 4),
        "n_steps": round(float(np.mean([chain.n_steps.mean() for chain in chains])), 1),
        "tree_depth": int(max(tree_depth(chain.n_steps).max() for chain in chains)),
    }
    if least < LEAST_BFMI:
        failures.append(f"BFMI is {least:.2f}, below {LEAST_BFMI}; {longer}, or give tighter priors to the scales")
    return Verdict(tuple(failures), figures)


def _extreme(values: Mapping[str, np.ndarray], which: Callable[..., Any]) -> tuple[str, float]:
    """Return the variable with the largest or smallest value, and the value; not a number where none is."""
    found = {name: float(which(value)) for name, value in values.items() if np.isfinite(value).any()}
    if not found:
        return next(iter(values)), float("nan")
    best = which(list(found.values()))
    return next((name, value) for name, value in found.items() if value == best)
