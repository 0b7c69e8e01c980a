"""Slice sampling in one dimension, for all elements of a tensor at once (Neal 2003, Ann. Stat. 31, 705)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHRINKAGES = 12


def slice_sample(
    density: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator, width: float = 5.0
) -> Tensor:
    """Move every element of `start` by one step of a slice sampler for its own log density.

    An interval of one width, placed at random about the start, is shrunk towards it (Neal's figure 5, and figure 3 with
    m = 1). An element that has found no point of its slice after `SHRINKAGES` stays where it is: the way there and back
    has the same intervals and the same misses, so that the density is left unchanged by this too.

    Parameters
    ----------
    density : callable
        Log density of each element, up to a constant.
    start : Tensor
        Any shape.
    generator : torch.Generator
    width : float
        Of the interval: the density's own, or more. No step is longer.

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
    value, todo = start, torch.ones_like(start, dtype=torch.bool)
    for _ in range(SHRINKAGES):
        proposal = torch.lerp(left, right, uniform())
        accept = todo & (density(proposal) > level)
        value = torch.where(accept, proposal, value)
        todo = todo & ~accept
        if not bool(todo.any()):
            break
        below = proposal < start
        left = torch.where(below, proposal, left)
        right = torch.where(below, right, proposal)
    return value
