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

import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, variances
from vihier.guides.cell_file import CellFile
from vihier.guides.deviations import gene_level, shared_columns
from vihier.guides.draw_groups import groups_of_chains
from vihier.guides.gene_chains import GeneChains, Said
from vihier.guides.interchange import interchangeable, swap
from vihier.guides.level_chains import visit_levels
from vihier.guides.pass_sums import PassSums, Visit
from vihier.guides.settle_shared import settle_shared
from vihier.guides.sgrna_spread import sums_to_leave
from vihier.guides.streamed_moves import SharedMoves, moved_with_rows
from vihier.guides.structure import Structure
from vihier.inference.threads import in_threads
from vihier.kernels.levels import MOST_LEVELS, has_levels

if TYPE_CHECKING:
    from vihier.guides.streamed_rows import StreamedRows

Random = Callable[..., torch.Generator]
# Draws of what is shared after a pass: scales of few lines forget slowly.
SHARED_MOVES = 6
SHIFT = ""
"""Stands among the shared locations for how far all genes have shifted against them."""


@dataclass(frozen=True)
class ChainState:
    """All that lives between passes: log-scales of the screen, and deviations of the shared locations; chains last.

    `moved` [C, N], where genes' locations live on too, is how far each line's mean has moved since they were drawn.
    """

    theta: Theta
    shared: Theta
    passes: int = 0
    moved: Tensor | None = None


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
    said, squares = said_of(chains, theta, column), squares_by_scale(chains, theta)
    own = {scale.name: theta[scale.name] for scale in chains.own_scales}
    rows = {}
    for scale, _, location in moved_with_rows(structure):
        pull, weight = chains.rows_terms(theta, scale, location)
        rows[scale.name, location.name] = pull.double(), weight.double()
    sgrnas = sums_to_leave(structure, chains)
    return Visit(own, said, chains.residual_squares().double(), squares, rows, sgrnas=sgrnas)


