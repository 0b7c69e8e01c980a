"""Moves of the noise of read counts, over all blocks, given the locations alone; the rows' observations after them.

Each move is one step of Metropolis and Hastings with a Newton proposal: Normal about where the slope of the log density
would lead, its variance the inverse of the sum of the rows' squared scores (Girolami & Calderhead 2011, J. R. Stat.
Soc. B 73, 123, have the like with the expected information). Two passes over the rows make a step that is nearly a new
draw; where rows say little it is a short random walk.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.block import Theta, align, scale_log_prior
from vihier.guides.block_rows import BlockRows
from vihier.guides.count_chains import CountChains, Step, joined
from vihier.guides.gene_chains import GeneChains, children_of, sum_to
from vihier.guides.mixed_model import Scale, Structure
from vihier.guides.row_moves import around
from vihier.guides.slice_sampler import slice_sample_in_turn

Density = Callable[[Tensor], Tensor]
Sums = tuple[Tensor, Tensor, Tensor]
# Least information of a proposal, so that no step is longer than about one and a half in the logarithm. The drift is at
# most so many sds of the proposal, in turn: where the slope is not that of a parabola long ones would be rejected, and
# far out short ones take long.
LEAST_INFORMATION = 0.5
LONGEST_DRIFTS = (1.0, 4.0, 1.0, 30.0)
DIFFERENCE = 0.01
LEVEL_SDS, SMALL_SD = 8.0, 1e-3


@dataclass(frozen=True)
class Way:
    """How a parameter of the noise reaches the rows: the steps of each block's, what they say summed, and its prior."""

    steps: Callable[[Tensor], list[Step]]
    sums: Callable[[list[Sums]], Sums]
    prior: Density


@dataclass(frozen=True)
class _Proposal:
    """A Normal proposal from a point, and the log density there."""

    density: Tensor
    mean: Tensor
    information: Tensor

    @classmethod
    def of(cls, x: Tensor, said: Sums, prior: Density, longest: float) -> _Proposal:
        at, up, down = prior(x), prior(x + DIFFERENCE), prior(x - DIFFERENCE)
        curvature = (2 * at - up - down) / DIFFERENCE**2
        information = (said[2] + curvature.clamp_min(0.0)).clamp_min(LEAST_INFORMATION)
        slope = said[1] + (up - down) / (2 * DIFFERENCE)
        sd = information.rsqrt()
        return cls(said[0] + at, x + sd * (slope * sd).clamp(-longest, longest), information)

    def log_density(self, x: Tensor) -> Tensor:
        """Log density of proposing x, up to a constant."""
        return 0.5 * self.information.log() - 0.5 * self.information * (x - self.mean).square()


