"""A gene block of a program whose rows have covariates, or tables beyond those of `vihier.kernels.elimination`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, make_block, table_variance
from vihier.guides.deviations import Normals, split_table
from vihier.guides.mixed_model import Plates, Structure, is_shared
from vihier.kernels.design import DesignData
from vihier.kernels.rows import row_table
from vihier.kernels.weighted_design import CellDesign, Entry, LocalEntry
from vihier.models.batch import Batch

LEAF: Plates = ("gene", "line")
OF_LINES: tuple[Plates, ...] = (("line",), ("line_screen",), ("replicate",))
"""Shared tables each element of which is in one line."""
BY_LINE: tuple[Plates, ...] = ((), ("lineage",), ("line",))
"""Shared tables of which all rows of a line are in the same element."""


@dataclass(frozen=True)
class Table:
    """A table of locations that rows move with alike, and which columns its elements are."""

    plates: Plates
    design: str
    columns: slice

    def variance(self, structure: Structure, theta: Theta, block: Block) -> Tensor:
        """Return what its locations together give the mean of a row whose design is 1, over its elements."""
        found = table_variance(structure, self.plates, theta, block, self.design)
        assert found is not None
        return found


@dataclass(frozen=True)
class SharedLayout:
    """Columns of what genes share.

    Attributes
    ----------
    lines, border : tuple of Table
        Tables over lines or what is in one line, and all others.
    columns : Tensor
        Which columns the rows of each line have, int64, [C, s], first the `n_own` of `lines`; `size` where there are
        fewer.
    """

    lines: tuple[Table, ...]
    border: tuple[Table, ...]
    columns: Tensor
    n_own: int
    size: int

    @property
    def n_border(self) -> int:
        """Number of columns of the border."""
        return sum(_size(table) for table in self.border)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them, in the order of their columns."""
        return (*self.lines, *self.border)

    @property
    def place(self) -> Tensor:
        """Place of each column among those of a line, [C, size + 1]."""
        n_lines, width = self.columns.shape
        places = self.columns.new_zeros(n_lines, self.size + 1)
        return places.scatter_(1, self.columns, torch.arange(width, device=places.device).expand(n_lines, -1))

    @classmethod
    def of(cls, structure: Structure, batch: Batch) -> SharedLayout:
        """Lay out a structure's shared tables; `batch` is the whole screen."""
        keys = [key for key in structure.tables if is_shared(key[0])]
        keys.sort(key=lambda key: key[0] not in OF_LINES)
        tables, start = [], 0
        for plates, design in keys:
            size = batch.size_of(plates[0]) if plates else 1
            tables.append(Table(plates, design, slice(start, start + size)))
            start += size
        n_lines, device = batch.n_lines, batch.gene.device
        seen = torch.zeros(n_lines, start, dtype=torch.bool, device=device)
        for table in tables:
            seen[batch.line, table.columns.start + _element(table, batch)] = True
        lines = tuple(table for table in tables if table.plates in OF_LINES)
        border = tuple(tables[len(lines) :])
        n_of_lines = border[0].columns.start if border else start
        own, others = _packed(seen[:, :n_of_lines], start), _packed(seen[:, n_of_lines:], start - n_of_lines)
        return cls(lines, border, torch.cat([own, n_of_lines + others], 1), own.shape[1], start)

    def split(self, structure: Structure, theta: Theta, block: Block, totals: Tensor, random: Normals) -> Theta:
        """Split totals, [P, N], into the deviations of their locations."""
        found: Theta = {}
        for table in self.tables:
            part = totals[table.columns]
            total = part if table.plates else part[0]
            found |= split_table(structure, table.plates, theta, block, total, random, table.design)
        return found

    def join(self, structure: Structure, deviations: Theta) -> Tensor | None:
        """Add the deviations of shared locations up to the columns, [P, N]; None where there are none."""
        parts = []
        for table in self.tables:
            members = structure.table(table.plates, table.design)
            total = reduce(add, (location.reach * deviations[location.name] for location in members))
            parts.append(total if table.plates else total[None])
        return torch.cat(parts) if parts else None


