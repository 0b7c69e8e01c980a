"""Moves of how far sgRNAs of a gene and genes spread, with every gene's own level and scale integrated out.

Some screens leave two accounts of genes whose sgRNAs all deplete: genes differ much and their sgRNAs little, or genes
little and the sgRNAs of some much. Given the genes' scales each account holds itself in place, however much likelier
the other is, and no small step leads from one to the other. Given only what each sgRNA adds to its rows, a gene's level
is integrated out in closed form and its scale on a lattice, so that the shared scales of either leap between the two.

The lattice of a gene lies at random, and its points are closer than its density bends (for points h apart sums are off
by exp(-pi^2 / 2h), 1e-6 or less): sums over it are integrals, and a point chosen by its density is a draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, scale_log_prior, table_variance
from vihier.guides.deviations import normal_like, split_table
from vihier.guides.gene_chains import GeneChains
from vihier.guides.scale_terms import SCALE_FAMILIES, children_of, users_of
from vihier.guides.slice_sampler import slice_sample_in_turn, slice_sample_together
from vihier.guides.structure import Location, Scale, Structure

POINTS = 32
MOST_SGRNAS = 24
"""Of a gene whose scale moves along: that of one with more is known too well for so few points."""
DROP = 40.0
"""How much lower, on the log scale, a gene's density is at the lattice's lower end."""
TAIL, FURTHEST = 12.0, (-12.0, 4.0)
"""The same of its upper end, for three sgRNAs or more; for fewer both ends are fixed."""
WIDEST, WIDTH, WIDEST_SHIFT, SHIFT_WIDTH = 5.0, 0.5, 1.0, 0.05
"""Of slices in log-scales, all together and each alone, and in the level of all genes, in log2 fold change."""
PLACES, SHIFTS, OWN = (-5.0, 1.5, 0.25), (-0.3, 0.31, 0.025), (-8.0, 3.0, 0.2)
"""Where chains are placed that start, first, end and step: shared log-scales, the level, a gene's own log-scale."""
MOST_PLACED = 300
"""Genes that say where."""
FEW_GENES, LEAPS_OF_FEW = (30, 150), 5
"""Of so many both accounts may be likely with a dip between: more leaps at once, which cost little there."""
SMALLER = math.log(8.0)
"""How many times smaller, in logarithm, a box may be."""
AT_ONCE = 2_000_000
"""Elements of a lattice [G, P, N] that are worked on at once."""


@dataclass(frozen=True)
class SgrnaSpread:
    """Which sites are moved so: the genes' `own` scale of the location `sgrnas`, the locations of `genes`, the scales.

    `of_genes` are unindexed scales of the genes' locations, `above` those that the genes' own scale is around.
    """

    own: Scale
    sgrnas: Location
    genes: tuple[Location, ...]
    of_genes: tuple[Scale, ...]
    above: tuple[Scale, ...]

    @property
    def moved(self) -> tuple[Scale, ...]:
        """The shared scales."""
        return (*self.of_genes, *self.above)


def sgrna_spread(structure: Structure) -> SgrnaSpread | None:
    """Find them; None for a program that has no level of genes above sgRNAs with a scale of their own."""
    sgrnas, genes = structure.table(("sgrna",)), tuple(structure.table(("gene",)))
    correlated = {name for correlation in structure.correlations for name in correlation.members}
    if len(sgrnas) != 1 or not genes or correlated & {location.name for location in (*sgrnas, *genes)}:
        return None
    own = next((scale for scale in structure.scales if scale.name == sgrnas[0].scale), None)
    if own is None or own.plates != ("gene",) or not _is_only_of(structure, own, sgrnas, []):
        return None
    if own.family not in SCALE_FAMILIES:  # it may be narrower than the lattice is wide
        return None
    scales = [structure.scale(x.scale) for x in genes if x.scale is not None]
    if any(scale.plates for scale in scales):
        return None
    of_genes = [scale for scale in dict.fromkeys(scales) if _is_only_of(structure, scale, list(genes), [])]
    sources = [structure.scale(source) for source in dict.fromkeys(own.sources)]
    if any(source.plates for source in sources):
        return None
    above = [scale for scale in sources if _is_only_of(structure, scale, [], [own])]
    return SgrnaSpread(own, sgrnas[0], genes, tuple(of_genes), tuple(above)) if of_genes or above else None