class CountMoves(BlockRows[CountChains]):
    """What the counts of all blocks say, for a sweeper; parameters as of `BlockRows`."""

    def __init__(self, structure: Structure, parts: Sequence[GeneChains], generator: torch.Generator) -> None:
        rows = [part.rows for part in parts if isinstance(part.rows, CountChains)]
        super().__init__(structure, parts, rows, generator)
        self.block = parts[0].block
        self.depth = float(sum(x.depth.sum() for x in rows)) / sum(len(x.depth) for x in rows)
        self.levels = self._levels()
        self.spreads = self._spreads()
        self.moves = self.steps = 0

    def _levels(self) -> list[Scale]:
        """Return the noise scale and what it is around: they move together where all noise does."""
        if self.structure.noise is None:
            return []
        scale = self.structure.scale(self.structure.noise)
        return [scale, *(each.parent for each in around(self.structure, scale) if each.parent is not None)]

    def _spreads(self) -> list[int]:
        """Return which of the levels has a spread of its own, that of nothing else."""
        found = [] if self.structure.noise is None else around(self.structure, self.levels[0])
        own = [children_of(self.structure, x.spread) if x.spread and not x.spread.plates else [] for x in found]
        return [i for i, (each, children) in enumerate(zip(found, own, strict=True)) if children == [each.scale]]

    def move(self, theta: Theta, mine: Callable[[Theta], list[Theta]]) -> None:
        """Move the noise, `theta` getting the new values, and draw the rows' observations.

        `mine` gives each block its scales.
        """
        assert self.structure.counts is not None
        factor, power = self.structure.counts.factor.source, self.structure.counts.power.source
        self.take_residuals()
        self.moves += 1
        at_start = mine(theta)
        self._for_parts(lambda i: self.rows[i].take_noise(at_start[i]))
        if self.structure.noise is not None:
            self._move_noise(theta, self.structure.scale(self.structure.noise))
        if factor is not None:
            self._move_factors(theta, self.structure.scale(factor))
        # One of these in a sweep: each takes two passes over the rows.
        others = [functools.partial(self._move_spread, theta, place) for place in self.spreads]
        if power is not None:
            others.append(functools.partial(self._move_power, theta, power))
        if others:
            others[self.moves % len(others)]()
        self._for_parts(lambda i: self.rows[i].draw_observations())

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        start = theta[scale.name]
        size = len(start) if scale.plates else 1

        def steps(x: Tensor) -> list[Step]:
            move = x - start
            return [Step(rows.table.noise, size, None, move, torch.ones_like(move)) for rows in self.rows]

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {scale.name: x - start}, scale.plates)

        theta[scale.name] = self._step(start, Way(steps, joined if scale.plates else _one, prior))

    def _move_spread(self, theta: Theta, place: int) -> None:
        """Move the spread of one of the noise's levels, and the deviations from what that is around along.

        Where these are all but equal their spread moves little while they are held.
        """
        level = around(self.structure, self.levels[0])[place]
        assert level.spread is not None
        spread, moved = level.spread, self.levels[: place + 1]
        start = theta[spread.name]
        deviations = theta[level.scale.name] - level.centre(theta, self.block)
        of_rows = align(deviations, level.scale.plates, moved[0].plates, self.block)

        def steps(x: Tensor) -> list[Step]:
            grown = (x - start).exp()
            step = of_rows * (grown - 1), of_rows * grown
            return [Step(rows.table.noise, len(of_rows), None, *step) for rows in self.rows]

        def prior(x: Tensor) -> Tensor:
            return scale_log_prior(self.structure, spread, {**theta, spread.name: x}, self.block)

        theta[spread.name] = self._step(start, Way(steps, _all, prior))
        shift = deviations * (theta[spread.name] - start).expm1()
        for each in moved:
            theta[each.name] = theta[each.name] + align(shift, level.scale.plates, each.plates, self.block)

    def _move_factors(self, theta: Theta, scale: Scale) -> None:
        """Move the genes' factors, and then all of them against the level of the noise, which rows do not notice."""
        start = theta[scale.name]
        genes = [part.block.batch.gene_idx for part in self.parts]

        def steps(x: Tensor) -> list[Step]:
            own = [(x - start)[of_part] for of_part in genes]
            return [
                Step(rows.gene, len(move), None, move, torch.ones_like(move))
                for rows, move in zip(self.rows, own, strict=True)
            ]

        def sums(found: list[Sums]) -> Sums:
            whole = torch.zeros(3, *start.shape, dtype=torch.float64, device=start.device)
            for of_part, said in zip(genes, found, strict=True):
                whole[:, of_part] = torch.stack(said)
            return whole[0], whole[1], whole[2]

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {scale.name: x - start}, scale.plates)

        theta[scale.name] = self._step(start, Way(steps, sums, prior))
        if self.levels:
            self._trade_levels(theta, scale)

    def _trade_levels(self, theta: Theta, scale: Scale) -> None:
        names = [level.name for level in self.levels]

        def density(x: Tensor) -> Tensor:
            return self._prior(theta, {**dict.fromkeys(names, -x), scale.name: x}, ())

        values = theta[scale.name]
        width = LEVEL_SDS * ((values - values.mean(0)).square().mean(0).sqrt() / math.sqrt(len(values)) + SMALL_SD)
        shift = slice_sample_in_turn(density, values.new_zeros(values.shape[-1]), self.generator, width=width)
        for name in names:
            theta[name] = theta[name] - shift
        theta[scale.name] = values + shift

    def _move_power(self, theta: Theta, name: str) -> None:
        """Move the power of the abundance, the noise of rows of mean abundance held: its level moves along."""
        assert self.structure.counts is not None
        argument, start = self.structure.counts.power, theta[name]
        names, depth = [level.name for level in self.levels], self.depth if self.levels else 0.0

        def change(x: Tensor) -> Tensor:
            return argument.value_at(x) - argument.value_at(start)

        def steps(x: Tensor) -> list[Step]:
            slope = argument.factor * x.exp()
            return [Step(None, 1, depth - rows.depth, change(x), slope) for rows in self.rows]

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {**dict.fromkeys(names, depth * change(x)), name: x - start}, ())

        theta[name] = self._step(start, Way(steps, _one, prior))
        for level in names:
            theta[level] = theta[level] + depth * change(theta[name])

    def _prior(self, theta: Theta, shifts: Mapping[str, Tensor], plates: tuple[str, ...]) -> Tensor:
        """Log prior, by element of `plates`, of scales shifted, and of those whose prior they are in."""
        at = theta | {name: theta[name] + shift for name, shift in shifts.items()}
        moved = [self.structure.scale(name) for name in shifts]
        asked = {x.name: x for scale in moved for x in (scale, *children_of(self.structure, scale))}
        total = at[moved[0].name].new_zeros(())
        for x in asked.values():
            total = total + sum_to(x.plates, plates, scale_log_prior(self.structure, x, at, self.block), self.block)
        return total

    def _step(self, start: Tensor, way: Way) -> Tensor:
        """Return a parameter after one step, the rows' noise taken along."""
        self.steps += 1

        def proposal(x: Tensor) -> _Proposal:
            steps = way.steps(x)
            said = way.sums(self._for_parts(lambda i: self.rows[i].after(steps[i])))
            return _Proposal.of(x, said, way.prior, LONGEST_DRIFTS[self.steps % len(LONGEST_DRIFTS)])

        here = proposal(start)
        noise = torch.randn(start.shape, generator=self.generator, dtype=start.dtype, device=start.device)
        x = here.mean + here.information.rsqrt() * noise
        there = proposal(x)
        gain = there.density - here.density + there.log_density(start) - here.log_density(x)
        uniform = torch.rand(start.shape, generator=self.generator, dtype=start.dtype, device=start.device)
        moved = torch.where(uniform.log() < gain, x, start)
        steps = way.steps(moved)
        self._for_parts(lambda i: self.rows[i].take(steps[i]))
        return moved


def _all(found: list[Sums]) -> Sums:
    """Add what blocks say of a parameter that all elements of a table move with."""
    density, slope, squares = joined(found)
    return density.sum(0), slope.sum(0), squares.sum(0)


def _one(found: list[Sums]) -> Sums:
    """Add what blocks say of a parameter of one element."""
    density, slope, squares = joined(found)
    return density[0], slope[0], squares[0]
