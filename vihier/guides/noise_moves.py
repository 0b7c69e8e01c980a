"""Sweeps' moves of what rows that are not plain refer to themselves, given the locations: noise scales, then nu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from vihier.guides.block import Theta, align, scale_log_prior
from vihier.guides.mixed_model import Scale
from vihier.guides.row_moves import Around, NoiseMoves, NoiseSaid, RowMoves, around
from vihier.guides.scale_terms import children_of, sum_to

if TYPE_CHECKING:
    from vihier.guides.interweave import Sweeper


def move_noise_of_rows(moves: Sweeper, theta: Theta, rows: RowMoves) -> None:
    """Move noise scales given the rows' weights, then nu or all of them with these integrated out, then these."""
    rows.take_residuals()
    if moves.structure.noise is not None and not moves.held:
        move_noise_scales(moves, theta, moves.structure.scale(moves.structure.noise), rows)
    rows.take_squares(moves.of_parts(theta))
    if moves.structure.freedom is not None and not moves.held:
        _move_without_weights(moves, theta, rows, moves.structure.freedom.source)
    rows.step_weights(moves.of_parts(theta))


def _move_without_weights(moves: Sweeper, theta: Theta, rows: RowMoves, freedom: str | None) -> None:
    """Move nu in one sweep and all noise scales in the next: each point of either costs a pass over the rows."""
    moves.moves_freedom = not moves.moves_freedom
    if freedom is not None and (moves.moves_freedom or moves.structure.noise is None):
        scale = moves.structure.scale(freedom)
        theta[scale.name] = rows.moved_freedom(theta[scale.name], scale, lambda x: moves.prior_at(theta, scale, x))
    elif moves.structure.noise is not None:
        _move_noise_level(moves, theta, moves.structure.scale(moves.structure.noise), rows)


def move_noise_scales(moves: Sweeper, theta: Theta, scale: Scale, rows: NoiseMoves) -> None:
    """Move each noise scale, and the spread of log-normal ones, and of those that they are around, with them."""
    start = theta[scale.name]
    said = rows.noise_said(theta, scale, moves.own_squares(theta, scale, [scale]))
    theta[scale.name] = rows.moved_noise(start, said, lambda x: moves.prior(theta, scale, x))
    above = [each for each in around(moves.structure, scale) if each.spread is not None]
    for i, each in enumerate(above):
        said = said.after(theta[scale.name] - start)
        start = theta[scale.name]
        _move_spread(moves, theta, [x.scale for x in above[: i + 1]], each, said, rows)


def _move_spread(
    moves: Sweeper, theta: Theta, moved: list[Scale], level: Around, said: NoiseSaid, rows: NoiseMoves
) -> None:
    """Move the spread of log-normal scales with these, the last of `moved`, and what is around them."""
    spread, last = level.spread, moved[-1]
    if spread is None or spread.plates or children_of(moves.structure, spread) != [last]:
        return
    centre = level.centre(theta, moves.block)
    deviations, before = theta[last.name] - centre, theta[spread.name]
    of_rows = align(deviations, last.plates, moved[0].plates, moves.block)
    theta[spread.name] = rows.moved_spread(before, of_rows, said, lambda x: moves.own_prior(theta, spread, x))
    shift = deviations * (theta[spread.name] - before).expm1()
    for each in moved:
        theta[each.name] = theta[each.name] + align(shift, last.plates, each.plates, moves.block)


def _move_noise_level(moves: Sweeper, theta: Theta, scale: Scale, rows: RowMoves) -> None:
    """Move all noise scales, and what they are around, by one factor, with the rows' weights integrated out."""
    moved, prior = level_prior(moves, theta, scale)
    start = theta[scale.name].new_zeros(theta[scale.name].shape[-1])
    shift = rows.moved_level(start, rows.rows[0].freedom(theta), prior)
    for x in moved:
        theta[x.name] = theta[x.name] + shift


def level_prior(moves: Sweeper, theta: Theta, scale: Scale) -> tuple[list[Scale], Callable[[Tensor], Tensor]]:
    """Return the noise scales and what they are around, and the log prior of a shift of all their logarithms."""
    structure = moves.structure
    moved = [scale, *(each.parent for each in around(structure, scale) if each.parent is not None)]
    asked = {x.name: x for at in moved for x in (at, *children_of(structure, at))}.values()
    number, squares = moves.own_squares(theta, scale, [scale])
    number, squares = (sum_to(scale.plates, (), x, moves.block) for x in (number, squares))

    def prior(shift: Tensor) -> Tensor:
        at = theta | {x.name: theta[x.name] + shift for x in moved}
        total = -number * shift - 0.5 * squares * (-2 * shift).exp()
        for x in asked:
            total = total + sum_to(x.plates, (), scale_log_prior(structure, x, at, moves.block), moves.block)
        return total

    return moved, prior
