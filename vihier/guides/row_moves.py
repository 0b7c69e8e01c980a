"""Moves of what rows refer to themselves, over all blocks: noise scales, degrees of freedom, weights.

Noise scales are moved given the rows' weights; degrees of freedom with the weights integrated out, which mixes far
better (van Dyk & Park 2008, J. Am. Stat. Assoc. 103, 790), and the weights after them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, align
from vihier.guides.block_rows import BlockRows
from vihier.guides.gene_chains import GeneChains
from vihier.guides.mixed_model import Scale, Structure
from vihier.guides.row_chains import RowChains
from vihier.guides.scale_densities import Density, held_density
from vihier.guides.slice_sampler import slice_sample, slice_sample_in_turn
from vihier.kernels.rows import student_log_density

# Widths of slices of log-scales that many rows refer to: of a noise scale in sds that n rows give it, 1 / sqrt(2 n), of
# their level and of degrees of freedom, which take a pass over the rows for each point, in 1 / sqrt(n): five sds. That
# of degrees of freedom, of which Normal rows say little, is long at times.
NOISE_SDS, LEVEL_WIDTH, FREEDOM_WIDTH, WIDEST = 8.0, 5.0, 16.0, 5.0
LONG_STEP, LONG_STEP_EVERY = 3.0, 4


@dataclass(frozen=True)
class NoiseSaid:
    """What rows of given weights say of the noise scales: their number, and their squares in units of the scales."""

    count: Tensor
    squares: Tensor

    def after(self, shift: Tensor) -> NoiseSaid:
        """Return the same once the log noise scales have moved."""
        return NoiseSaid(self.count, self.squares * (-2 * shift).exp())


@dataclass(frozen=True)
class Around:
    """A log-normal scale, what its logarithm is around, and the scale that is its spread; None where constants are."""

    structure: Structure
    scale: Scale
    offset: float
    parent: Scale | None
    spread: Scale | None

    def centre(self, theta: Theta, block: Block) -> Tensor:
        """Return what the log-scales are around, over their plates and N draws."""
        if self.parent is None:
            return torch.full_like(theta[self.scale.name], self.offset)
        return self.offset + align(theta[self.parent.name], self.parent.plates, self.scale.plates, block)


def around(structure: Structure, scale: Scale) -> list[Around]:
    """Return the log-normal levels above a noise scale that has elements: its own, its parent's, ..."""
    found: list[Around] = []
    level: Scale | None = scale
    while level is not None and level.plates and level.family.__name__ == "LogNormal":
        arguments = {argument.name: argument for argument in level.arguments}
        loc, spread = arguments["loc"], arguments["scale"].source
        if loc.source is not None and not loc.logarithm:
            break
        parent = None if loc.source is None else structure.scale(loc.source)
        found.append(Around(structure, level, loc.factor, parent, None if spread is None else structure.scale(spread)))
        level = parent
    return found


class NoiseMoves(ABC):
    """Moves of noise scales given what the rows say of them, wherever that comes from."""

    generator: torch.Generator
    least_width = 0.0
    """Of slices of noise scales."""

    @abstractmethod
    def noise_said(self, theta: Theta, scale: Scale, own: tuple[Tensor, Tensor]) -> NoiseSaid:
        """Return what is said; `own` are the number and the squares of locations that they scale too."""

    def moved_noise(self, start: Tensor, said: NoiseSaid, prior: Density) -> Tensor:
        """Return the log noise scales after a move given the weights."""
        width = (NOISE_SDS / (2 * said.count.clamp_min(0) + 1).sqrt()).clamp(self.least_width, WIDEST)
        return slice_sample(held_density(prior, start, said.count, said.squares), start, self.generator, width=width)

    def moved_spread(self, start: Tensor, deviations: Tensor, said: NoiseSaid, prior: Density) -> Tensor:
        """Return the log spread of the log noise scales after a move that takes their deviations, [R, N], along.

        Where noise scales are all but equal their spread moves little while they are held: the rows must have a say.
        """
        from_start, deviations = start.unsqueeze(-2), deviations.unsqueeze(-2)
        count, squares = said.count.unsqueeze(-2), said.squares.unsqueeze(-2)

        def density(x: Tensor) -> Tensor:
            shift = deviations * (x - from_start).expm1()
            return prior(x) - (count * shift + 0.5 * squares * (-2 * shift).exp()).sum(0)

        return slice_sample(density, start, self.generator)