def squares_by_scale(chains: GeneChains, theta: Theta) -> dict[str, tuple[Tensor, Tensor]]:
    """Count and sum the squares of the standardised deviations of each location of genes that has a scale."""
    squares = {}
    for location in chains.structure.locations:
        if location.plates in SHARED or location.scale is None:
            continue
        count, square = chains.own_squares(theta, chains.structure.scale(location.scale), location)
        squares[location.name] = count.double(), square.double()
    return squares


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
    rows : StreamedRows, optional
        Visits the blocks, where rows are not Normal with one noise scale.

    Attributes
    ----------
    state, seen : ChainState
        Where they are, and where they were when the blocks were last visited.
    said : Said
        What all genes said of the shared locations in the last pass after which those were drawn.
    visiting : float
        Seconds that the visits of the last pass took.
    """

    def __init__(
        self,
        structure: Structure,
        cells: CellFile,
        random: Random,
        state: ChainState,
        said: Said | None = None,
        rows: StreamedRows | None = None,
    ) -> None:
        self.structure, self.cells, self.random, self.state, self.rows = structure, cells, random, state, rows
        first = cells.skeleton(0)
        self.block = replace(first, data=first.data.double())
        self.own = [scale.name for scale in structure.scales if scale.plates == ("gene",)]
        self.shares = any(location.plates in SHARED for location in structure.locations)
        self.said, self.visiting = said, 0.0
        # In units that many lines share, if there are few: then the gene x line table is integrated out.
        spread = variances(structure, _of_block(self.own, state.theta, first), first)
        with_levels = has_levels(spread) and len(cells.rows) <= MOST_LEVELS
        self.levels = cells.rows if with_levels and rows is None else None

    def sweep(self, done: Callable[[int], None] = lambda _: None) -> None:
        """Make one pass, and draw what genes share."""
        state = self.state
        keyed = self.random("pass", state.passes, "swaps")
        for pairs in interchangeable(self.structure):
            state = replace(state, theta=swap(self.structure, state.theta, pairs, self.block, keyed))
        self.state = self.seen = state
        settles = self.shares and state.passes % 2 == 0
        if self.rows is not None:
            self.rows.begin(state, settles, self.random("pass", state.passes, "points"))
        column = shared_columns(self.structure, state.shared, self.block) if self.shares else None

        def of_block(number: int) -> Visit:
            block = self.cells[number]
            theta = _of_block(self.own, state.theta, block)
            random = self.random("pass", state.passes, "block", number)
            at = None if column is None else column.to(block.data.square)
            if self.rows is not None:
                return self.rows.visit(number, block, theta, at, random)
            if self.levels is None:
                return visit(self.structure, block, theta, at, random)
            own, said, squares, left, sgrnas = visit_levels(self.structure, block, theta, at, self.levels, random)
            return Visit(own, said, left.residual.sum(0), squares, {}, left, sgrnas=sgrnas)

        out = [] if self.levels is None else [("gene", "line")]
        by_gene = {
            x.name: x.scale
            for x in self.structure.locations
            if x.plates not in (*SHARED, *out) and x.scale is not None and x.scale in self.own
        }
        if self.rows is not None and settles:
            by_gene = {}
        cells = self.cells
        sums = PassSums(state.theta, self.own, by_gene, cells.n_genes, len(cells))
        begin = time.perf_counter()
        with closing(in_threads(of_block, cells.mine, self.block.slot.device)) as visits:
            for number, (at, visited) in enumerate(zip(cells.mine, visits, strict=True)):
                sums.add(at, cells.skeleton(at).batch.gene_idx, visited)
                done(number + 1)
        self.visiting = time.perf_counter() - begin
        self._draw_globals(sums.theta, sums.total(cells.workers), settles)
        if self.rows is not None:
            self.rows.end()

    def _draw_globals(self, theta: Theta, total: Visit, settles: bool) -> None:
        """Draw what genes share from the sums of a pass: operations on [C, N] and [G, N], in float64.

        Chains go through it in groups, of which each worker takes some.
        """
        state, workers = self.state, self.cells.workers

        def of_group(at: slice) -> tuple[Theta, Theta]:
            some = total.of_chains(at)
            wide = {name: value[..., at].double() for name, value in theta.items()}
            moves = SharedMoves(self, some, wide, at)
            if settles:
                shift = settle_shared(moves, wide, some.said, SHARED_MOVES)
                return wide, moves.shared if self.rows is None else {**moves.shared, SHIFT: shift}
            moves.move_scales(wide)
            return wide, moves.shared

        n_levels = 1 if total.left is None else len(total.left.rows)
        groups = groups_of_chains(next(iter(theta.values())).shape[-1], self.cells.n_genes * n_levels)
        mine = [groups[i] for i in workers.share(len(groups))]
        drawn = [{name: x.new_zeros(x.shape) for name, x in part.items()} for part in (theta, state.shared)]
        if self.rows is not None and settles:
            drawn[1][SHIFT] = total.residual.new_zeros(total.residual.shape)
        for at, found in zip(mine, in_threads(of_group, mine, self.block.slot.device), strict=True):
            for whole, part in zip(drawn, found, strict=True):
                for name, table in whole.items():
                    table[..., at] = part[name].to(table)
        workers.add_up(*drawn[0].values(), *drawn[1].values())
        self.said = total.said if settles else self.said
        moved, shift = None, drawn[1].pop(SHIFT, None)
        if shift is not None:
            before, after = (shared_columns(self.structure, x, self.block) for x in (state.shared, drawn[1]))
            assert before is not None and after is not None
            moved = after.double() - before.double() + shift
        self.state = ChainState(drawn[0], drawn[1], state.passes + 1, moved)


def _of_block(own: Collection[str], theta: Theta, block: Block) -> Theta:
    return {name: value[block.batch.gene_idx] if name in own else value for name, value in theta.items()}