def _packed(seen: Tensor, none: int) -> Tensor:
    """Positions of what is seen in each row, [C, most in a row]; `none` where there are fewer."""
    width = int(seen.sum(1).max()) if seen.numel() else 0
    columns = torch.full((len(seen), width), none, dtype=torch.long, device=seen.device)
    for line, row in enumerate(seen):
        found = row.nonzero()[:, 0]
        columns[line, : len(found)] = found
    return columns


def _size(table: Table) -> int:
    return table.columns.stop - table.columns.start


def _element(table: Table, batch: Batch) -> Tensor:
    """Which element of a shared table, or of what it has beside genes, each row is in."""
    plates = tuple(plate for plate in table.plates if plate != "gene")
    return batch.rows_in(plates[0]) if plates else torch.zeros_like(batch.gene)


@dataclass(frozen=True)
class DesignBlock:
    """A block of genes, its tables, and the sums over its rows.

    `local` are the genes' own tables but the leaf, which is that over genes and lines, None where there is none;
    `size` is D. `cells` are the rows themselves where they are of unequal precision.
    """

    block: Block
    local: tuple[Table, ...]
    leaf: Table | None
    size: int
    data: DesignData
    cells: CellDesign | None = None

    def to(self, dtype: torch.dtype) -> DesignBlock:
        """Return the same with its sums in another precision."""
        block = replace(self.block, data=self.block.data.to(dtype))
        cells = None if self.cells is None else self.cells.to(dtype)
        return replace(self, block=block, data=self.data.to(dtype), cells=cells)

    def scale(self, structure: Structure, theta: Theta) -> Tensor:
        """Prior sds of d, [B, D, N]."""
        n_genes, n_draws = len(self.data.square), next(iter(theta.values())).shape[-1]
        parts = [self.data.square.new_zeros(n_genes, 0, n_draws)]
        for table in self.local:
            sd = table.variance(structure, theta, self.block).sqrt()
            sd = sd[:, None] if table.plates == ("gene",) else sd
            parts.append(sd.expand(n_genes, _size(table), n_draws))
        return torch.cat(parts, 1)

    def leaf_variance(self, structure: Structure, theta: Theta) -> Tensor | None:
        """Prior variance of e, [B or 1, C or 1, N]."""
        return None if self.leaf is None else self.leaf.variance(structure, theta, self.block)

    def split(self, structure: Structure, theta: Theta, dense: Tensor, leaf: Tensor | None, random: Normals) -> Theta:
        """Split d, [B, D, N], and e, [B, C, N], into the deviations of their locations; sgRNAs padded."""
        found: Theta = {}
        for table in self.local:
            part = dense[:, table.columns]
            total = part[:, 0] if table.plates == ("gene",) else part
            found |= split_table(structure, table.plates, theta, self.block, total, random, table.design)
        if self.leaf is not None:
            assert leaf is not None
            found |= split_table(structure, LEAF, theta, self.block, leaf, random, self.leaf.design)
        return found


def design_block(structure: Structure, batch: Batch, shared: SharedLayout) -> DesignBlock:
    """Sum the rows of a batch of whole genes into what elimination needs; in float64."""
    assert structure.design is not None and batch.lfc is not None
    block = make_block(structure, batch)
    keys = [key for key in structure.tables if not is_shared(key[0])]
    leaves = sorted((key for key in keys if key[0] == LEAF), key=lambda key: key[1] != "")
    leaf = Table(*leaves[0], slice(0, batch.n_lines)) if leaves else None
    local, start = [], 0
    for plates, design in keys:
        if leaf is not None and (plates, design) == (leaf.plates, leaf.design):
            continue
        size = block.filled.shape[1] if plates == ("sgrna",) else 1
        if len(plates) > 1:
            size = batch.size_of(plates[1])
        local.append(Table(plates, design, slice(start, start + size)))
        start += size
    rows = _DesignRows.of(structure, batch, block, tuple(local), leaf, shared)
    data = rows.summed(start, shared)
    if block.rows is None:
        return DesignBlock(block, tuple(local), leaf, start, data)
    cell, cells = rows.cells(start, shared)
    order = rows.order(structure, block)
    offset, counts = rows.offset[order], block.rows.counts
    # A cell of the design for each of gene, sgRNA and line elsewhere.
    table = row_table(
        cell[order],
        block.rows.lfc - offset.to(block.rows.lfc),
        block.rows.noise,
        block.rows.freedom,
        (len(cells.unit), 1, 1),
        None if counts is None else replace(counts, offset=offset.to(counts.offset)),
    )
    return DesignBlock(replace(block, rows=table), tuple(local), leaf, start, data, cells)


