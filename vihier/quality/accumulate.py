"""Sums over the rows of a screen, read once by blocks of genes: all that its quality is judged by.

Rows are never held beside one block, so a store of any size does. What is kept is [G, R] (genes by replicates), [G, K]
(genes by lines) and [R, R].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vihier.quality.correlation import AgreementSums, PairSums
from vihier.screen.rows import Rows
from vihier.screen.screen import Screen
from vihier.store.store import ScreenStore

# Elements of a block's sgRNA x replicate matrix: 16 MB in float32, and a few arrays of its size in float64.
_ELEMENTS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over a screen's rows, and means that follow from them.

    "Library" is a value of the column `screen`, or the whole table where there is none; K counts lines in libraries.

    Attributes
    ----------
    screen_of_replicate, batch_of_replicate
        int [R], codes into the categories `screen` and `p_dna_batch`; 0 and -1 without the column.
    line_of_group, screen_of_group
        int [K], which line and library each group is; ascending by line.
    group_of_replicate
        int [R].
    gene_replicate, gene_group
        float32 [G, R] and [G, K], mean over a gene's sgRNAs of their mean lfc; NaN where there is none.
    gene_line_copies
        float32 [G, C], mean of `copy_number`, or None without the column.
    n_of_replicate
        int64 [R], sgRNAs measured.
    sgrna_mean, sgrna_sd
        float64 [S], mean and sd over groups of the sgRNA's lfc; NaN where there are too few.
    n_of_sgrna, screen_of_sgrna
        int64 [S], groups and library.
    pairs
        Correlation of replicates.
    agreement
        Of the sgRNAs of a gene, within each group.
    reads, zero_counts
        float64 [R], sum of `counts_final` and share of sgRNAs without a read; None without the column.
    """

    screen_of_replicate: np.ndarray
    batch_of_replicate: np.ndarray
    line_of_group: np.ndarray
    screen_of_group: np.ndarray
    group_of_replicate: np.ndarray
    gene_replicate: np.ndarray
    gene_group: np.ndarray
    gene_line_copies: np.ndarray | None
    n_of_replicate: np.ndarray
    sgrna_mean: np.ndarray
    sgrna_sd: np.ndarray
    n_of_sgrna: np.ndarray
    screen_of_sgrna: np.ndarray
    pairs: PairSums
    agreement: AgreementSums
    reads: np.ndarray | None
    zero_counts: np.ndarray | None


@dataclass(frozen=True, eq=False)
class _Block:
    """Some genes' rows, and where their sgRNAs stand in the order of the genes."""

    rows: Rows
    genes: slice
    sgrnas: np.ndarray
    local: np.ndarray
    gene_starts: np.ndarray


def sum_rows(screen: Screen | ScreenStore) -> Sums:
    """Read a screen once, and return its sums."""
    return _Pass(screen).run()


