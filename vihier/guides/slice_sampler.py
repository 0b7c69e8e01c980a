"""Slice sampling in one dimension, for all elements of a tensor at once (Neal 2003, Ann. Stat. 31, 705)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHRINKAGES = 12


def slice_sample(
    density: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator, width: float | Tensor = 5.0
) -> Tensor:
    """Move every element of `start` by one step of a slice sampler for its own log density.

    An interval of one width, placed at random about the start, is shrunk towards it (Neal's figure 5, and figure 3 with
    m = 1). An element that has found no point of its slice after `SHRINKAGES` stays where it is: the way there and back
    has the same intervals and the same misses, so that the density is left unchanged by this too. Where the interval
    shrinks to depends on no density, so that all points are proposed first and the density is asked for once.

    Parameters
    ----------
    density : callable
        Log density, up to a constant for each element, of P points for each: shape [..., P, N] for a start [..., N].
    start : Tensor
        Any shape [..., N].
    generator : torch.Generator
    width : float or Tensor
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
    shape = (SHRINKAGES + 2, *start.shape)
    uniform = torch.rand(shape, generator=generator, dtype=start.dtype, device=start.device)
    left = -width * uniform[0]
    right = left + width
    steps = []
    for i in range(SHRINKAGES):
        step = torch.lerp(left, right, uniform[2 + i])
        below = step < 0
        left, right = torch.where(below, step, left), torch.where(below, right, step)
        steps.append(step)
    proposals = start.unsqueeze(-2) + torch.stack([*steps, torch.zeros_like(start)], -2)
    found = density(proposals)
    accept = found > found[..., -1:, :] + uniform[1].log().unsqueeze(-2)
    accept[..., -1, :] = True  # the start itself
    order = torch.arange(SHRINKAGES, -1, -1, dtype=torch.uint8, device=start.device)[:, None]
    first = SHRINKAGES - (accept * order).amax(-2, keepdim=True).long()
    return proposals.gather(-2, first).squeeze(-2)


def slice_sample_in_turn(
    density: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator, width: float | Tensor = 5.0
) -> Tensor:
    """Move as `slice_sample` does, asking for the density point after point until every element has one in its slice.

    For densities that cost a pass over the rows; `density` maps a tensor of the shape of `start` to another.
    """
    return slice_sample_together(lambda x: density(x[0]), start[None], generator, width)[0]


def slice_sample_together(
    density: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator, width: float | Tensor = 5.0
) -> Tensor:
    """Move several variables at once, the first axis of `start`: the intervals make a box (Neal 2003, section 5.1).

    Leads from one hump to another that no one variable alone leads to. `density` maps a tensor of the shape of `start`,
    [D, ...], to [...].
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=start.dtype, device=start.device)

    level = density(start) + uniform(*start.shape[1:]).log()
    left = -width * uniform(*start.shape)
    right = left + width
    value, todo = start, torch.ones_like(level, dtype=torch.bool)
    for _ in range(SHRINKAGES):
        step = torch.lerp(left, right, uniform(*start.shape))
        accept = todo & (density(start + step) > level)
        value = torch.where(accept, start + step, value)
        todo = todo & ~accept
        if not bool(todo.any()):
            break
        left, right = torch.where(step < 0, step, left), torch.where(step < 0, right, step)
    return value
