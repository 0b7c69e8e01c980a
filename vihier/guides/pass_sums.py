"""Sums of one pass over all blocks, which any number of workers take together: the same bits whatever that number.

Blocks are added in their order within parts, of which there are as many whoever takes them, and the parts in theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import Theta
from vihier.guides.gene_chains import Said
from vihier.guides.level_chains import Left
from vihier.guides.row_sums import RowSums
from vihier.guides.sgrna_spread import SgrnaSums
from vihier.inference.workers import Workers

PARTS = 64
"""Parts of a pass, where there are as many blocks: workers have whole parts."""


@dataclass(frozen=True)
class Visit:
    """What a visit leaves behind: the genes' own scales, and sums over the block in float64.

    `said` is what the block's sgRNA and gene tables say of the shared part of each line's mean; `residual` [N] the sum
    of the rows' squared residuals; `squares` counts and sums the squared standardised deviations of each location of
    genes by the elements of its scale; `rows` what the rows say of moving a shared scale along with the deviations
    that it scales (`vihier.guides.scale_densities.rows_density`). `left`, where the block was visited with its gene x
    line table integrated out, is what stands for `residual` and `rows` then. `of_rows` is of rows that are not Normal
    with one noise scale. `sgrnas` is what scales shared by sgRNAs and by genes are drawn from together.
    """

    own: Theta
    said: Said
    residual: Tensor
    squares: dict[str, tuple[Tensor, Tensor]]
    rows: dict[tuple[str, str], tuple[Tensor, Tensor]]
    left: Left | None = None
    of_rows: RowSums | None = None
    sgrnas: SgrnaSums | None = None

    @property
    def gene_tables(self) -> dict[str, list[Tensor]]:
        """Return the tables of `left` and `sgrnas` that have a row for each gene."""
        left, sgrnas = self.left, self.sgrnas
        of_left = {} if left is None else {"left": [left.lines, left.square, left.residual]}
        return of_left if sgrnas is None else of_left | {"sgrnas": [sgrnas.number, sgrnas.mean, sgrnas.square]}

    def of_chains(self, at: slice) -> Visit:
        """Return what is left behind of some chains."""
        left = self.left
        return Visit(
            {name: value[..., at] for name, value in self.own.items()},
            Said(*(value[..., at] for value in vars(self.said).values())),
            self.residual[..., at],
            # Numbers of elements are those of all chains.
            {name: (number[..., :1], square[..., at]) for name, (number, square) in self.squares.items()},
            {key: (pull[..., at], weight[..., at]) for key, (pull, weight) in self.rows.items()},
            left and replace(left, square=left.square[..., at], residual=left.residual[..., at]),
            self.of_rows and self.of_rows.of_chains(at),
            self.sgrnas and self.sgrnas.of_draws(at),
        )


def part_of(number: int, n_blocks: int) -> int:
    """Return the part that a block is in.

    Examples
    --------
    >>> [part_of(number, 3) for number in range(3)], part_of(281, 282)
    ([0, 1, 2], 63)
    """
    return number * min(PARTS, n_blocks) // n_blocks


def blocks_of_worker(workers: Workers, n_blocks: int) -> list[int]:
    """Return the blocks of a worker's parts, in order."""
    mine = workers.share(min(PARTS, n_blocks))
    return [number for number in range(n_blocks) if part_of(number, n_blocks) in mine]


class PassSums:
    """What the visits of a pass leave behind, put together.

    Parameters
    ----------
    theta : dict
        Log-scales of the screen at the start of the pass.
    own : collection of str
        The genes' own scales.
    by_gene : mapping of str to str
        Locations whose squares are kept by gene, and their scales.
    n_genes, n_blocks : int
        Of the screen.
    """

    def __init__(
        self, theta: Theta, own: Collection[str], by_gene: Mapping[str, str], n_genes: int, n_blocks: int
    ) -> None:
        self.theta = {
            name: value.new_zeros(value.shape) if name in own else value.clone() for name, value in theta.items()
        }
        self.own = [name for name in theta if name in own]
        shapes = {name: theta[scale].double() for name, scale in by_gene.items()}
        self.by_gene = {name: (x.new_zeros(x.shape), x.new_zeros(x.shape)) for name, x in shapes.items()}
        self.n_genes, self.n_blocks = n_genes, n_blocks
        self._tables: dict[str, list[Tensor]] = {}
        self._like: Visit | None = None
        self._parts = torch.zeros(0)

    def add(self, number: int, genes: Tensor, visited: Visit) -> None:
        """Add the visit of a block of these genes; a worker's blocks come in order."""
        for name in self.own:
            self.theta[name][genes] = visited.own[name].to(self.theta[name])
        for name, table in self.by_gene.items():
            for whole, part in zip(table, visited.squares[name], strict=True):
                whole[genes] = part.double().expand_as(whole[genes])
        for name, tables in visited.gene_tables.items():
            if name not in self._tables:
                self._tables[name] = [x.new_zeros(self.n_genes, *x.shape[1:]) for x in tables]
            for whole, part in zip(self._tables[name], tables, strict=True):
                whole[genes] = part
        flat = torch.cat([x.reshape(-1).double() for x in self._pieces(visited)])
        if self._like is None:
            self._like, self._parts = visited, flat.new_zeros(min(PARTS, self.n_blocks), len(flat))
        self._parts[part_of(number, self.n_blocks)] += flat

    def _pieces(self, visited: Visit) -> Iterator[Tensor]:
        yield from vars(visited.said).values()
        yield visited.residual
        for name, pair in visited.squares.items():
            if name not in self.by_gene:
                yield from pair
        for pair in visited.rows.values():
            yield from pair
        if visited.of_rows is not None:
            yield from vars(visited.of_rows).values()

    def total(self, workers: Workers) -> Visit:
        """Put the workers' sums together; `theta` gets the scales of all genes."""
        assert self._like is not None
        tables = [table for some in (*self.by_gene.values(), *self._tables.values()) for table in some]
        workers.add_up(self._parts, *(self.theta[name] for name in self.own), *tables)
        flat = reduce(add, self._parts)
        like = list(self._pieces(self._like))
        sums = iter([x.reshape(y.shape) for x, y in zip(flat.split([y.numel() for y in like]), like, strict=True)])
        said = Said(*(next(sums) for _ in vars(self._like.said)))
        residual = next(sums)
        squares = {name: (next(sums), next(sums)) for name in self._like.squares if name not in self.by_gene}
        rows = {key: (next(sums), next(sums)) for key in self._like.rows}
        of_rows = self._like.of_rows and RowSums(*(next(sums) for _ in vars(self._like.of_rows)))
        left = self._like.left and Left(self._like.left.rows, *self._tables["left"])
        sgrnas = self._like.sgrnas and SgrnaSums(*self._tables["sgrnas"])
        return Visit({}, said, residual, squares | self.by_gene, rows, left, of_rows, sgrnas)
