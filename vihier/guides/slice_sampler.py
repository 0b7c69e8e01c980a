"""Slice sampling in one dimension, for all elements of a tensor at once (Neal 2003, Ann. Stat. 31, 705)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS_OUT = 5
SHRINKAGES = 24


def slice_sample(
    density: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator, width: float = 1.0
) -> Tensor:
    """Move every element of `start` by one step of a slice sampler for its own log density.

    Stepping out by at most `STEPS_OUT` widths, split between left and right at random, and shrinkage: Neal's figures 3
    and 5. The split is what leaves the density unchanged where the slice is wider than that. An element that has found
    no point after `SHRINKAGES` stays where it is.

    Parameters
    ----------
    density : callable
        Log density of each element, up to a constant.
    start : Tensor
        Any shape.
    generator : torch.Generator
    width : float
        Of a step out; about the density's own, or more.

    Examples
    --------
    >>> random = torch.Generator().manual_seed(0)
    >>> x = torch.zeros(100_000)
    >>> for _ in range(10):
    ...     x = slice_sample(lambda x: -0.5 * x**2, x, random)
    >>> round(float(x.std()), 1)
    1.0
    """

    def uniform() -> Tensor:
        return torch.rand(start.shape, generator=generator, dtype=start.dtype, device=start.device)

    level = density(start) + uniform().log()
    left = start - width * uniform()
    right = left + width
    steps_left = (STEPS_OUT * uniform()).floor()
    for step in range(STEPS_OUT - 1):
        grow_left = (step < steps_left) & (density(left) > level)
        grow_right = (step < STEPS_OUT - 1 - steps_left) & (density(right) > level)
        left = torch.where(grow_left, left - width, left)
        right = torch.where(grow_right, right + width, right)
    value, todo = start.clone(), torch.ones_like(start, dtype=torch.bool)
    for _ in range(SHRINKAGES):
        proposal = left + (right - left) * uniform()
        accept = todo & (density(proposal) > level)
        value = torch.where(accept, proposal, value)
        todo = todo & ~accept
        if not bool(todo.any()):
            break
        left = torch.where(todo & (proposal < start), proposal, left)
        right = torch.where(todo & (proposal >= start), proposal, right)
    return value
