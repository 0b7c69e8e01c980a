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
from vihier.guides.count_chains import CountChains, joined
from vihier.guides.count_noise import Reach, Step, Sums
from vihier.guides.gene_chains import GeneChains
from vihier.guides.mixed_model import Scale, Structure
from vihier.guides.noisy_rows import NoisyRows
from vihier.guides.row_moves import around
from vihier.guides.scale_terms import children_of, sum_scales
from vihier.guides.slice_sampler import slice_sample_in_turn
from vihier.kernels.rows import ROW_DTYPE

Density = Callable[[Tensor], Tensor]
# Least information of a proposal, so that no step is longer than about one and a half in the logarithm. The drift is at
# most so many sds of the proposal, one of these at random: where the slope is not that of a parabola long ones would be
# rejected, and far out short ones take long.
LEAST_INFORMATION = 0.5
LONGEST_DRIFTS = (1.0, 4.0, 1.0, 30.0)
DIFFERENCE = 0.01
# Rows below which a sweep has every move.
FEW_ROWS = 20_000
LEVEL_SDS, SMALL_SD = 8.0, 1e-3


@dataclass(frozen=True)
class Way:
    """How a parameter of the noise reaches the rows of each block: what these say of it where it is and elsewhere.

    `here(i)`, `after(i, x)` and `take(i, x)` are of block i; `sums` adds what they say, `prior` is the parameter's.
    """

    here: Callable[[int], Sums]
    after: Callable[[int, Tensor], Sums]
    take: Callable[[int, Tensor], None]
    sums: Callable[[list[Sums]], Sums]
    prior: Density


@dataclass(frozen=True)
class PowerHeld:
    """What moves along with the power: scales, by these log depths, and each block's rows, by the rest."""

    depths: Theta
    reaches: list[Reach]


