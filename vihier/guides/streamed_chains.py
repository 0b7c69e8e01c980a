"""Exact chains over a screen of any size: one pass over its blocks a scan, in memory that does not grow with the rows.

A pass visits every block with what genes share held. The visit draws the block's own locations (the shared part of each
line's mean given), moves the genes' own scales as `vihier.guides.interweave` does, and leaves sums behind. After the
pass the shared scales and locations are drawn from these sums, from their exact conditionals: after one pass the shared
locations and their scales given the sgRNA and gene tables, the gene x line table integrated out; after the next the
noise and the other shared scales given every deviation. Between passes live the scales and the shared locations only;
genes' locations are drawn anew, so that no array over genes and lines outlives its block.

Sums are added in float64 in an order of the blocks that is fixed (`vihier.guides.pass_sums`), and random numbers are
keyed to pass and block, so that the answer depends neither on how many threads or processes work nor on which of them
visits a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, table_variance, variances
from vihier.guides.cell_file import CellFile
from vihier.guides.deviations import gene_level, shared_columns
from vihier.guides.draw_groups import groups_of_chains
from vihier.guides.gene_chains import GeneChains, Said, children_of, sum_to, users_of
from vihier.guides.interchange import interchangeable, swap
from vihier.guides.interweave import Sweeper
from vihier.guides.level_chains import visit_levels
from vihier.guides.pass_sums import PassSums, Visit
from vihier.guides.settle_shared import settle_shared
from vihier.guides.slice_sampler import slice_sample
from vihier.guides.structure import Location, Scale, Structure
from vihier.inference.threads import in_threads
from vihier.kernels.levels import MOST_LEVELS, has_levels

Random = Callable[..., torch.Generator]
# Widths of the slice sampler's intervals: for the logarithm of the noise first these, then so many posterior sds.
NOISE_WIDTHS = (2.0, 0.2, 0.02)
NOISE_SDS = 30.0
SCALE_WIDTH = 5.0
# Draws of what is shared after a pass: scales of few lines forget slowly.
SHARED_MOVES = 6


@dataclass(frozen=True)
class ChainState:
    """All that lives between passes: log-scales of the screen, and deviations of the shared locations; chains last."""

    theta: Theta
    shared: Theta
    passes: int = 0


def zero_shared(structure: Structure, block: Block, n_chains: int) -> Theta:
    """Deviations of the shared locations that are zero in all chains, float64."""
    lineage = block.data.lineage
    sizes = {"line": lineage.shape[0], "lineage": lineage.shape[1]}
    like = block.data.square.double()
    return {
        x.name: like.new_zeros(*(sizes[plate] for plate in x.plates), n_chains)
        for x in structure.locations
        if x.plates in SHARED
    }


def visit(structure: Structure, block: Block, theta: Theta, column: Tensor | None, random: torch.Generator) -> Visit:
    """Draw a block's locations, move its genes' own scales, and sum what the shared ones are drawn from.

    Parameters
    ----------
    theta : dict
        Log-scales of the block.
    column : Tensor or None
        The shared part of each line's mean, [C, N].
    """
    chains = GeneChains(structure, block, random)
    chains.draw_dense(theta, column)
    chains.draw_leaf(theta, column, None)
    theta = chains.move_scales(theta)
    said = said_of(chains, theta, column)
    squares = {}
    for location in structure.locations:
        if location.plates in SHARED or location.scale is None:
            continue
        scale = structure.site(location.scale)
        assert isinstance(scale, Scale)
        count, square = chains.own_squares(theta, scale, location)
        squares[location.name] = count.double(), square.double()
    own = {scale.name: theta[scale.name] for scale in chains.own_scales}
    rows = {}
    for scale, _, location in moved_with_rows(structure):
        pull, weight = chains.rows_terms(theta, scale, location)
        rows[scale.name, location.name] = pull.double(), weight.double()
    return Visit(own, said, chains.residual_squares().double(), squares, rows)


def moved_with_rows(structure: Structure) -> list[tuple[Scale, list[Scale], Location]]:
    """Return the shared scales that move along with deviations of genes: their own, or those of the scales below.

    Returns
    -------
    list of (scale, family, location)
        `family` are the genes' or elements' scales that grow with it; empty where the location's own scale it is.
    """
    found: list[tuple[Scale, list[Scale], Location]] = []
    for scale in structure.scales:
        if scale.plates == ("gene",) or scale.name == structure.noise:
            continue
        users, family = users_of(structure, scale), children_of(structure, scale)
        below = users_of(structure, family[0]) if len(family) == 1 and not users else []
        if len(users) == 1 and users[0].plates not in SHARED:
            found.append((scale, [], users[0]))
        elif len(below) == 1 and below[0].plates not in SHARED:
            found.append((scale, family, below[0]))
    return found


def said_of(chains: GeneChains, theta: Theta, column: Tensor | None) -> Said:
    """Sum what the chains' sgRNA and gene tables say of the shared part, the gene x line table integrated out again.

    Unlike what `GeneChains.draw_dense` returns, this is after the genes' scales and deviations have moved.
    """
    structure, block = chains.structure, chains.block
    spread = variances(structure, theta, block)
    tau = 1.0 / spread.noise
    above = torch.zeros_like(chains.cell_count) if column is None else column
    shrink = torch.ones_like(tau * chains.cell_count)
    if spread.gene_line is not None:
        shrink = 1.0 / (1.0 + tau * spread.gene_line * chains.cell_count)
        above = above + _table(structure, ("gene", "line"), chains.deviations)
    left = chains.residual + chains.cell_count * above
    weight, rhs = (tau * shrink * chains.cell_count).sum(0).double(), (tau * shrink * left).sum(0).double()
    level = gene_level(spread, block)
    if level is None:
        return Said(weight, rhs, torch.zeros_like(rhs[0]), torch.zeros_like(rhs[0]))
    plates = next(p for p in (("gene",), ("sgrna",), ("gene", "lineage")) if structure.table(p))
    part = _table(structure, plates, chains.deviations)
    part = part[..., None] if plates == ("gene",) else part.transpose(1, 2)
    weights = level[1].expand_as(part)
    return Said(weight, rhs, weights.sum((0, 2)).double(), (part * weights).sum((0, 2)).double())


def _table(structure: Structure, plates: tuple[str, ...], deviations: Theta) -> Tensor:
    return reduce(add, [location.reach * deviations[location.name] for location in structure.table(plates)])


class StreamedChains:
    """Chains side by side over all blocks of a cell file.

    Parameters
    ----------
    structure, cells
        What is swept.
    random : callable
        `random(*keys)` makes a generator keyed to a purpose.
    state : ChainState
        Where the chains start.

    Attributes
    ----------
    state : ChainState
        Where they are.
    said : Said
        What all genes said of the shared locations in the last pass after which those were drawn.
    """

    def __init__(
        self, structure: Structure, cells: CellFile, random: Random, state: ChainState, said: Said | None = None
    ) -> None:
        self.structure, self.cells, self.random, self.state = structure, cells, random, state
        first = cells.skeleton(0)
        self.block = replace(first, data=first.data.double())
        self.own = [scale.name for scale in structure.scales if scale.plates == ("gene",)]
        self.shares = any(location.plates in SHARED for location in structure.locations)
        self.said = said
        # In units that many lines share, if there are few: then the gene x line table is integrated out.
        spread = variances(structure, _of_block(self.own, state.theta, first), first)
        with_levels = has_levels(spread) and len(cells.rows) <= MOST_LEVELS
        self.levels = cells.rows if with_levels else None

    def sweep(self, done: Callable[[int], None] = lambda _: None) -> None:
        """Make one pass, and draw what genes share."""
        state = self.state
        keyed = self.random("pass", state.passes, "swaps")
        for pairs in interchangeable(self.structure):
            state = replace(state, theta=swap(self.structure, state.theta, pairs, self.block, keyed))
        self.state = state
        column = shared_columns(self.structure, state.shared, self.block) if self.shares else None

        def of_block(number: int) -> Visit:
            block = self.cells[number]
            theta = _of_block(self.own, state.theta, block)
            random = self.random("pass", state.passes, "block", number)
            at = None if column is None else column.to(block.data.square)
            if self.levels is None:
                return visit(self.structure, block, theta, at, random)
            own, said, squares, left = visit_levels(self.structure, block, theta, at, self.levels, random)
            return Visit(own, said, left.residual.sum(0), squares, {}, left)

        out = [] if self.levels is None else [("gene", "line")]
        by_gene = {
            x.name: x.scale
            for x in self.structure.locations
            if x.plates not in (*SHARED, *out) and x.scale is not None and x.scale in self.own
        }
        cells = self.cells
        sums = PassSums(state.theta, self.own, by_gene, cells.n_genes, len(cells))
        with closing(in_threads(of_block, cells.mine, self.block.slot.device)) as visits:
            for number, (at, visited) in enumerate(zip(cells.mine, visits, strict=True)):
                sums.add(at, cells.skeleton(at).batch.gene_idx, visited)
                done(number + 1)
        self._draw_globals(sums.theta, sums.total(cells.workers))

    def _draw_globals(self, theta: Theta, total: Visit) -> None:
        """Draw what genes share from the sums of a pass: operations on [C, N] and [G, N], in float64.

        Chains go through it in groups, of which each worker takes some.
        """
        state, workers = self.state, self.cells.workers
        settles = self.shares and state.passes % 2 == 0

        def of_group(at: slice) -> tuple[Theta, Theta]:
            some = total.of_chains(at)
            wide = {name: value[..., at].double() for name, value in theta.items()}
            moves = _SharedMoves(self, some, wide, at)
            if settles:
                settle_shared(moves, wide, some.said, SHARED_MOVES)
            else:
                moves.move_scales(wide)
            return wide, moves.shared

        n_levels = 1 if total.left is None else len(total.left.rows)
        groups = groups_of_chains(next(iter(theta.values())).shape[-1], self.cells.n_genes * n_levels)
        mine = [groups[i] for i in workers.share(len(groups))]
        drawn = [{name: x.new_zeros(x.shape) for name, x in part.items()} for part in (theta, state.shared)]
        for at, found in zip(mine, in_threads(of_group, mine, self.block.slot.device), strict=True):
            for whole, part in zip(drawn, found, strict=True):
                for name, table in whole.items():
                    table[..., at] = part[name].to(table)
        workers.add_up(*drawn[0].values(), *drawn[1].values())
        self.said = total.said if settles else self.said
        self.state = ChainState(drawn[0], drawn[1], state.passes + 1)


def _of_block(own: Collection[str], theta: Theta, block: Block) -> Theta:
    return {name: value[block.batch.gene_idx] if name in own else value for name, value in theta.items()}


class _Sums:
    """A pass's sums in the place of the blocks that they were taken over."""

    def __init__(self, chains: StreamedChains, total: Visit, theta: Theta) -> None:
        self.structure, self.block, self._total, self._start = chains.structure, chains.block, total, theta
        self.own_scales = [scale for scale in chains.structure.scales if scale.plates == ("gene",)]
        self.cell_count = total.residual

    def residual_squares(self) -> Tensor:
        """Sum of the rows' squared residuals, shape [N]."""
        return self._total.residual

    def own_squares(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """Count and sum the squares of a location's standardised deviations by element of a scale."""
        assert location.scale is not None
        count, square = self._total.squares[location.name]
        plates = self.structure.site(location.scale).plates
        square = square * (2 * (self._start[location.scale] - theta[location.scale])).exp()
        count = count.expand_as(square)
        return sum_to(plates, scale.plates, count, self.block), sum_to(plates, scale.plates, square, self.block)

    def rows_terms(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """B and a of `rows_density` for a scale and one location that grows with it."""
        pull, weight = self._total.rows[scale.name, location.name]
        noise = self.structure.noise
        change = 1.0 if noise is None else (2 * (self._start[noise] - theta[noise])).exp()
        return pull * change, weight * change

    def stretch(self, scale: Scale, location: Location, shift: Tensor) -> None:
        """Do nothing: deviations do not outlive the pass, and no move comes after this one."""


class _SharedMoves(Sweeper):
    """The moves of what genes share, in some chains, given sums over all blocks.

    `shared` are the locations' deviations after them.

    One scale a pass moves along with deviations of genes, after all that move with the deviations held: what the rows
    say of another would have changed with it.
    """

    def __init__(self, chains: StreamedChains, total: Visit, theta: Theta, at: slice) -> None:
        passes = chains.state.passes
        super().__init__(
            chains.structure, [chains.block], lambda *keys: chains.random("pass", passes, "globals", at.start, *keys)
        )
        self.shared = {name: value[..., at] for name, value in chains.state.shared.items()}
        self.parts = [_Sums(chains, total, dict(theta))]  # type: ignore[list-item]
        self.genes = [torch.arange(chains.cells.n_genes, device=chains.block.slot.device)]
        self.n_rows = float(chains.cells.n_rows)
        self._turn, self._left = passes // 2, total.left
        # A block of all genes, for tables over them; it holds no cells of theirs.
        self._whole = replace(chains.block, batch=replace(chains.block.batch, gene_idx=self.genes[0]))

    def move_scales(self, theta: Theta) -> None:
        """Move every shared scale that is not drawn with the shared locations."""
        moved = [scale for scale in self.global_scales if scale not in self.collapsed]
        # The noise first: its squares are those before anything moved.
        for scale in sorted(moved, key=lambda scale: scale.name != self.structure.noise):
            family = children_of(self.structure, scale)
            if self._left is not None and self._concerns_leaf([scale]):
                self._move_leaf_out(theta, scale, [])
            elif self._left is not None and self._concerns_leaf(family):
                self._move_held(theta, scale, [scale], self._prior)
                self._move_leaf_out(theta, scale, family)
            elif scale.name == self.structure.noise:
                self._move_noise(theta, scale)
            else:
                self.move(theta, scale)
        with_rows = moved_with_rows(self.structure)
        if self._left is None and with_rows:
            scale, family, location = with_rows[self._turn % len(with_rows)]
            super()._move_with_rows(theta, scale, family, location, self._own_prior if family else self._prior)

    def _concerns_leaf(self, scales: Collection[Scale]) -> bool:
        """Whether the rows, or the gene x line table, have one of these for their scale."""
        users = [location.plates for scale in scales for location in users_of(self.structure, scale)]
        return ("gene", "line") in users or self.structure.noise in [scale.name for scale in scales]

    def _move_leaf_out(self, theta: Theta, scale: Scale, family: Collection[Scale]) -> None:
        """Move a scale, or one and the genes' scales below it by one factor, the gene x line table integrated out."""
        start, left = theta[scale.name], self._left
        assert left is not None
        prior = self._own_prior if family else self._prior

        def density(points: Tensor) -> Tensor:
            each = [of_point(x) for x in points.unbind(-2)]
            return prior(theta, scale, points) + torch.stack(each, -2)

        def of_point(x: Tensor) -> Tensor:
            at = {**theta, scale.name: x}
            at |= {child.name: theta[child.name] + (x - start) for child in family}
            leaf = table_variance(self.structure, ("gene", "line"), at, self._whole)
            noise = torch.full_like(x, self.structure.noise_factor)
            if self.structure.noise is not None:
                noise = noise * at[self.structure.noise].exp()
            return left.log_evidence(noise.square(), None if leaf is None else leaf[:, 0]).sum(0)

        for width in self._widths(scale):
            theta[scale.name] = slice_sample(density, theta[scale.name], self.generator, width=width)
        for child in family:
            theta[child.name] = theta[child.name] + (theta[scale.name] - start)

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        for width in self._widths(scale):
            self.noise_width = width
            super()._move_noise(theta, scale)

    def _widths(self, scale: Scale) -> tuple[float, ...]:
        """Widths of a scale's moves, one after another: from how far off it may be to how well it is known."""
        if scale.name != self.structure.noise:
            return (SCALE_WIDTH,)
        narrow = NOISE_SDS / math.sqrt(2 * self.n_rows)
        return (*(width for width in NOISE_WIDTHS if width > narrow), narrow)

    def _move_with_rows(self, *_: object) -> None:
        return
