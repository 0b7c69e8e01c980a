"""Sweeps that leave the exact posterior of all scales and locations unchanged, many draws side by side.

A sweep draws the locations given the scales: each gene's given what genes share, then what they share given the genes,
in a few large parts. Then it moves each scale twice: with the deviations held, and with the standardised deviations
held and the rows asking. Interweaving the two mixes well whether the rows say much or little of a scale (Yu & Meng
2011, J. Comput. Graph. Stat. 20, 531). A scale that is the prior scale of others is also moved together with them.
Scales of shared locations are drawn with those locations integrated out. Each move is a slice sampler in one dimension
(Neal 2003, Ann. Stat. 31, 705), for all elements and draws at once.

Started from draws of a variational guide, a few sweeps remove what the guide gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TypeVar

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, align, scale_log_prior, table_variance
from vihier.guides.count_moves import CountMoves
from vihier.guides.deviations import draw_shared_deviations, normal_like, shared_columns, split_shared
from vihier.guides.evidence import collapse, global_log_prior, sum_natural
from vihier.guides.gene_chains import GeneChains, Said
from vihier.guides.gene_tree import tree_scales
from vihier.guides.interchange import interchangeable, swap
from vihier.guides.mixed_model import is_shared
from vihier.guides.noise_moves import move_noise_of_rows
from vihier.guides.row_moves import RowMoves
from vihier.guides.scale_densities import held_density, rows_density
from vihier.guides.scale_terms import (
    SCALE_FAMILIES,
    at_points,
    children_of,
    log_density_of,
    log_prior,
    number_of,
    squares_of,
    standardised,
    sum_to,
    users_of,
)
from vihier.guides.sgrna_spread import SgrnaSpread, SgrnaSums, draw_levels, move_spread, sgrna_spread, sgrna_sums
from vihier.guides.slice_sampler import slice_sample
from vihier.guides.structure import Location, Scale, Structure
from vihier.inference.threads import in_threads
from vihier.kernels.elimination import NaturalParameters
from vihier.kernels.shared_tree import (
    Level,
    SharedVariances,
    draw_above_lines,
    draw_lines,
    lineage_level,
    log_evidence,
    tree_log_evidence,
)

Prior = Callable[[Theta, Scale, Tensor], Tensor]
Result = TypeVar("Result")
NOISE_WIDTH = 0.25
SPREAD_EVERY, SPREAD_GENES, SPREAD_AT_START, PLACED_AT = 10, 25, 2, (2, 8)
"""Sweeps between moves of what sgRNAs and genes spread by (`vihier.guides.sgrna_spread`): at most, one for so many
genes, and in few chains that start; and the sweeps after which these are placed on a grid."""


class Sweeper:
    """Sweeps over the scales of a structure, on blocks that together are the whole screen.

    Parameters
    ----------
    structure, blocks
        What is swept.
    random : callable
        `random(*keys)` makes a generator keyed to a purpose; blocks have streams of their own.
    shared : dict, optional
        Deviations of the shared locations. Where given, these and the scales shared by genes are held, and the blocks
        may be any genes: only their own scales move, whose tables have those genes, block by block.

    Attributes
    ----------
    shared : dict
        Draws of the deviations of every shared location from the last sweep, draws last.
    parts : list of GeneChains
        The blocks' own.
    """

    def __init__(
        self,
        structure: Structure,
        blocks: Sequence[Block],
        random: Callable[..., torch.Generator],
        shared: Theta | None = None,
    ) -> None:
        self.structure = structure
        # What is shared is in float64, also where the blocks are not.
        self.block = replace(blocks[0], data=blocks[0].data.double())
        self.generator = random("shared")
        self.parts = self._make_parts(blocks, [random("genes", i) for i in range(len(blocks))])
        self.held = shared is not None
        self.shared: Theta = dict(shared or {})
        self.draws_shared = not self.held and any(is_shared(x.plates) for x in structure.locations)
        self.global_scales = [scale for scale in structure.scales if scale.plates != ("gene",)]
        self.pairs = interchangeable(structure)
        self.tree_scales = tree_scales(structure)
        self.spread, self.n_swept = sgrna_spread(structure), 0
        self.placed_at: tuple[int, ...] = ()
        self.collapsed = [scale for scale in self.global_scales if self._is_collapsed(scale)]
        self.n_genes = sum(len(block.batch.gene_idx) for block in blocks)
        self.spread_every = min(SPREAD_EVERY, max(SPREAD_AT_START, self.n_genes // SPREAD_GENES))
        self.n_rows = sum(float(block.data.count.sum()) for block in blocks)
        self.noise_width = NOISE_WIDTH
        self.moves_freedom = False
        self.rows: RowMoves | CountMoves | None = None
        if not structure.is_plain:
            moves = RowMoves if structure.counts is None else CountMoves
            self.rows = moves(structure, self.parts, self.generator)
        # Where each block's genes are in the tables of scales.
        ends = torch.tensor([len(block.batch.gene_idx) for block in blocks]).cumsum(0)
        of_blocks = [block.batch.gene_idx for block in blocks]
        in_order = torch.arange(int(ends[-1]), device=of_blocks[0].device).tensor_split(ends[:-1])
        self.genes = list(in_order) if self.held else of_blocks

    def settle_spread(self, every: int = SPREAD_AT_START) -> None:
        """Find out which account of sgRNAs and genes is right, in chains that only start."""
        self.spread_every, self.placed_at = every, PLACED_AT

    def _make_parts(self, blocks: Sequence[Block], generators: Sequence[torch.Generator]) -> list[GeneChains]:
        return [GeneChains(self.structure, *part) for part in zip(blocks, generators, strict=True)]

    def _is_collapsed(self, scale: Scale) -> bool:
        """Whether a scale is of shared tables only, so that it can be drawn with those tables integrated out."""
        users = users_of(self.structure, scale)
        if not users or scale.name in self.structure.of_rows:
            return False
        if scale.plates:
            return all(location.plates == ("line",) for location in users)
        return all(location.plates in SHARED for location in users)

    def sweep(self, theta: Theta) -> Theta:
        """Return the scales (log-scales, draws last) after one sweep."""
        theta = dict(theta)
        for pairs in [] if self.held else self.pairs:
            theta = swap(self.structure, theta, pairs, self.block, self.generator)
        if self.rows is not None:
            at_start = self.of_parts(theta)
            self._for_parts(lambda i: self.parts[i].weigh_rows(at_start[i]))
        if self.draws_shared and not self.shared:
            self._draw_shared_first(theta)
        column = self._columns()
        if self.tree_scales:
            self._move_tree(theta, column)
        mine = self.of_parts(theta)
        said = self._for_parts(lambda i: self.parts[i].draw_dense(mine[i], column))
        shift = None
        if self.draws_shared:
            shift = self.draw_shared(theta, reduce(add, (x.double() for x in said))).to(said[0].weight)
            column = self._columns()
            mine = self.of_parts(theta)

        def finish(i: int) -> Theta:
            self.parts[i].draw_leaf(mine[i], column, shift)
            return self.parts[i].move_scales(mine[i])

        self._gather(theta, self._for_parts(finish))
        self._move_global_scales(theta)
        self._move_noise_of_rows(theta)
        return theta

    def _move_noise_of_rows(self, theta: Theta) -> None:
        """Move what rows that are not plain refer to themselves."""
        if isinstance(self.rows, CountMoves):
            self.rows.move(theta)
        elif self.rows is not None:
            move_noise_of_rows(self, theta, self.rows)

    def _move_global_scales(self, theta: Theta) -> None:
        """Move the scales shared by genes that are not moved with locations integrated out."""
        if self.spread is not None and not self.held and self.n_swept % self.spread_every == 0:
            self._move_with_sgrnas(theta, self.spread)
        self.n_swept += 1
        for scale in self.global_scales:
            if self.held or scale in self.collapsed or scale in self.tree_scales:
                continue
            if self.structure.is_plain and scale.name == self.structure.noise:
                self._move_noise(theta, scale)
            elif scale.name not in self.structure.of_rows:
                self.move(theta, scale)

    def _move_with_sgrnas(self, theta: Theta, spread: SgrnaSpread) -> None:
        """Move what sgRNAs and genes spread by given what each sgRNA adds to its rows."""
        found = self._for_parts(lambda i: sgrna_sums(spread, self.parts[i]))
        genes = torch.cat(self.genes)
        # In the order of the tables of scales, in their precision.
        sums = SgrnaSums(
            *(
                torch.cat([x.to(theta[spread.own.name]) for x in each])[genes.argsort()]
                for each in zip(*(vars(x).values() for x in found), strict=True)
            )
        )
        whole = replace(self.block, batch=replace(self.block.batch, gene_idx=genes))
        place = self.n_swept in self.placed_at
        # But for chains that are placed the sweep's other moves take the short steps.
        shift = move_spread(self.structure, spread, theta, self.shared, sums, whole, self.generator, place, near=place)
        self._take_shift(shift)
        mine = self.of_parts(theta)
        self._for_parts(lambda i: draw_levels(spread, mine[i], shift, self.parts[i]))

    def _take_shift(self, shift: Tensor) -> None:
        """Bring along what is kept beside `shared` of the shared level, which has gone down by so much."""

    def _gather(self, theta: Theta, moved: Sequence[Theta]) -> None:
        """Put the genes' own scales, as their blocks moved them, into the tables of scales."""
        for scale in self.parts[0].own_scales:
            theta[scale.name] = torch.empty_like(theta[scale.name])
            for genes, part in zip(self.genes, moved, strict=True):
                theta[scale.name][genes] = part[scale.name].to(theta[scale.name])

    def _move_tree(self, theta: Theta, column: Tensor | None) -> None:
        """Move the scales of genes' trees with all locations of genes integrated out."""
        mine = self.of_parts(theta)
        self._gather(theta, self._for_parts(lambda i: self.parts[i].move_tree_scales(mine[i], column)))
        for scale in [] if self.held else self.global_scales:
            family = children_of(self.structure, scale)
            if scale in self.tree_scales:
                self._move_in_tree(theta, scale, [], self.prior)
            elif self._is_tree_family(scale):
                self._move_in_tree(theta, scale, family, self.own_prior)

    def _is_tree_family(self, scale: Scale) -> bool:
        """Whether a scale is that of scales of genes' trees, and of nothing else."""
        family = children_of(self.structure, scale)
        of_tree = bool(family) and all(self._is_leaf(child) and child in self.tree_scales for child in family)
        return of_tree and not users_of(self.structure, scale)

    def _move_in_tree(self, theta: Theta, scale: Scale, family: Sequence[Scale], prior: Prior) -> None:
        """Move a scale, or a scale of scales with all of those, by one factor, genes' locations integrated out."""
        start, mine = theta[scale.name], self.of_parts(theta)

        def of_part(i: int, x: Tensor) -> Tensor:
            x = x.to(self.parts[i].cell_count)
            points = at_points(mine[i])
            shift = x - points[scale.name]
            moved = {child.name: points[child.name] + shift for child in family}
            return self.parts[i].tree.log_evidence({**points, scale.name: x, **moved}).sum(0)

        def density(x: Tensor) -> Tensor:
            found = self._for_parts(lambda i: of_part(i, x))
            return prior(theta, scale, x) + reduce(add, (part.to(x) for part in found))

        theta[scale.name] = slice_sample(density, start, self.generator)
        self._follow(theta, scale, family, theta[scale.name] - start)

    def _columns(self) -> Tensor | None:
        """Shared part of each line's mean, [C, N], as the blocks want it; None where there is none."""
        column = shared_columns(self.structure, self.shared, self.block)
        return None if column is None else column.to(self.parts[0].cell_count)

    def of_parts(self, theta: Theta, names: Collection[str] | None = None) -> list[Theta]:
        """Return the scales that each block has: those of its genes, and all shared ones; or some of them."""
        own = {scale.name for scale in self.parts[0].own_scales}
        theta = {name: value for name, value in theta.items() if names is None or name in names}
        whole = len(self.parts) == 1 and len(self.genes[0]) == self.n_genes
        # Each in the precision of its block: some need double.
        return [
            {
                name: (value[genes] if name in own and not whole else value).to(part.cell_count)
                for name, value in theta.items()
            }
            for part, genes in zip(self.parts, self.genes, strict=True)
        ]

    def _for_parts(self, function: Callable[[int], Result]) -> list[Result]:
        return list(in_threads(function, range(len(self.parts)), self.block.slot.device))

    def _draw_shared_first(self, theta: Theta) -> None:
        """Draw the shared locations from their exact conditional given the scales, all genes integrated out."""
        mine = self.of_parts(theta)

        def of_part(i: int) -> NaturalParameters | None:
            weighed = self.parts[i].weighed
            exact = {name: value.double() for name, value in mine[i].items()}
            return collapse(self.structure, exact, replace(weighed, data=weighed.data.double())).natural

        said = self._for_parts(of_part)
        natural = sum_natural(said)
        assert natural is not None
        self.shared, _, _ = draw_shared_deviations(self.structure, theta, self.block, natural, self.generator)

    def draw_shared(self, theta: Theta, said: Said) -> Tensor:
        """Draw the shared scales and locations given d, in one go; return how far d shifts against them.

        Scales that are not indexed are drawn with all shared locations integrated out, those of lines and lineages
        with the lines integrated out. What the rows cannot tell apart, a shift of all genes against the shared level,
        is drawn from its own conditional.
        """
        lineage, weight, rhs = self.block.data.lineage, said.weight, said.rhs
        prior = self._shared_variances(theta)
        level = lineage_level(weight, rhs, prior, lineage)
        for scale in self.collapsed:
            if not scale.plates:
                self._move_collapsed(theta, scale, weight, rhs, level)
                prior = self._shared_variances(theta)
                level = lineage_level(weight, rhs, prior, lineage)
        noise = normal_like(weight.new_empty(sum(lineage.shape) + 1, weight.shape[1]), self.generator)
        groups, top, above = draw_above_lines(level, prior, lineage, noise[len(lineage) :])
        for scale in self.collapsed:
            if scale.plates:
                self._move_collapsed_lines(theta, scale, weight, rhs - weight * above)
        prior = self._shared_variances(theta)
        tables = [draw_lines(weight, rhs, prior, above, noise[: len(lineage)]), groups, top]
        shift = self._shift(tables, prior, said)
        present = zip(tables, (prior.line, prior.lineage, prior.top), strict=True)
        parts = [x if x.dim() == 2 else x[None] for x, variance in present if variance is not None]
        self.shared = split_shared(self.structure, theta, self.block, torch.cat(parts), self.generator)
        return shift

    def _shift(self, tables: list[Tensor], prior: SharedVariances, said: Said) -> Tensor:
        """Draw a shift of all genes up and the coarsest shared table down: only their priors have a say."""
        variances = (prior.line, prior.lineage, prior.top)
        at = max(i for i, variance in enumerate(variances) if variance is not None)
        top, variance = tables[at], variances[at]
        assert variance is not None
        if not bool(said.level_precision.any()):
            return torch.zeros_like(said.level_pull)  # no table of genes to shift
        weights = (torch.ones_like(top) / variance).reshape(-1, top.shape[-1])
        precision = said.level_precision + weights.sum(0)
        mean = ((top.reshape(weights.shape) * weights).sum(0) - said.level_pull) / precision
        shift = mean + precision.rsqrt() * normal_like(mean, self.generator)
        tables[at] = top - shift
        return shift

    def _shared_variances(self, theta: Theta) -> SharedVariances:
        return SharedVariances(*(table_variance(self.structure, plates, theta, self.block) for plates in SHARED))

    def _move_collapsed(self, theta: Theta, scale: Scale, weight: Tensor, rhs: Tensor, level: Level) -> None:
        """Move an unindexed scale of shared locations given the genes' d, all shared locations integrated out."""
        of_lines = any(location.plates == ("line",) for location in users_of(self.structure, scale))
        points = at_points(theta)
        weight, rhs = weight.unsqueeze(-2), rhs.unsqueeze(-2)
        level = Level(level.weight.unsqueeze(-2), level.rhs.unsqueeze(-2), level.log_evidence)

        def density(x: Tensor) -> Tensor:
            prior = self._shared_variances({**points, scale.name: x})
            at = lineage_level(weight, rhs, prior, self.block.data.lineage) if of_lines else level
            return self.prior(theta, scale, x) + tree_log_evidence(at, prior)

        theta[scale.name] = slice_sample(density, theta[scale.name], self.generator)

    def _move_collapsed_lines(self, theta: Theta, scale: Scale, weight: Tensor, rhs: Tensor) -> None:
        """Move a scale of the line table's elements given all but that table."""
        points = at_points(theta)
        weight, rhs = weight.unsqueeze(-2), rhs.unsqueeze(-2)

        def density(x: Tensor) -> Tensor:
            variance = table_variance(self.structure, ("line",), {**points, scale.name: x}, self.block)
            evidence = sum_to(("line",), scale.plates, log_evidence(weight, rhs, variance), self.block)
            return self.prior(theta, scale, x) + evidence

        theta[scale.name] = slice_sample(density, theta[scale.name], self.generator)

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        """Move the rows' scale given the sum of their squared residuals; locations may have it as their scale too."""
        start = theta[scale.name]
        squares = reduce(add, self._for_parts(lambda i: self.parts[i].residual_squares()))
        squares = squares * (-2 * start).exp() / self.structure.noise_factor**2
        number, own = self.own_squares(theta, scale, [scale])
        density = held_density(lambda x: self.prior(theta, scale, x), start, self.n_rows + number, squares + own)
        theta[scale.name] = slice_sample(density, start, self.generator, width=self.noise_width)

    def log_joint(self, theta: Theta) -> Tensor:
        """Log density, [N], of the rows and of all scales and locations as the last sweep left them."""
        assert self.rows is not None
        structure, mine = self.structure, self.of_parts(theta)
        total = global_log_prior(structure, theta, self.block).double() + self.rows.log_density(mine)
        for location in structure.locations:
            if is_shared(location.plates):
                total = total + log_density_of(structure, theta, self.block, location, self.shared[location.name])
        return reduce(add, self._for_parts(lambda i: self.parts[i].log_prior(mine[i])), total)

    def own_squares(self, theta: Theta, scale: Scale, moved: Sequence[Scale]) -> tuple[Tensor, Tensor]:
        """Count and sum the squares of the standardised deviations whose scales are `moved`, by element of `scale`."""
        number, squares = torch.zeros_like(theta[scale.name]), torch.zeros_like(theta[scale.name])
        mine = self.of_parts(theta, [member.name for member in moved])
        for location in [location for member in moved for location in users_of(self.structure, member)]:
            if is_shared(location.plates):
                counted = (
                    number_of(self.structure, self.block, location),
                    squares_of(self.structure, self.block, location, self.shared[location.name]),
                )
                found = [standardised(self.structure, theta, location, counted, scale, self.block)]
            else:
                found = [part.own_squares(at, scale, location) for part, at in zip(self.parts, mine, strict=True)]
            for more, larger in found:
                number, squares = number + more, squares + larger
        return number, squares

    def _held_squares(self, theta: Theta, scale: Scale, moved: Sequence[Scale]) -> tuple[Tensor, ...]:
        """Return what `held_density` asks of the deviations whose scales are `moved`."""
        return self.own_squares(theta, scale, moved)

    def own_prior(self, theta: Theta, scale: Scale, x: Tensor) -> Tensor:
        """Log prior of a scale alone, at points, [..., P, N]."""
        return scale_log_prior(self.structure, scale, {**at_points(theta), scale.name: x}, self.block)

    def prior(self, theta: Theta, scale: Scale, x: Tensor) -> Tensor:
        """Log prior of a scale, and of those in whose prior it is, at points, [..., P, N]."""
        return log_prior(self.structure, theta, scale, x, self.block)

    def prior_at(self, theta: Theta, scale: Scale, x: Tensor) -> Tensor:
        """Log prior, as above, of one point for each element."""
        return self.prior(theta, scale, x.unsqueeze(-2)).squeeze(-2)

    def move(self, theta: Theta, scale: Scale) -> None:
        """Move a scale that is shared, and not of shared locations alone; `theta` gets the new value."""
        users, family = users_of(self.structure, scale), children_of(self.structure, scale)
        self._move_held(theta, scale, [scale], self.prior)
        if len(users) == 1:
            self._move_with_rows(theta, scale, [], users[0], self.prior)
        if not users and all(self._is_leaf(child) for child in family) and not self._is_tree_family(scale):
            self._move_held(theta, scale, family, self.own_prior)
            of_family = users_of(self.structure, family[0]) if len(family) == 1 else []
            if len(of_family) == 1:
                self._move_with_rows(theta, scale, family, of_family[0], self.own_prior)

    def _is_leaf(self, scale: Scale) -> bool:
        """Whether a scale's prior is the same when it and its parent grow by one factor, and nothing else asks."""
        free = scale.name not in self.structure.of_rows and not children_of(self.structure, scale)
        return free and scale.family in SCALE_FAMILIES

    def _move_held(self, theta: Theta, scale: Scale, moved: Sequence[Scale], prior: Prior) -> None:
        """Move a scale, or a scale of scales with all of those, by one factor while the deviations are held."""
        start = theta[scale.name]
        density = held_density(lambda x: prior(theta, scale, x), start, *self._held_squares(theta, scale, moved))
        theta[scale.name] = slice_sample(density, start, self.generator)
        self._follow(theta, scale, [member for member in moved if member is not scale], theta[scale.name] - start)

    def _follow(self, theta: Theta, scale: Scale, family: Sequence[Scale], shift: Tensor) -> None:
        for child in family:
            theta[child.name] = theta[child.name] + align(shift, scale.plates, child.plates, self.block)

    def _move_with_rows(
        self, theta: Theta, scale: Scale, family: Sequence[Scale], location: Location, prior: Prior
    ) -> None:
        """Move a scale together with the deviations that it scales, where those are of genes."""
        if is_shared(location.plates):
            return
        start, mine = theta[scale.name], self.of_parts(theta, [scale.name, *filter(None, [self.structure.noise])])
        found = self._for_parts(lambda i: self.parts[i].rows_terms(mine[i], scale, location))
        pull, weight = (reduce(add, (x.to(start) for x in terms)) for terms in zip(*found, strict=True))
        density = rows_density(lambda x: prior(theta, scale, x), start, pull, weight)
        theta[scale.name] = slice_sample(density, start, self.generator)
        shift = theta[scale.name] - start
        self._follow(theta, scale, family, shift)
        shift = shift.to(self.parts[0].cell_count)
        self._for_parts(lambda i: self.parts[i].stretch(scale, location, shift))