def _is_only_of(structure: Structure, scale: Scale, locations: list[Location], scales: list[Scale]) -> bool:
    users, children = users_of(structure, scale), children_of(structure, scale)
    free = scale.name not in structure.of_rows
    return free and all(x in locations for x in users) and all(x in scales for x in children)


@dataclass(frozen=True)
class SgrnaSums:
    """What each gene's sgRNAs add to their rows: how many, their mean, and the sum of squares about it.

    `number` is [G, 1], `mean` and `square` [G, N].
    """

    number: Tensor
    mean: Tensor
    square: Tensor

    @staticmethod
    def of(slots: Tensor, filled: Tensor) -> SgrnaSums:
        """Sum a block's sgRNAs, [B, K, N], where they are (`filled`, [B, K])."""
        there = filled[..., None].to(slots)
        number = there.sum(1)
        mean = (slots * there).sum(1) / number
        return SgrnaSums(number, mean, ((slots - mean[:, None]) * there).square().sum(1))

    def double(self) -> SgrnaSums:
        """Return the same in float64."""
        return SgrnaSums(self.number.double(), self.mean.double(), self.square.double())

    def of_draws(self, at: slice) -> SgrnaSums:
        """Return those of some draws."""
        return replace(self, mean=self.mean[:, at], square=self.square[:, at])


def sgrna_sums(spread: SgrnaSpread, chains: GeneChains) -> SgrnaSums:
    """Sum what the genes' own and the sgRNAs' deviations in a block add to the rows of each sgRNA."""
    total = spread.sgrnas.reach * chains.deviations[spread.sgrnas.name]
    for location in spread.genes:
        total = total + location.reach * chains.deviations[location.name][:, None]
    return SgrnaSums.of(total, chains.block.filled)


def sums_to_leave(structure: Structure, chains: GeneChains) -> SgrnaSums | None:
    """Return what a visit leaves behind of its block's sgRNAs, float64; None for a program without such moves."""
    spread = sgrna_spread(structure)
    return None if spread is None else sgrna_sums(spread, chains).double()


