"""Rows of any design, each of a precision of its own in each draw; sums as those of `vihier.kernels.design`.

Rows of one gene and line whose designs are the same are summed first, into cells. Sums are in double precision: tables
that add up to each other (batches to their screen) leave directions of which rows say exactly nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vihier.kernels.design import Eliminated, Rest, Said
from vihier.kernels.rows import ROW_DTYPE


class Entry(NamedTuple):
    """Which column of a table each cell is in, int64, [m], and the cell's design there, [m]."""

    column: Tensor
    value: Tensor


@dataclass(frozen=True)
class CellDesign:
    """The cells of a block of genes.

    Attributes
    ----------
    cell : Tensor
        Which cell each row is in, int64, [n].
    gene, line : Tensor
        Of each cell, int64, [m].
    local, shared : tuple of Entry
        Of d and of u, one for each table.
    leaf : Tensor
        z of each cell, [m].
    columns : Tensor
        Which of u the rows of each line have, [C, s].
    kinds : tuple of Entry
        Rows of a line move alike with some of its s columns (those of the line, its lineage, all lines): which of its
        kinds, up to r, each cell has, and the cell's design there.
    kind_of_column : Tensor
        Kind of each of a line's columns, int64, [C, s]; r where there are fewer.
    n_genes, size, n_shared, n_kinds : int
        B, D, P and r.
    """

    cell: Tensor
    gene: Tensor
    line: Tensor
    local: tuple[Entry, ...]
    shared: tuple[Entry, ...]
    leaf: Tensor
    columns: Tensor
    kinds: tuple[Entry, ...]
    kind_of_column: Tensor
    n_genes: int
    size: int
    n_shared: int
    n_kinds: int

    def weigh(self, precision: Tensor, weighted: Tensor) -> WeightedDesign:
        """Sum rows of given precision, and precision times value, [n, N]."""
        zeros = self.leaf.new_zeros(len(self.gene), precision.shape[1])
        precision, weighted = precision.to(zeros), weighted.to(zeros)
        return WeightedDesign(self, zeros.index_add(0, self.cell, precision), zeros.index_add(0, self.cell, weighted))

    def fitted(self, dense: Tensor, leaf: Tensor, shared: Tensor | None) -> Tensor:
        """Return what d, [B, D, N], e, [B, C, N], and u, [P, N], predict of each row, [n, N]."""
        found = self.of_dense(dense) + self.leaf[:, None] * leaf[self.gene, self.line]
        found = found if shared is None else found + self.of_shared(shared)
        return found.to(ROW_DTYPE).index_select(0, self.cell)

    def of_dense(self, dense: Tensor) -> Tensor:
        """X' d of each cell, [m, N]."""
        flat, found = (
            dense.to(ROW_DTYPE).flatten(0, 1),
            dense.new_zeros(len(self.gene), dense.shape[2], dtype=ROW_DTYPE),
        )
        for column, value in self.local:
            found.addcmul_(flat.index_select(0, self.gene * self.size + column), value[:, None])
        return found

    def of_shared(self, shared: Tensor) -> Tensor:
        """W' u of each cell, [m, N]."""
        found = shared.new_zeros(len(self.gene), shared.shape[1])
        for column, value in self.shared:
            found.addcmul_(shared.index_select(0, column), value[:, None])
        return found

    def to_dense(self, cells: Tensor) -> Tensor:
        """Sum x times what cells hold, [m, N], over cells: [B, D, N]."""
        found = cells.new_zeros(self.n_genes * self.size, cells.shape[1])
        for column, value in self.local:
            found.index_add_(0, self.gene * self.size + column, value[:, None] * cells)
        return found.unflatten(0, (self.n_genes, self.size))

    def to_leaf(self, cells: Tensor) -> Tensor:
        """Sum z times what cells hold: [B, C, N]."""
        n_lines = len(self.columns)
        found = cells.new_zeros(self.n_genes * n_lines, cells.shape[1])
        found.index_add_(0, self.gene * n_lines + self.line, self.leaf[:, None] * cells)
        return found.unflatten(0, (self.n_genes, n_lines))