class _Pass:
    """One pass: the arrays that it fills, a block of genes at a time."""

    def __init__(self, screen: Screen | ScreenStore) -> None:
        self.screen, self.index = screen, screen.index
        categories = self.index.categories
        self.n_screens = max(1, len(categories.get("screen", ())))
        n_genes, n_sgrnas, n_lines = screen.n_genes, screen.n_sgrnas, screen.n_lines
        n_replicates, n_groups = screen.n_replicates, n_lines * self.n_screens
        self.screen_of_replicate = np.zeros(n_replicates, dtype=np.int64)
        self.batch_of_replicate = np.full(n_replicates, -1, dtype=np.int64)
        self.gene_replicate = np.full((n_genes, n_replicates), np.nan, dtype=np.float32)
        self.gene_group = np.full((n_genes, n_groups), np.nan, dtype=np.float32)
        has_copies = "copy_number" in screen.covariates
        self.copies = np.full((n_genes, n_lines), np.nan, dtype=np.float32) if has_copies else None
        self.n_of_replicate = np.zeros(n_replicates, dtype=np.int64)
        self.sgrna_mean, self.sgrna_sd = np.full((2, n_sgrnas), np.nan)
        self.n_of_sgrna, self.screen_of_sgrna = np.zeros((2, n_sgrnas), dtype=np.int64)
        # The last column is the mean of all replicates: what every line has in common.
        self.pairs, self.agreement = PairSums(n_replicates + 1), AgreementSums(n_groups)
        self.counted = "counts_final" in screen.covariates
        self.reads, self.zeros, self.n_counts = np.zeros((3, n_replicates))

    def run(self) -> Sums:
        for block in _blocks(self.screen, self.n_screens):
            self._add(block)
        groups = np.flatnonzero(np.isfinite(self.gene_group).any(axis=0))
        line_of_group, screen_of_group = np.divmod(groups, self.n_screens)
        group_of_replicate = self.index.line_of_replicate * self.n_screens + self.screen_of_replicate
        for name in ("genes", "n", "n_square", "within", "between", "total"):
            setattr(self.agreement, name, getattr(self.agreement, name)[groups])
        return Sums(
            screen_of_replicate=self.screen_of_replicate,
            batch_of_replicate=self.batch_of_replicate,
            line_of_group=line_of_group,
            screen_of_group=screen_of_group,
            group_of_replicate=np.searchsorted(groups, group_of_replicate),
            gene_replicate=self.gene_replicate,
            gene_group=self.gene_group[:, groups],
            gene_line_copies=self.copies,
            n_of_replicate=self.n_of_replicate,
            sgrna_mean=self.sgrna_mean,
            sgrna_sd=self.sgrna_sd,
            n_of_sgrna=self.n_of_sgrna,
            screen_of_sgrna=self.screen_of_sgrna,
            pairs=self.pairs,
            agreement=self.agreement,
            reads=self.reads if self.counted else None,
            zero_counts=self.zeros / np.maximum(self.n_counts, 1) if self.counted else None,
        )

    def _add(self, block: _Block) -> None:
        rows = block.rows
        if self.n_screens > 1:
            library = np.maximum(rows.covariates["screen"], 0)
            self.screen_of_replicate[rows.replicate] = library
            self.screen_of_sgrna[rows.sgrna] = library
        if "p_dna_batch" in self.index.categories:
            self.batch_of_replicate[rows.replicate] = rows.covariates["p_dna_batch"]
        shape = (len(block.sgrnas), self.screen.n_replicates)
        by_replicate = _cell_means(block.local, rows.replicate, rows.lfc, shape)
        self.n_of_replicate += np.isfinite(by_replicate).sum(axis=0)
        _, self.gene_replicate[block.genes] = _gene_means(by_replicate, block.gene_starts)
        common = _row_means(by_replicate)
        self.pairs.add(np.column_stack([by_replicate, common]).astype(np.float32))
        self._add_groups(block)
        if self.copies is not None:
            values = rows.covariates["copy_number"]
            there = np.isfinite(values)
            local_gene = rows.gene[there] - block.genes.start
            shape = (block.genes.stop - block.genes.start, self.screen.n_lines)
            self.copies[block.genes] = _cell_means(local_gene, rows.line[there], values[there], shape)
        if self.counted:
            counts = rows.covariates["counts_final"]
            there = np.isfinite(counts)
            replicate, size = rows.replicate[there], self.screen.n_replicates
            self.reads += np.bincount(replicate, weights=counts[there], minlength=size)
            self.zeros += np.bincount(replicate, weights=counts[there] == 0, minlength=size)
            self.n_counts += np.bincount(replicate, minlength=size)

    def _add_groups(self, block: _Block) -> None:
        rows = block.rows
        group = rows.line.astype(np.int64) * self.n_screens + self.screen_of_replicate[rows.replicate]
        cells = _cell_means(block.local, group, rows.lfc, (len(block.sgrnas), self.gene_group.shape[1]))
        there = np.isfinite(cells)
        filled = np.where(there, cells, 0.0)
        count = np.add.reduceat(there, block.gene_starts, axis=0, dtype=np.float64)
        total = np.add.reduceat(filled, block.gene_starts, axis=0)
        self.agreement.add(count, total, np.add.reduceat(filled**2, block.gene_starts, axis=0))
        self.gene_group[block.genes] = _ratio(total, count)
        here = block.sgrnas
        self.n_of_sgrna[here] = there.sum(axis=1)
        self.sgrna_mean[here] = mean = _row_means(cells)
        square = _ratio(np.where(there, (cells - mean[:, None]) ** 2, 0.0).sum(axis=1), self.n_of_sgrna[here] - 1.0)
        self.sgrna_sd[here] = np.sqrt(square)


def _blocks(screen: Screen | ScreenStore, n_screens: int) -> Iterator[_Block]:
    """Yield all genes in blocks whose sgRNA x replicate matrix is small."""
    order = np.argsort(screen.index.gene_of_sgrna, kind="stable")
    starts = np.r_[0, np.cumsum(np.bincount(screen.index.gene_of_sgrna, minlength=screen.n_genes))]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    most = max(1, _ELEMENTS_AT_ONCE // max(screen.n_replicates, screen.n_lines * n_screens))
    first = 0
    while first < screen.n_genes:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + most, side="right")) - 1)
        genes = slice(first, min(last, screen.n_genes))
        rows = screen.rows_of(genes)
        local_starts = starts[genes] - starts[first]
        yield _Block(rows, genes, order[starts[first] : starts[last]], place[rows.sgrna] - starts[first], local_starts)
        first = genes.stop


def _cell_means(row: np.ndarray, column: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the mean of the values of each cell, float64 [shape]; NaN where there is none."""
    cell = row.astype(np.int64) * shape[1] + column
    count = np.bincount(cell, minlength=shape[0] * shape[1])
    total = np.bincount(cell, weights=values, minlength=shape[0] * shape[1])
    return _ratio(total, count).reshape(shape)


def _gene_means(cells: np.ndarray, gene_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(cells)
    count = np.add.reduceat(there, gene_starts, axis=0, dtype=np.int64)
    return count, _ratio(np.add.reduceat(np.where(there, cells, 0.0), gene_starts, axis=0), count)


def _row_means(values: np.ndarray) -> np.ndarray:
    there = np.isfinite(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where the count is not positive."""
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