@dataclass(frozen=True)
class _Proposal:
    """A Normal proposal from a point, and the log density there."""

    density: Tensor
    mean: Tensor
    information: Tensor

    @classmethod
    def of(cls, x: Tensor, said: Sums, prior: Density, longest: Tensor) -> _Proposal:
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
        self.n_rows = sum(len(x.depth) for x in rows)
        self.levels = self._levels()
        self.spreads = self._spreads()
        self.powers = self._powers()
        self.moves = 0

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

    def _powers(self) -> list[PowerHeld]:
        """Return what moves along with the power: the level of the noise, or also the factors of genes or sgRNAs.

        With the latter, which differ in abundance more than their own rows do, the power moves little while they are
        held.
        """
        counts, levels = self.structure.counts, [level.name for level in self.levels]
        assert counts is not None
        if counts.power.source is None:
            return []
        depths = [rows.depth for rows in self.rows]
        centre = float(sum(x.double().sum() for x in depths)) / self.n_rows if levels else 0.0
        one = dict.fromkeys(levels, torch.tensor(centre, dtype=torch.float64))
        found = [PowerHeld(one, [Reach(None, len(x), centre - x) for x in depths])]
        factor = counts.factor.source
        if factor is None or not self.structure.scale(factor).plates:
            return found
        elements = [self._factor_elements(i) for i in range(len(self.rows))]
        size = max(int(x.max()) for x in elements) + 1
        size = max(size, self.block.batch.n_sgrnas if self._by_sgrna(factor) else self.block.batch.n_genes)
        total, count = (torch.zeros(size, dtype=torch.float64) for _ in range(2))
        for element, depth in zip(elements, depths, strict=True):
            total.index_add_(0, element.cpu(), depth.double().cpu())
            count += torch.bincount(element.cpu(), minlength=size)
        mean = torch.where(count > 0, total / count.clamp_min(1.0), centre).to(depths[0].device)
        reaches = [Reach(None, len(x), mean[element].to(x) - x) for element, x in zip(elements, depths, strict=True)]
        return [*found, PowerHeld({**one, factor: (mean - centre)[:, None]}, reaches)]

    def _by_sgrna(self, factor: str) -> bool:
        return self.structure.scale(factor).plates == ("sgrna",)

    def _factor_elements(self, i: int) -> Tensor:
        """Which element of the table of factors each row of a block has, [n]."""
        assert self.structure.counts is not None and self.structure.counts.factor.source is not None
        element = self.rows[i].factor_reach.element
        assert element is not None
        by_sgrna = self._by_sgrna(self.structure.counts.factor.source)
        return element if by_sgrna else self.parts[i].block.batch.gene_idx[element]

    def move(self, theta: Theta) -> None:
        """Move the noise, `theta` getting the new values, and draw the rows' observations.

        Where rows are many a sweep has one or two of the moves: each takes a pass over them, and is nearly a new draw.
        """
        counts = self.structure.counts
        assert counts is not None
        self.take_residuals()
        self.moves += 1
        self._for_parts(lambda i: self.rows[i].take_means())
        scales, others = [], [functools.partial(self._move_spread, theta, place) for place in self.spreads]
        if self.structure.noise is not None:
            scales.append(functools.partial(self._move_noise, theta, self.structure.scale(self.structure.noise)))
        if counts.factor.source is not None:
            scales.append(functools.partial(self._move_factors, theta, self.structure.scale(counts.factor.source)))
        if counts.power.source is not None:
            others += [functools.partial(self._move_power, theta, counts.power.source, held) for held in self.powers]
        few, odd = self.n_rows < FEW_ROWS, self.moves % 2 == 1
        for moves, turn in ((scales, self.moves), (others if few or odd else [], self.moves // 2)):
            for i, move in enumerate(moves):
                if few or i == turn % len(moves):
                    move()
        if counts.excess.source is not None:
            self._move_excess(theta, counts.excess.source, due=few or not odd)
        self._for_parts(lambda i: self.rows[i].finish())

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        start = theta[scale.name]

        def step(i: int, x: Tensor) -> Step:
            return Step(self.rows[i].noise_reach, x - start, torch.ones_like(x))

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {scale.name: x - start}, scale.plates)

        theta[scale.name] = self._step(start, self._by_steps(start, step, joined if scale.plates else _all, prior))

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

        def step(i: int, x: Tensor) -> Step:
            return Step(self.rows[i].noise_reach, of_rows * (x - start).expm1(), of_rows * (x - start).exp())

        def prior(x: Tensor) -> Tensor:
            return scale_log_prior(self.structure, spread, {**theta, spread.name: x}, self.block)

        theta[spread.name] = self._step(start, self._by_steps(start, step, _all, prior))
        shift = deviations * (theta[spread.name] - start).expm1()
        for each in moved:
            theta[each.name] = theta[each.name] + align(shift, level.scale.plates, each.plates, self.block)

    def _move_factors(self, theta: Theta, scale: Scale) -> None:
        """Move the factors, and then all of them against the level of the noise, which rows do not notice."""
        start = theta[scale.name]
        by_gene = not self._by_sgrna(scale.name)
        genes = [part.block.batch.gene_idx for part in self.parts]

        def step(i: int, x: Tensor) -> Step:
            move = (x - start)[genes[i]] if by_gene else x - start
            return Step(self.rows[i].factor_reach, move, torch.ones_like(move))

        def sums(found: list[Sums]) -> Sums:
            if not by_gene:
                return joined(found)
            whole = torch.zeros(3, *start.shape, dtype=torch.float64, device=start.device)
            for of_part, said in zip(genes, found, strict=True):
                whole[:, of_part] = torch.stack(said)
            return whole[0], whole[1], whole[2]

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {scale.name: x - start}, scale.plates)

        theta[scale.name] = self._step(start, self._by_steps(start, step, sums, prior))
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

    def _move_power(self, theta: Theta, name: str, held: PowerHeld) -> None:
        """Move the power of the abundance, the noise of rows of some abundance held: what has that moves along."""
        assert self.structure.counts is not None
        argument, start = self.structure.counts.power, theta[name]

        def change(x: Tensor) -> Tensor:
            return argument.value_at(x) - argument.value_at(start)

        def along(x: Tensor) -> Theta:
            return {scale: depth * change(x) for scale, depth in held.depths.items()}

        def step(i: int, x: Tensor) -> Step:
            return Step(held.reaches[i], change(x), argument.factor * x.exp())

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {**along(x), name: x - start}, ())

        moved = self._step(start, self._by_steps(start, step, _all, prior))
        for scale, shift in along(moved).items():
            theta[scale] = theta[scale] + shift
        theta[name] = moved

    def _move_excess(self, theta: Theta, name: str, due: bool) -> None:
        """Move by how much some rows are noisier than others, which of them integrated out, if it is due."""
        assert self.structure.counts is not None
        argument, start = self.structure.counts.excess, theta[name]
        before = argument.value_at(start).to(ROW_DTYPE)
        self._for_parts(lambda i: self.rows[i].mix(before))
        if not due:
            return
        there: list[NoisyRows] = [rows.mixed for rows in self.rows]

        def after(i: int, x: Tensor) -> Sums:
            there[i] = self.rows[i].mixed.at(argument.value_at(x).to(ROW_DTYPE))
            return there[i].sums(self.rows[i].mixed)

        def take(i: int, x: Tensor) -> None:
            self.rows[i].mixed = self.rows[i].mixed.where(x != start, there[i])

        def prior(x: Tensor) -> Tensor:
            return self._prior(theta, {name: x - start}, ())

        theta[name] = self._step(start, Way(lambda i: self.rows[i].mixed.sums(), after, take, joined, prior))

    def _prior(self, theta: Theta, shifts: Mapping[str, Tensor], plates: tuple[str, ...]) -> Tensor:
        """Log prior, by element of `plates`, of scales shifted, and of those whose prior they are in."""
        at = theta | {name: theta[name] + shift for name, shift in shifts.items()}
        moved = [self.structure.scale(name) for name in shifts]
        asked = {x.name: x for scale in moved for x in (scale, *children_of(self.structure, scale))}
        total = at[moved[0].name].new_zeros(())
        for x in asked.values():
            total = total + sum_scales(x.plates, plates, scale_log_prior(self.structure, x, at, self.block), self.block)
        return total

    def _by_steps(
        self, start: Tensor, step: Callable[[int, Tensor], Step], sums: Callable[[list[Sums]], Sums], prior: Density
    ) -> Way:
        return Way(
            lambda i: self.rows[i].here(step(i, start)),
            lambda i, x: self.rows[i].after(step(i, x)),
            lambda i, x: self.rows[i].take(step(i, x)),
            sums,
            prior,
        )

    def _longest_drifts(self, start: Tensor) -> Tensor:
        """Draw for each chain how far a step's drift may go, [N]."""
        kinds = torch.tensor(LONGEST_DRIFTS, dtype=start.dtype, device=start.device)
        return kinds[torch.randint(len(kinds), start.shape[-1:], generator=self.generator, device=start.device)]

    def _step(self, start: Tensor, way: Way) -> Tensor:
        """Return a parameter after one step, the rows' noise taken along."""
        longest = self._longest_drifts(start)
        here = _Proposal.of(start, way.sums(self._for_parts(way.here)), way.prior, longest)
        noise = torch.randn(start.shape, generator=self.generator, dtype=start.dtype, device=start.device)
        x = here.mean + here.information.rsqrt() * noise
        there = _Proposal.of(x, way.sums(self._for_parts(lambda i: way.after(i, x))), way.prior, longest)
        gain = there.density - here.density + there.log_density(start) - here.log_density(x)
        uniform = torch.rand(start.shape, generator=self.generator, dtype=start.dtype, device=start.device)
        moved = torch.where(uniform.log() < gain, x, start)
        self._for_parts(lambda i: way.take(i, moved))
        return moved


def _all(found: list[Sums]) -> Sums:
    """Add what blocks say of a parameter that all elements of a table move with."""
    density, slope, squares = joined(found)
    return density.sum(0), slope.sum(0), squares.sum(0)