class RowMoves(NoiseMoves, BlockRows[RowChains]):
    """What the fold changes of all blocks say, for a sweeper; parameters as of `BlockRows`."""

    def __init__(self, structure: Structure, parts: Sequence[GeneChains], generator: torch.Generator) -> None:
        rows = [part.rows for part in parts if isinstance(part.rows, RowChains)]
        super().__init__(structure, parts, rows, generator)
        self.long_every, self._moves_of_freedom = LONG_STEP_EVERY, 0

    def take_squares(self, mine: Sequence[Theta]) -> None:
        """Bring their squares to units of the noise scales, which `mine` has for each block."""
        self._for_parts(lambda i: self.rows[i].take_squares(mine[i]))

    def step_weights(self, mine: Sequence[Theta]) -> None:
        """Move the weights."""
        self._for_parts(lambda i: self.rows[i].step_weights(mine[i]))

    def _count(self, scale: Scale, which: str) -> Tensor:
        """Count the rows of each element of a scale that rows refer to, [R, 1] or []."""
        like = self.parts[0].block.data.square
        if not scale.plates:
            return like.new_tensor(float(sum(len(rows.table.lfc) for rows in self.rows)))
        size = self.parts[0].block.batch.size_of(scale.plates[0])
        counts = [torch.bincount(getattr(rows.table, which), minlength=size) for rows in self.rows]
        return reduce(add, counts).to(like)[:, None]

    def noise_said(self, theta: Theta, scale: Scale, own: tuple[Tensor, Tensor]) -> NoiseSaid:
        """Count rows and sum their weighted squares by noise scale; `own` are locations that it scales too."""
        start = theta[scale.name]
        squares = self._sum(lambda i: self.rows[i].noise_squares(len(start) if scale.plates else 1))
        squares = squares.to(start) * (-2 * start).exp() / self.structure.noise_factor**2
        return NoiseSaid(self._count(scale, "noise") + own[0], squares + own[1])

    def _log_tails(self, inverse_freedom: Tensor) -> Tensor:
        return self._sum(lambda i: self.rows[i].log_tails(inverse_freedom))

    def moved_level(self, start: Tensor, freedom: Tensor, prior: Density) -> Tensor:
        """Return a shift of all log noise scales, [N], from `start`, zero; squared residuals are brought along.

        `freedom` is nu, [K, N] or [N].
        """
        count = float(sum(len(rows.table.lfc) for rows in self.rows))

        def density(shift: Tensor) -> Tensor:
            tails = 0.5 * (freedom + 1) * self._log_tails((-2 * shift).exp() / freedom).to(freedom)
            return prior(shift) - count * shift - (tails.sum(0) if tails.dim() > 1 else tails)

        shift = slice_sample_in_turn(density, start, self.generator, width=min(LEVEL_WIDTH * count**-0.5, WIDEST))
        self._for_parts(lambda i: self.rows[i].grow_noise(shift))
        return shift

    def moved_freedom(self, start: Tensor, scale: Scale, prior: Density) -> Tensor:
        """Return the log degrees of freedom after a move: mostly a short one, for many rows, at times a long one."""
        argument, count = self.structure.freedom, self._count(scale, "freedom")
        assert argument is not None
        self._moves_of_freedom += 1

        def density(x: Tensor) -> Tensor:
            freedom = argument.value_at(x)
            return prior(x) + student_log_density(freedom, self._log_tails(1 / freedom).to(x), count)

        width = (FREEDOM_WIDTH / (count + 1).sqrt()).clamp_max(WIDEST)
        if self._moves_of_freedom % self.long_every == 0:
            width = torch.full_like(width, LONG_STEP)
        return slice_sample_in_turn(density, start, self.generator, width=width)