def move_spread(
    structure: Structure,
    spread: SgrnaSpread,
    theta: Theta,
    shared: Theta,
    sums: SgrnaSums,
    block: Block,
    random: torch.Generator,
    place: bool = False,
    near: bool = True,
) -> Tensor:
    """Move the shared scales, draw the genes' own given them, and shift all genes against the level that they share.

    The genes' levels are integrated out: they have to be drawn anew before anything is asked of them.

    Parameters
    ----------
    theta : dict
        Log-scales; those of genes cover all genes of `sums`, and so does `block`. Gets the new values.
    place : bool
        Whether chains are only starting, and go by a grid to where they belong.
    near : bool
        Whether the scales are moved one by one too, as other moves may do as well.
    shared : dict
        Deviations of the shared locations; those of unindexed ones get new values.

    Returns
    -------
    Tensor
        How far all genes have gone up, and the shared level down, [N]; the rows' means are what they were.
    """
    n_genes, n_draws = sums.mean.shape
    size = max(1, AT_ONCE // (n_genes * POINTS))
    names = [scale.name for scale in (*spread.moved, spread.own)]
    top = structure.table(())
    total = sum((x.reach * shared[x.name] for x in top), theta[names[0]].new_zeros(n_draws))
    spreads = table_variance(structure, (), theta, block) if top else None
    parts, shifts = [], []
    for first in range(0, n_draws, size):
        at = slice(first, first + size)
        some = {name: value[..., at] for name, value in theta.items()}
        level = None if spreads is None else (total[at], spreads.expand(n_draws)[at])
        lattice = _Lattice(structure, spread, some, sums.of_draws(at), level, block, random)
        if place:
            lattice.place(random)
        for _ in range(LEAPS_OF_FEW if FEW_GENES[0] <= n_genes <= FEW_GENES[1] else 1):
            lattice.leap(random)
        if near:
            for scale in spread.moved:
                lattice.move(scale, random)
            lattice.shift_genes(random)
        parts.append(lattice.drawn(random))
        shifts.append(lattice.shift)
    for name in names:
        theta[name] = torch.cat([part[name] for part in parts], -1)
    shift = torch.cat(shifts)
    if top:
        shared.update(split_table(structure, (), theta, block, total - shift, random))
    return shift


class _Lattice:
    """Points of the genes' own scales, and what all but the shared scales says of them, for some draws.

    What is asked at each point is in float32; sums over genes are not.
    """

    def __init__(
        self,
        structure: Structure,
        spread: SgrnaSpread,
        theta: Theta,
        sums: SgrnaSums,
        level: tuple[Tensor, Tensor] | None,
        block: Block,
        random: torch.Generator,
    ) -> None:
        self.structure, self.spread, self.block, self.theta, self.sums = structure, spread, block, dict(theta), sums
        self.unit = math.log(abs(spread.sgrnas.reach * spread.sgrnas.factor))
        log_sd = _points(sums, theta[spread.own.name] + self.unit, random)
        self.points = log_sd - self.unit
        self.number, self.mean, square = (x[:, None].float() for x in (sums.number, sums.mean, sums.square))
        log_sd = log_sd.float()
        self.variance = (2 * log_sd).exp()
        self.within = (1 - self.number) * log_sd - 0.5 * square / self.variance
        self.own, self.shared_level = (log_sd - self.unit), level
        self.shift = sums.mean.new_zeros(sums.mean.shape[1])

    def place(self, random: torch.Generator) -> None:
        """Put a scale of genes, the scale above and the shared level where a grid, of some genes, says they may be."""
        of_genes, above = self.spread.of_genes[:1], self.spread.above[:1]
        like = self.sums.mean
        grid = torch.arange(*PLACES, dtype=like.dtype, device=like.device)
        shifts = torch.arange(*SHIFTS, dtype=like.dtype, device=like.device) if self.shared_level else like.new_zeros(1)
        # What one chain's sgRNAs say does for all: chains that start know them alike.
        theta = {name: value[..., :1] for name, value in self.theta.items()}
        first, second = ({**theta, **{scale.name: grid for scale in scales}} for scales in (of_genes, above))
        density = self._on_grid(first, second, shifts)
        for axis, (scales, at) in enumerate(((of_genes, first), (above, second))):
            for scale in scales:
                density = density + _along(scale_log_prior(self.structure, scale, at, self.block), axis)
        if self.shared_level is not None:
            total, variance = (x[0] for x in self.shared_level)
            density = density - _along(0.5 * (total - shifts).square() / variance, 2)
        chosen = density.flatten().softmax(0).multinomial(like.shape[1], replacement=True, generator=random)
        i, j, k = torch.unravel_index(chosen, density.shape)
        for scales, place in ((of_genes, i), (above, j)):
            self.theta |= {scale.name: grid[place].to(self.theta[scale.name]) for scale in scales}
        self.shift = shifts[k]

    def _on_grid(self, first: Theta, second: Theta, shifts: Tensor) -> Tensor:
        """Log density of one chain's sgRNAs, of some genes, at scales of genes x scales above x shifts, [I, J, K]."""
        at = torch.linspace(0, len(self.sums.mean) - 1, min(MOST_PLACED, len(self.sums.mean))).long()
        number, mean, square = (x[at] for x in (self.sums.number, self.sums.mean[:, :1], self.sums.square[:, :1]))
        log_sd = torch.arange(*OWN, dtype=mean.dtype, device=mean.device)
        variance = (2 * log_sd).exp()
        within = (1 - number) * log_sd - 0.5 * square / variance
        own = self.spread.own.name
        # As if each point were a gene, and each place a draw.
        at_own = {**second, own: (log_sd - self.unit)[:, None]}
        prior = scale_log_prior(self.structure, self.spread.own, at_own, self.block).exp()
        of_genes = table_variance(self.structure, ("gene",), first, self.block)
        assert of_genes is not None
        found = []
        square = number * (mean + shifts[:, None, None]).square()  # [K, G, 1]
        for genes in of_genes[0]:
            whole = variance + number * genes
            rows = within - 0.5 * (whole.log() + square / whole)
            peak = rows.amax(2, keepdim=True)
            given = ((rows - peak).exp() @ prior).clamp_min(torch.finfo(mean.dtype).tiny).log() + peak
            found.append(given.sum(1))
        return torch.stack(found).movedim(1, 2)

    def leap(self, random: torch.Generator) -> None:
        """Move all shared scales and the shared level at once, in a box of random widths."""
        moved, shifts = self.spread.moved, int(self.shared_level is not None)

        def density(x: Tensor) -> Tensor:
            at = {**self.theta, **{scale.name: values for scale, values in zip(moved, x, strict=False)}}
            shift = x[-1] if shifts else self.shift
            found = _summed(self.within + self._level(at, shift) + self._prior(at))
            for scale in moved:
                found = found + scale_log_prior(self.structure, scale, at, self.block)
            return found + self._of_shift(shift)

        start = torch.stack([*(self.theta[scale.name] for scale in moved), *([self.shift] if shifts else [])])
        widest = start.new_tensor([WIDEST] * len(moved) + [WIDEST_SHIFT] * shifts)[:, None]
        smaller = torch.rand(start.shape, generator=random, dtype=start.dtype, device=start.device)
        found = slice_sample_together(density, start, random, widest * (-SMALLER * smaller).exp())
        self.theta |= {scale.name: values for scale, values in zip(moved, found, strict=False)}
        self.shift = found[-1] if shifts else self.shift

    def shift_genes(self, random: torch.Generator) -> None:
        """Move all genes against the level that they share."""
        if self.shared_level is None:
            return
        held = self.within + self._prior(self.theta)

        def density(x: Tensor) -> Tensor:
            return self._of_shift(x) + _summed(held + self._level(self.theta, x))

        self.shift = slice_sample_in_turn(density, self.shift, random, SHIFT_WIDTH)

    def _of_shift(self, shift: Tensor) -> Tensor | float:
        """Log prior of the shared level after a shift of all genes up."""
        if self.shared_level is None:
            return 0.0
        total, variance = self.shared_level
        return -0.5 * (total - shift).square() / variance

    def move(self, scale: Scale, random: torch.Generator) -> None:
        """Move one of the shared scales."""
        of_genes = scale in self.spread.of_genes
        held = self.within + (self._prior(self.theta) if of_genes else self._level(self.theta, self.shift))

        def density(x: Tensor) -> Tensor:
            at = {**self.theta, scale.name: x}
            asked = self._level(at, self.shift) if of_genes else self._prior(at)
            of_scale = scale_log_prior(self.structure, scale, at, self.block)
            return of_scale + _summed(held + asked)

        self.theta[scale.name] = slice_sample_in_turn(density, self.theta[scale.name], random, WIDTH)

    def _level(self, theta: Theta, shift: Tensor) -> Tensor:
        """Log density of the mean of a gene's sgRNAs, its level integrated out, at each point."""
        square = self.number * (self.mean + shift.float()).square()
        of_genes = table_variance(self.structure, ("gene",), theta, self.block)
        assert of_genes is not None
        whole = self.variance + self.number * of_genes[:, None].float()
        return -0.5 * (whole.log() + square / whole)

    def _prior(self, theta: Theta) -> Tensor:
        own = self.spread.own
        shared = {name: theta[name].float().unsqueeze(-2) for name in own.sources}
        return scale_log_prior(self.structure, own, {**shared, own.name: self.own}, self.block)

    def drawn(self, random: torch.Generator) -> Theta:
        """Draw the genes' own scales, and return all."""
        weights = (self.within + self._level(self.theta, self.shift) + self._prior(self.theta)).softmax(1)
        ends = weights.cumsum(1)
        shape = self.sums.mean.shape
        uniform = torch.rand(shape, generator=random, dtype=ends.dtype, device=ends.device)[:, None] * ends[:, -1:]
        place = (ends <= uniform).sum(1, keepdim=True).clamp_max(POINTS - 1)
        return {**self.theta, self.spread.own.name: self.points.gather(1, place)[:, 0]}


def _points(sums: SgrnaSums, now: Tensor, random: torch.Generator) -> Tensor:
    """Put points where the logarithm of each gene's scale, in units of the rows, may be: [G, P, N].

    Those of genes with more than `MOST_SGRNAS` are all where the scale is now.
    """
    number, tiny = sums.number, torch.finfo(now.dtype).tiny
    others = (number - 1).clamp_min(1)
    within = 0.5 * (sums.square / others).clamp_min(tiny).log()
    furthest = sums.mean.abs() + WIDEST_SHIFT / 2
    about_zero = 0.5 * ((sums.square + number * furthest.square()) / number).clamp_min(tiny).log()
    low = torch.where(number > 1, within - _reach_down(others), FURTHEST[0]).clamp_min(FURTHEST[0])
    high = torch.maximum(within, about_zero) + TAIL / (number - 2).clamp_min(1)
    high = torch.where(number > 2, high, FURTHEST[1])
    high = torch.maximum(high, low + 1)
    offset = torch.rand(sums.mean.shape, generator=random, dtype=now.dtype, device=now.device)
    order = torch.arange(POINTS, dtype=now.dtype, device=now.device)[:, None]
    points = low[:, None] + (high - low)[:, None] / POINTS * (order + offset[:, None])
    return torch.where(number[:, None] <= MOST_SGRNAS, points, now[:, None])


def _summed(log_density: Tensor) -> Tensor:
    """Integrate over the points of each gene, and sum over genes."""
    return log_density.logsumexp(1).sum(0, dtype=torch.float64)


def _along(values: Tensor, axis: int) -> Tensor:
    """Put a vector along one of the three axes of a grid."""
    return values.reshape([-1 if i == axis else 1 for i in range(3)])


def _reach_down(others: Tensor) -> Tensor:
    """How far below its best logarithm a scale is `DROP` less likely, of so many deviations: Newton from above."""
    reach = (DROP / others).sqrt()
    for _ in range(6):
        grown = (2 * reach).exp()
        reach = reach - (grown - 1 - 2 * reach - 2 * DROP / others) / (2 * grown - 2)
    return reach


def draw_levels(spread: SgrnaSpread, theta: Theta, shift: Tensor, chains: GeneChains) -> None:
    """Draw the levels of a block's genes given what their sgRNAs add to the rows, after a shift of all against theirs.

    What is predicted of the rows stays as it is.

    Parameters
    ----------
    theta : dict
        Log-scales of the block.
    chains : GeneChains
        Their deviations are brought along.
    """
    structure, block = chains.structure, chains.block
    sums, shift = sgrna_sums(spread, chains), shift.to(chains.cell_count)
    of_genes = table_variance(structure, ("gene",), theta, block)
    of_sgrnas = table_variance(structure, ("sgrna",), theta, block)
    assert of_genes is not None and of_sgrnas is not None
    told = sums.number / of_sgrnas[:, 0]
    precision = told + 1.0 / of_genes
    level = told * (sums.mean + shift) / precision + precision.rsqrt() * normal_like(sums.mean, chains.generator)
    drawn = split_table(structure, ("gene",), theta, block, level, chains.generator)
    before = sum(location.reach * chains.deviations[location.name] for location in spread.genes)
    # What the shift adds here the shared level has lost.
    first = spread.genes[0]
    drawn[first.name] = drawn[first.name] - shift / first.reach
    for location in spread.genes:
        chains.move_location(location, drawn[location.name] - chains.deviations[location.name])
    chains.deviations[first.name] = chains.deviations[first.name] + shift / first.reach
    change = (before + shift - level)[:, None] * block.filled[..., None].to(level)
    chains.move_location(spread.sgrnas, change / spread.sgrnas.reach)