Entries = tuple[Tensor, Tensor]
"""A table's column that each row is in, [n], and the row's design there, [n]."""


def _flat(entries: Sequence[Entries]) -> list[Tensor]:
    return [x for column, value in entries for x in (column.double(), value)]


def _paired(parts: Sequence[Tensor]) -> list[Entry]:
    return [Entry(parts[i].long(), parts[i + 1].contiguous()) for i in range(0, len(parts), 2)]


@dataclass(frozen=True)
class _DesignRows:
    """The rows of a block: what they measure less the constants of their means, and their entries in each table.

    `of_sgrnas` are the local tables over sgRNAs.
    """

    batch: Batch
    value: Tensor
    offset: Tensor
    local: tuple[Entries, ...]
    of_sgrnas: tuple[bool, ...]
    shared: tuple[Entries, ...]
    leaf: Tensor | None

    @classmethod
    def of(
        cls,
        structure: Structure,
        batch: Batch,
        block: Block,
        local: Sequence[Table],
        leaf: Table | None,
        shared: SharedLayout,
    ) -> _DesignRows:
        assert structure.design is not None and batch.lfc is not None
        designs, offset = structure.design.of(batch)
        designs[""] = torch.ones_like(offset)

        def entries(table: Table) -> Entries:
            element = block.slot[batch.sgrna] if table.plates == ("sgrna",) else _element(table, batch)
            return table.columns.start + element, designs[table.design]

        return cls(
            batch,
            batch.lfc.double() - offset,
            offset,
            tuple(entries(table) for table in local),
            tuple(table.plates == ("sgrna",) for table in local),
            tuple(entries(table) for table in shared.tables),
            None if leaf is None else designs[leaf.design],
        )

    def order(self, structure: Structure, block: Block) -> Tensor:
        """Which row each of `block.rows` is, [n]."""
        batch, n_slots = self.batch, block.data.count.shape[1]
        slot = block.slot[batch.sgrna] if structure.table(("sgrna",)) else torch.zeros_like(batch.sgrna)
        return torch.argsort((batch.gene * n_slots + slot) * batch.n_lines + batch.line, stable=True)

    def cells(self, size: int, shared: SharedLayout) -> tuple[Tensor, CellDesign]:
        """Gather rows whose designs are the same: which cell each row is in, [n], and the cells; `size` is D."""
        batch = self.batch
        z = torch.zeros_like(self.value) if self.leaf is None else self.leaf
        of_units = [entries for entries, of_sgrnas in zip(self.local, self.of_sgrnas, strict=True) if not of_sgrnas]
        of_cells = [entries for entries, of_sgrnas in zip(self.local, self.of_sgrnas, strict=True) if of_sgrnas]
        parts = [batch.gene.double(), batch.line.double(), z, *_flat([*of_units, *self.shared])]
        units, unit_of_row = torch.unique(torch.stack(parts, 1), dim=0, return_inverse=True)
        inner = torch.stack([unit_of_row.double(), *_flat(of_cells)], 1)
        found, cell = torch.unique(inner, dim=0, return_inverse=True)
        unit, *of_cell = found.unbind(1)
        gene, line, leaf, *rest = units.unbind(1)
        at_units, at_cells = _paired(rest), _paired(of_cell)
        outer, inners = iter(at_units[: len(of_units)]), iter(at_cells)
        local = tuple(LocalEntry(of_sgrnas, next(inners if of_sgrnas else outer)) for of_sgrnas in self.of_sgrnas)
        kinds, kind_of_column, n_kinds = self._kinds(at_units[len(of_units) :], line.long(), shared)
        return cell, CellDesign(
            unit=unit.long(),
            lengths=torch.bincount(unit.long(), minlength=len(units)),
            gene=gene.long(),
            line=line.long(),
            local=local,
            leaf=leaf.contiguous(),
            columns=shared.columns,
            kinds=kinds,
            kind_of_column=kind_of_column,
            n_genes=len(batch.gene_idx),
            size=size,
            n_shared=shared.size,
            n_kinds=n_kinds,
            by_line=all(table.plates in BY_LINE for table in shared.tables),
        )

    @staticmethod
    def _kinds(entries: Sequence[Entry], line: Tensor, shared: SharedLayout) -> tuple[tuple[Entry, ...], Tensor, int]:
        """Find the columns of a line that its rows move alike with: of one design, over lines, lineages or nothing."""
        n_lines, width = shared.columns.shape
        place, first = shared.place, torch.full_like(shared.columns, -1)
        leads: dict[str, int] = {}
        kept: list[int] = []
        lines = torch.arange(n_lines, device=line.device)
        for i, table in enumerate(shared.tables):
            by_line = table.plates in BY_LINE
            lead = leads.setdefault(table.design, i) if by_line else i
            if lead == i:
                kept.append(i)
            elif len(line):
                # A line's own element of each of the two, from any cell of it.
                mine, of_lead = (torch.zeros(n_lines, dtype=torch.long, device=line.device) for _ in range(2))
                mine[line], of_lead[line] = entries[i].column, entries[lead].column
                first[lines, place[lines, mine]] = place[lines, of_lead]
        own = torch.arange(width, device=line.device).expand(n_lines, -1)
        lead_place = torch.where(first < 0, own, first)
        is_kind = (lead_place == own) & (shared.columns < shared.size)
        number = is_kind.cumsum(1) - 1
        n_kinds = int(is_kind.sum(1).max()) if is_kind.numel() else 0
        kind = torch.where(shared.columns < shared.size, number.gather(1, lead_place), n_kinds)
        found = tuple(Entry(kind[line, place[line, entries[i].column]], entries[i].value) for i in kept)
        return found, kind, n_kinds

    def summed(self, size: int, shared: SharedLayout) -> DesignData:
        """Sum products of the rows' entries; `size` is D."""
        batch, y, n_shared = self.batch, self.value, shared.size
        n_genes, n_lines = len(batch.gene_idx), batch.n_lines
        z = torch.zeros_like(y) if self.leaf is None else self.leaf
        cell = batch.gene * n_lines + batch.line
        width = shared.columns.shape[1]
        place = shared.place

        def total(index: Tensor, values: Tensor, *shape: int) -> Tensor:
            return y.new_zeros(torch.Size(shape).numel()).index_add_(0, index, values).reshape(shape)

        gram, dense = y.new_zeros(n_genes, size, size), y.new_zeros(n_genes, size)
        cross = y.new_zeros(n_genes, n_lines, size)
        shared_cross = y.new_zeros(n_genes, size, n_shared)
        for column, x in self.local:
            at = batch.gene * size + column
            dense += total(at, x * y, n_genes, size)
            cross += total(cell * size + column, x * z, n_genes, n_lines, size)
            for other, value in self.local:
                gram += total(at * size + other, x * value, n_genes, size, size)
            for other, value in self.shared:
                shared_cross += total(at * n_shared + other, x * value, n_genes, size, n_shared)
        leaf_shared = y.new_zeros(n_genes, n_lines, width)
        shared_gram, shared_total = y.new_zeros(n_lines, width, width), y.new_zeros(n_lines, width)
        for column, x in self.shared:
            position = place[batch.line, column]
            leaf_shared += total(cell * width + position, x * z, n_genes, n_lines, width)
            at = batch.line * width + position
            shared_total += total(at, x * y, n_lines, width)
            for other, value in self.shared:
                shared_gram += total(at * width + place[batch.line, other], x * value, n_lines, width, width)
        return DesignData(
            products=gram,
            total=dense,
            square=total(batch.gene, y * y, n_genes),
            count=total(batch.gene, torch.ones_like(y), n_genes),
            weight=total(cell, z * z, n_genes, n_lines),
            leaf_total=total(cell, z * y, n_genes, n_lines),
            leaf_cross=cross,
            shared_cross=shared_cross,
            columns=shared.columns,
            leaf_shared=leaf_shared,
            shared_gram=shared_gram,
            shared_total=shared_total,
        )
