"""Noise scales in two levels, the upper one integrated out while the spreads of both are moved.

Log noise scales x of replicates are Normal around that of their line, with sd s, and these are around a common one, c,
with sd t. Where lines are held, a t near zero holds them all in one place, and they it, while s grows to make up;
with lines integrated out the x of a line are Normal with variance s^2 each and covariance t^2, and none of this is so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vihier.guides.block import Theta
from vihier.guides.interweave import Sweeper
from vihier.guides.mixed_model import Scale, Structure
from vihier.guides.row_moves import around
from vihier.guides.scale_terms import children_of, sum_to, users_of
from vihier.guides.slice_sampler import slice_sample


@dataclass(frozen=True)
class Levels:
    """A noise scale, what it is around, what that is around, and the spreads of the two; nothing else asks for them."""

    noise: Scale
    upper: Scale
    top: Scale
    spread: Scale
    upper_spread: Scale


def levels_of(structure: Structure) -> Levels | None:
    """Return the two levels of a structure's noise scales; None where there are not just two."""
    if structure.noise is None:
        return None
    noise = structure.scale(structure.noise)
    found = around(structure, noise)
    if len(found) != 2 or any(x.offset for x in found):
        return None
    low, high = found
    if low.parent is None or high.parent is None or low.spread is None or high.spread is None:
        return None
    levels = Levels(noise, low.parent, high.parent, low.spread, high.spread)
    asked = {noise.name: [], levels.upper.name: [noise], levels.top.name: [levels.upper], levels.spread.name: [noise]}
    asked[levels.upper_spread.name] = [levels.upper]
    alone = all(children_of(structure, structure.scale(name)) == scales for name, scales in asked.items())
    free = not any(users_of(structure, structure.scale(name)) for name in asked)
    whole = not any(x.plates for x in (levels.top, levels.spread, levels.upper_spread))
    return levels if alone and free and whole else None


def move_levels(moves: Sweeper, theta: Theta, levels: Levels) -> None:
    """Move both spreads and the common level given the noise scales, then draw what is between."""
    noise, upper = levels.noise, levels.upper
    x = theta[noise.name]
    count = sum_to(noise.plates, upper.plates, torch.ones_like(x), moves.block)
    mean = sum_to(noise.plates, upper.plates, x, moves.block) / count.clamp_min(1)
    squares = sum_to(noise.plates, upper.plates, x.square(), moves.block) - count * mean.square()
    count, mean, squares = (value.unsqueeze(-2) for value in (count, mean, squares))

    def density(scale: Scale, points: Tensor) -> Tensor:
        at = {name.name: theta[name.name].unsqueeze(-2) for name in (levels.spread, levels.upper_spread, levels.top)}
        at[scale.name] = points
        within, between = ((2 * at[name.name]).exp() for name in (levels.spread, levels.upper_spread))
        whole = within + count * between
        parts = (count - 1).clamp_min(0) * within.log() + squares / within
        parts = parts + (count > 0) * (whole.log() + count * (mean - at[levels.top.name]).square() / whole)
        return moves.own_prior(theta, scale, points) - 0.5 * parts.sum(0)

    for scale in (levels.spread, levels.upper_spread, levels.top):
        theta[scale.name] = slice_sample(partial(density, scale), theta[scale.name], moves.generator)
    within, between = ((2 * theta[name.name]).exp() for name in (levels.spread, levels.upper_spread))
    precision = 1 / between + count.squeeze(-2) / within
    centre = (theta[levels.top.name] / between + (count * mean).squeeze(-2) / within) / precision
    noise_like = torch.randn(centre.shape, generator=moves.generator, dtype=centre.dtype, device=centre.device)
    theta[upper.name] = centre + precision.rsqrt() * noise_like