class WeightedDesign:
    """Sums of products over the rows of a block in N draws; see `vihier.kernels.design.DesignSums`.

    Parameters
    ----------
    cells : CellDesign
    precision, weighted : Tensor
        Sums of the precisions, and of precision times value, of each cell's rows, [m, N].
    """

    def __init__(self, cells: CellDesign, precision: Tensor, weighted: Tensor) -> None:
        self.cells, self.precision, self.weighted = cells, precision, weighted
        n_draws, size, n_lines = precision.shape[1], cells.size, len(cells.columns)
        products = precision.new_zeros(cells.n_genes * size * size, n_draws)
        cross = precision.new_zeros(cells.n_genes * n_lines * size, n_draws)
        in_line = (cells.gene * n_lines + cells.line) * size
        for i, (column, value) in enumerate(cells.local):
            scaled = value[:, None] * precision
            cross.index_add_(0, in_line + column, cells.leaf[:, None] * scaled)
            row = (cells.gene * size + column) * size
            for other, other_value in cells.local[: i + 1]:
                products.index_add_(0, row + other, other_value[:, None] * scaled)
        lower = products.unflatten(0, (cells.n_genes, size, size)).permute(0, 3, 1, 2)
        # A table's columns come after those of the tables before it, so that only the lower triangle is filled.
        self.products = lower + lower.tril(-1).mT
        self.leaf_cross = cross.unflatten(0, (cells.n_genes, n_lines, size)).permute(0, 3, 1, 2)
        self._leaf_weight = cells.to_leaf(cells.leaf[:, None] * precision)

    @property
    def leaf_weight(self) -> Tensor:
        """z^2 of each line, [B, C, N]."""
        return self._leaf_weight

    def gram(self, n_draws: int) -> Tensor:
        """X x', [B, N, D, D]."""
        return self.products

    def diagonal(self, at: slice) -> Tensor:
        """Return the diagonal of that, [B, columns, N]."""
        return self.products.diagonal(dim1=-2, dim2=-1)[..., at].mT

    def pool(self, pooled: Tensor, same: bool) -> Tensor:
        """Sum s (z x) (z x)' over lines."""
        return (self.leaf_cross * pooled.mT[..., None]).mT @ self.leaf_cross

    def gram_times(self, dense: Tensor, at: slice) -> Tensor:
        """X x' d, [B, D, N], for some columns of d."""
        return (self.products[..., at] @ dense.mT[..., None])[..., 0].mT

    def to_leaf(self, dense: Tensor, at: slice) -> Tensor:
        """Z x' d of each line, [B, C, N], for some columns of d."""
        return (self.leaf_cross[..., at] @ dense.mT[..., None])[..., 0].mT

    def to_dense(self, leaf: Tensor) -> Tensor:
        """X z e, [B, D, N]."""
        return (self.leaf_cross.mT @ leaf.mT[..., None])[..., 0].mT

    def rest(self, shared: Tensor | None, n_draws: int) -> Rest:
        """Take u, [P, N], off the rows."""
        left = self.weighted if shared is None else self.weighted - self.precision * self.cells.of_shared(shared)
        return Rest(self.cells.to_dense(left), self.cells.to_leaf(left))

    def said(self, given: Eliminated, tau: Tensor, dense: Tensor) -> Said:
        """Sum what the rows say of u given d; `tau` is 1."""
        cells, n_draws = self.cells, dense.shape[2]
        n_lines, n_genes, width = len(cells.columns), cells.n_genes, cells.n_kinds + 1  # the last kind is empty
        left = self.weighted - self.precision * cells.of_dense(dense)
        rhs = left.new_zeros(n_lines * width, n_draws)
        gram = left.new_zeros(n_lines * width * width, n_draws)
        by_line = left.new_zeros(n_lines * n_genes * width, n_draws)
        pair = (cells.line * n_genes + cells.gene) * width
        for i, (kind, value) in enumerate(cells.kinds):
            rhs.index_add_(0, cells.line * width + kind, value[:, None] * left)
            scaled = value[:, None] * self.precision
            by_line.index_add_(0, pair + kind, cells.leaf[:, None] * scaled)
            for j, (other, other_value) in enumerate(cells.kinds[: i + 1]):
                both = other_value[:, None] * scaled
                gram.index_add_(0, (cells.line * width + kind) * width + other, both)
                if j < i:
                    gram.index_add_(0, (cells.line * width + other) * width + kind, both)
        crossed = by_line.unflatten(0, (n_lines, n_genes, width)).permute(3, 0, 1, 2)
        pooled = given.pooled.permute(2, 1, 0)
        weighted = crossed.mT * pooled[:, :, None]
        leaf_left = cells.to_leaf(left).permute(2, 1, 0)
        precision = gram.unflatten(0, (n_lines, width, width)).permute(3, 0, 1, 2) - weighted @ crossed
        of_lines = rhs.unflatten(0, (n_lines, width)).permute(2, 0, 1) - (weighted @ leaf_left[..., None])[..., 0]
        at, lines = cells.kind_of_column, torch.arange(n_lines, device=left.device)[:, None]
        total = left.new_zeros(cells.n_shared + 1, n_draws)
        total.index_add_(0, cells.columns.reshape(-1), of_lines[:, lines, at].flatten(1).T)
        return Said(precision[:, lines[..., None], at[:, :, None], at[:, None]], total[: cells.n_shared])
