"""Moves of what rows refer to themselves, given what a pass says of it with the rows' weights integrated out."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vihier.guides.block import Theta
from vihier.guides.freedom_points import FAR_OFF, FreedomPoints, chosen_point
from vihier.guides.interweave import Sweeper
from vihier.guides.mixed_model import Scale
from vihier.guides.noise_levels import levels_of, move_levels
from vihier.guides.noise_moves import level_prior, move_noise_scales
from vihier.guides.row_moves import WIDEST, NoiseMoves, NoiseSaid, around
from vihier.guides.row_sums import RowSums
from vihier.guides.slice_sampler import slice_sample
from vihier.kernels.rows import student_log_density

NOISE_MOVES, LEVEL_SDS = 6, 8.0
"""Draws of noise scales after a pass, with what they are around; width of the slices of their level, in sds."""
FIRST_WIDTH = 1.0
"""Of the slices of noise scales in the first of these: of many rows 8 sds are little where one is far off."""


class RowsSaid(NoiseMoves):
    """What the rows of a pass said of the noise scales."""

    def __init__(self, said: NoiseSaid, generator: torch.Generator, least_width: float = 0.0) -> None:
        self.said, self.generator, self.least_width = said, generator, least_width

    def noise_said(self, theta: Theta, scale: Scale, own: tuple[Tensor, Tensor]) -> NoiseSaid:
        """Return it."""
        return NoiseSaid(self.said.count + own[0], self.said.squares + own[1])


def move_rows(moves: Sweeper, theta: Theta, sums: RowSums, points: FreedomPoints | None, turn: int) -> None:
    """Move degrees of freedom and noise scales; degrees of freedom of several kinds in every other turn instead.

    Parameters
    ----------
    moves : Sweeper
        Of what is shared.
    theta : dict
        Log-scales, which get their new values.
    turn : int
        How often they were moved before.
    """
    structure, said = moves.structure, sums.said()
    if points is not None:
        several = points.log_source.dim() > 2
        if not several or turn % 2:
            said = _move_freedom(moves, theta, sums, points, turn < FAR_OFF)
        if several and turn % 2:
            return
    if structure.noise is None:
        return
    noise = structure.scale(structure.noise)
    levels = levels_of(structure)
    above = [x for each in around(structure, noise) for x in (each.parent, each.spread) if x is not None]
    for move in range(NOISE_MOVES if above else 1):
        start = theta[noise.name]
        if above:
            _move_level(moves, theta, noise, said)
            said, start = said.after(theta[noise.name] - start), theta[noise.name]
        from_rows = RowsSaid(said, moves.generator, FIRST_WIDTH if move == 0 else 0.0)
        move_noise_scales(moves, theta, noise, from_rows)
        said = said.after(theta[noise.name] - start)
        if levels is not None:
            move_levels(moves, theta, levels)
        for scale in above if levels is None else []:
            moves.move(theta, scale)


def _move_level(moves: Sweeper, theta: Theta, noise: Scale, said: NoiseSaid) -> None:
    """Move all noise scales, and what they are around, by one factor."""
    moved, prior = level_prior(moves, theta, noise)
    count, squares = (x.sum(0) for x in (said.count, said.squares))

    def density(shift: Tensor) -> Tensor:
        of_rows = -count * shift - 0.5 * squares * (-2 * shift).exp()
        return of_rows + torch.stack([prior(x) for x in shift.unbind(-2)], -2)

    width = (LEVEL_SDS / (2 * count.clamp_min(0) + 1).sqrt()).clamp_max(WIDEST)
    shift = slice_sample(density, torch.zeros_like(count), moves.generator, width=width)
    for each in moved:
        theta[each.name] = theta[each.name] + shift


def _move_freedom(moves: Sweeper, theta: Theta, sums: RowSums, points: FreedomPoints, far_off: bool) -> NoiseSaid:
    """Move the degrees of freedom, and all noise scales along; return what the rows then say of these.

    Where they are far off yet they go to where they are best, and are not drawn.
    """
    freedom = moves.structure.freedom
    assert freedom is not None and freedom.source is not None
    scale = moves.structure.scale(freedom.source)
    moved: list[Scale] = []
    level, noise = None, moves.structure.noise
    if points.log_source.dim() == 2 and noise is not None:
        moved, level = level_prior(moves, theta, moves.structure.scale(noise))
    density = torch.stack([moves.prior_at(theta, scale, x) for x in points.log_source])
    density = density + points.log_jacobian
    density = density + student_log_density(freedom.value_at(points.log_source), sums.tails, sums.of_freedom)
    if level is not None:
        density = density + torch.stack([level(x) for x in points.shift]) - sums.of_freedom * points.shift
    before = theta[scale.name]
    if far_off:
        best = points.at_maximum(moves.structure, density)
        theta[scale.name], shift = best.log_source[0], best.shift[0]
    else:
        chosen = chosen_point(density, moves.generator)[None]
        theta[scale.name], shift = (x.gather(0, chosen)[0] for x in (points.log_source, points.shift))
    if level is None:
        return sums.said()
    for each in moved:
        theta[each.name] = theta[each.name] + shift
    said, share = sums.said().after(shift), freedom.value_at(before)
    turned = (share / (share + 1) * sums.pull - sums.bend) * (theta[scale.name] - before)
    return replace(said, count=said.count - turned)
