"""Rows of any design, each of a precision of its own in each draw; sums as those of `vihier.kernels.design`.

Rows of one gene whose designs are all the same are summed first, into cells, and cells that differ by their sgRNA alone
into units: most of what follows is of units. Sums are in the precision that `CellDesign` has. Tables that add up to
each other (batches to their screen) leave directions of which rows say exactly nothing, and double precision alone says
so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from vihier.kernels.design import Eliminated, Rest, Said
from vihier.kernels.rows import ROW_DTYPE


class Entry(NamedTuple):
    """Which column of a table each cell or unit is in, int64, and its design there."""

    column: Tensor
    value: Tensor

    def to(self, dtype: torch.dtype) -> Entry:
        """Return the same in another precision."""
        return Entry(self.column, self.value.to(dtype))


class LocalEntry(NamedTuple):
    """Entries of one table of d: of the cells, [m], where it is over sgRNAs, else of the units, [q]."""

    of_cells: bool
    entry: Entry


class _Sum(NamedTuple):
    """A sum over cells or units, of `value` times what they hold, to elements `to` of a table."""

    of_cells: bool
    to: Tensor
    value: Tensor


@dataclass(frozen=True)
class CellDesign:
    """The cells of a block of genes.

    Attributes
    ----------
    unit, lengths : Tensor
        Which unit each cell is in, int64, ascending, [m], and how many cells each has, [q].
    gene, line : Tensor
        Of each unit, int64, [q].
    local : tuple of LocalEntry
        Of d, one for each table.
    leaf : Tensor
        z of each unit, [q].
    columns : Tensor
        Which of u the rows of each line have, [C, s].
    kinds : tuple of Entry
        Rows of a line move alike with some of its s columns (those of the line, its lineage, all lines): which of its
        kinds, up to r, each unit has, and the unit's design there.
    kind_of_column : Tensor
        Kind of each of a line's columns, int64, [C, s]; r where there are fewer.
    n_genes, size, n_shared, n_kinds : int
        B, D, P and r.
    by_line : bool
        Whether all rows of a line are in the same elements of u.
    """

    unit: Tensor
    lengths: Tensor
    gene: Tensor
    line: Tensor
    local: tuple[LocalEntry, ...]
    leaf: Tensor
    columns: Tensor
    kinds: tuple[Entry, ...]
    kind_of_column: Tensor
    n_genes: int
    size: int
    n_shared: int
    n_kinds: int
    by_line: bool

    def to(self, dtype: torch.dtype) -> CellDesign:
        """Return the same with sums in another precision."""
        return replace(
            self,
            local=tuple(LocalEntry(of_cells, entry.to(dtype)) for of_cells, entry in self.local),
            leaf=self.leaf.to(dtype),
            kinds=tuple(entry.to(dtype) for entry in self.kinds),
        )

    @property
    def n_lines(self) -> int:
        """C."""
        return len(self.columns)

    @cached_property
    def pair(self) -> Tensor:
        """Which pair of a gene and a line each unit is in, [q]."""
        return self.gene * self.n_lines + self.line

    @cached_property
    def of_pairs(self) -> bool:
        """Whether each pair of a gene and a line is one unit, whose z is 1: its rows differ by their sgRNA alone.

        Sums over pairs, z x and z y, are then all that is asked of rows.
        """
        return len(self.pair.unique()) == len(self.pair) and bool((self.leaf == 1).all())

    @cached_property
    def of_genes(self) -> tuple[tuple[int, Tensor], ...]:
        """Where units are pairs, the columns that are a gene's own: which of d, and the pairs' designs, [B, C]."""
        found = []
        for of_cells, (column, value) in self.local if self.of_pairs else ():
            if not of_cells and len(column) and bool((column == column[0]).all()):
                design = value.new_zeros(self.n_genes * self.n_lines).index_copy_(0, self.pair, value)
                found.append((int(column[0]), design.unflatten(0, (self.n_genes, self.n_lines))))
        return tuple(found)

    def _of(self, of_cells: bool, units: Tensor) -> Tensor:
        return units[self.unit] if of_cells else units

    @cached_property
    def to_d(self) -> tuple[_Sum, ...]:
        """Sums to the genes' columns, B x D."""
        return tuple(
            _Sum(of_cells, self._of(of_cells, self.gene) * self.size + entry.column, entry.value[:, None])
            for of_cells, entry in self.local
        )

    @cached_property
    def to_cross(self) -> tuple[_Sum, ...]:
        """Sums of z x, to B x C x D."""
        return tuple(
            _Sum(
                of_cells,
                self._of(of_cells, self.pair) * self.size + entry.column,
                (self._of(of_cells, self.leaf) * entry.value)[:, None],
            )
            for of_cells, entry in self.local
        )

    @cached_property
    def to_gram(self) -> tuple[_Sum, ...]:
        """Sums of x x', to the lower triangle of B x D x D, but for `of_genes`.

        A table's columns come after those of the ones before.
        """
        sums = []
        known = {column for column, _ in self.of_genes}

        def is_known(entry: Entry) -> bool:
            return bool(known) and int(entry.column[0]) in known

        for i, (of_cells, entry) in enumerate(self.local):
            for other_of_cells, other in self.local[: i + 1]:
                if is_known(entry) or is_known(other):
                    continue
                both = of_cells or other_of_cells
                gene = self._of(both, self.gene)
                mine, its = (
                    Entry(*(x if level == both else self._of(True, x) for x in of_level))
                    for level, of_level in ((of_cells, entry), (other_of_cells, other))
                )
                at = (gene * self.size + mine.column) * self.size + its.column
                sums.append(_Sum(both, at, (mine.value * its.value)[:, None]))
        return tuple(sums)

    @cached_property
    def kind_of_line(self) -> tuple[Tensor, ...]:
        """Which of the kinds of all lines each unit has, C x (r + 1), for each of `kinds`."""
        return tuple(self.line * (self.n_kinds + 1) + kind for kind, _ in self.kinds)

    def weigh(self, precision: Tensor, weighted: Tensor) -> WeightedDesign:
        """Take the sums of the cells' precisions, and of precision times value, [m, N]."""
        return WeightedDesign(self, precision.to(self.leaf), weighted.to(self.leaf))

    def to_units(self, cells: Tensor) -> Tensor:
        """Sum what cells hold, [m, N], to units, [q, N]."""
        return torch.segment_reduce(cells, "sum", lengths=self.lengths, axis=0)

    def add_up(self, sums: tuple[_Sum, ...], cells: Tensor, units: Tensor, size: int) -> Tensor:
        """Add up sums over what cells, [m, N], and units, [q, N], hold, to [size, N]."""
        found = units.new_zeros(size, units.shape[1])
        for of_cells, to, value in sums:
            found.index_add_(0, to, value * (cells if of_cells else units))
        return found

    def fitted(self, dense: Tensor, leaf: Tensor, shared: Tensor | None) -> Tensor:
        """Return what d, [B, D, N], e, [B, C, N], and u, [P, N], predict of each cell, [m, N]."""
        flat = dense.to(ROW_DTYPE).flatten(0, 1)
        units = self.leaf[:, None] * leaf.flatten(0, 1).index_select(0, self.pair)
        units = units if shared is None else units + self.of_shared(shared)
        units = units.to(ROW_DTYPE)
        self._add_dense(units, flat, False)
        cells = units.index_select(0, self.unit)
        self._add_dense(cells, flat, True)
        return cells

    def _add_dense(self, to: Tensor, flat: Tensor, of_cells: bool) -> None:
        """Add x' d of the tables of cells, or of units, to what these hold; `flat` is [B D, N]."""
        for level, at, value in self.to_d:
            if level == of_cells:
                to.addcmul_(flat.index_select(0, at), value)

    def of_shared(self, shared: Tensor) -> Tensor:
        """W' u of each unit, [q, N]."""
        n_draws, width = shared.shape[1], self.n_kinds + 1
        padded = torch.cat([shared, shared.new_zeros(1, n_draws)])
        lines = torch.arange(self.n_lines, device=shared.device)[:, None] * width
        of_kinds = shared.new_zeros(self.n_lines * width, n_draws)
        of_kinds.index_add_(0, (lines + self.kind_of_column).reshape(-1), padded[self.columns.reshape(-1)])
        found = shared.new_zeros(len(self.gene), n_draws)
        for at, (_, value) in zip(self.kind_of_line, self.kinds, strict=True):
            found.addcmul_(of_kinds.index_select(0, at), value[:, None])
        return found

    def to_leaf(self, units: Tensor) -> Tensor:
        """Sum z times what units hold: [B, C, N]."""
        found = units.new_zeros(self.n_genes * self.n_lines, units.shape[1])
        found.index_add_(0, self.pair, self.leaf[:, None] * units)
        return found.unflatten(0, (self.n_genes, self.n_lines))


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
        self.of_units = cells.to_units(precision), cells.to_units(weighted)
        units = self.of_units[0]
        n_genes, size, n_lines = cells.n_genes, cells.size, cells.n_lines
        products = cells.add_up(cells.to_gram, precision, units, n_genes * size * size)
        cross = cells.add_up(cells.to_cross, precision, units, n_genes * n_lines * size)
        self.leaf_cross = cross.unflatten(0, (n_genes, n_lines, size))
        lower = products.unflatten(0, (n_genes, size, size)).permute(0, 3, 1, 2)
        self.products = (lower + lower.tril(-1).mT).contiguous()
        for column, design in cells.of_genes:
            with_column = (self.leaf_cross * design[:, :, None, None]).sum(1).mT
            self.products[..., column] = self.products[..., column, :] = with_column
        self._leaf_weight = cells.to_leaf(cells.leaf[:, None] * units)

    def double(self) -> WeightedDesign:
        """Sum the same rows in double precision."""
        return WeightedDesign(self.cells.to(torch.float64), self.precision.double(), self.weighted.double())

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
        crossed = self.leaf_cross.permute(0, 3, 1, 2).contiguous()
        return (crossed * pooled.mT[..., None]).mT @ crossed

    def gram_times(self, dense: Tensor, at: slice) -> Tensor:
        """X x' d, [B, D, N], for some columns of d."""
        return (self.products[..., at] @ dense.mT[..., None])[..., 0].mT

    def to_leaf(self, dense: Tensor, at: slice) -> Tensor:
        """Z x' d of each line, [B, C, N], for some columns of d."""
        found = self.leaf_cross.new_zeros(self._leaf_weight.shape)
        for of_column, value in zip(self.leaf_cross[:, :, at].unbind(2), dense.unbind(1), strict=True):
            found.addcmul_(of_column, value[:, None])
        return found

    def to_dense(self, leaf: Tensor) -> Tensor:
        """X z e, [B, D, N]."""
        return (self.leaf_cross * leaf[:, :, None]).sum(1)

    def rest(self, shared: Tensor | None, n_draws: int) -> Rest:
        """Take u, [P, N], off the rows."""
        cells, left, (precision, of_units) = self.cells, self.weighted, self.of_units
        if shared is not None:
            fitted = cells.of_shared(shared)
            if cells.of_pairs:
                table = fitted.new_zeros(cells.n_genes * cells.n_lines, n_draws).index_copy_(0, cells.pair, fitted)
                of_pairs = table.unflatten(0, (cells.n_genes, cells.n_lines))
                whole = self.whole
                return Rest(whole.dense - self.to_dense(of_pairs), whole.leaf - self._leaf_weight * of_pairs)
            of_units = of_units - precision * fitted
            left = torch.addcmul(left, self.precision, fitted.index_select(0, cells.unit), value=-1)
        dense = cells.add_up(cells.to_d, left, of_units, cells.n_genes * cells.size)
        return Rest(dense.unflatten(0, (cells.n_genes, cells.size)), cells.to_leaf(of_units))

    @cached_property
    def whole(self) -> Rest:
        """What u leaves of the rows where it is zero."""
        return self.rest(None, self.precision.shape[1])

    def said(self, given: Eliminated, tau: Tensor, dense: Tensor) -> Said:
        """Sum what the rows say of u given d; `tau` is 1."""
        cells, n_draws = self.cells, dense.shape[2]
        n_lines, n_genes, width = cells.n_lines, cells.n_genes, cells.n_kinds + 1  # the last kind is empty
        left = self._left_of_dense(dense)
        rhs = left.new_zeros(n_lines * width, n_draws)
        gram = left.new_zeros(n_lines * width * width, n_draws)
        by_line = left.new_zeros(n_lines * n_genes * width, n_draws)
        pair = (cells.line * n_genes + cells.gene) * width
        for i, ((kind, value), at_kind) in enumerate(zip(cells.kinds, cells.kind_of_line, strict=True)):
            rhs.index_add_(0, at_kind, value[:, None] * left)
            scaled = value[:, None] * self.of_units[0]
            by_line.index_add_(0, pair + kind, cells.leaf[:, None] * scaled)
            for j, (other, other_value) in enumerate(cells.kinds[: i + 1]):
                both = other_value[:, None] * scaled
                gram.index_add_(0, at_kind * width + other, both)
                if j < i:
                    gram.index_add_(0, cells.kind_of_line[j] * width + kind, both)
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

    def _left_of_dense(self, dense: Tensor) -> Tensor:
        """Take x' d off the units, [q, N], whose values are precision times value."""
        if self.cells.of_pairs:
            of_pairs = self.whole.leaf - self.to_leaf(dense, slice(None))
            return of_pairs.flatten(0, 1).index_select(0, self.cells.pair)
        cells, flat, (precision, left) = self.cells, dense.flatten(0, 1), self.of_units
        units = torch.zeros_like(precision)
        cells._add_dense(units, flat, False)
        left = left - precision * units
        if any(of_cells for of_cells, _ in cells.local):
            inner = torch.zeros_like(self.precision)
            cells._add_dense(inner, flat, True)
            left = left - cells.to_units(self.precision * inner)
        return left
