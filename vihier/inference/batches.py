"""A screen cut into the batches that Pyro programs are run on: gene blocks, parts of the rows, or all at once.

Every batch carries 1 / Pr(it) as one factor for all that is local to it, whatever the plate. Pyro's own
size / len(subsample) differs between plates where genes have unequal numbers of sgRNAs, and biases the ELBO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.labels import line_screens
from vihier.models.batch import Batch
from vihier.screen import Screen
from vihier.screen.rows import Rows

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore

# Batches of screens up to this many rows are kept once made: 40 bytes a row, 160 MB.
ROWS_KEPT = 4_000_000
# A step's fixed cost, some milliseconds of Python, is that of about so many rows.
ROWS_IN_BLOCK = 40_000


class GeneBlocks(Sequence[Batch]):
    """All rows of a fixed number of genes in each batch, genes in label order, the last block short.

    Parameters
    ----------
    screen
        The screen, or a store of one.
    genes_per_block
        Number of genes of every block but the last.
    device, dtype
        Where the tensors live, and the type of the floating-point ones.

    Raises
    ------
    VihierError
        If `genes_per_block` is not positive.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import read_screen
    >>> genes = ["A", "A", "B", "C"]
    >>> frame = pd.DataFrame({"sgrna": list("wxyz"), "hugo_symbol": genes, "depmap_id": "ACH-1", "lfc": 0.5})
    >>> blocks = GeneBlocks(read_screen(frame), 2)
    >>> len(blocks), blocks[0].local_scale, blocks[0].gene_of_sgrna.tolist(), len(blocks[1].gene)
    (2, 2.0, [0, 0, 1], 1)
    """

    def __init__(
        self,
        screen: Screen | ScreenStore,
        genes_per_block: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if genes_per_block < 1:
            raise VihierError(f"batch_size {genes_per_block}: a batch needs at least one gene; give 1 or more")
        self.screen = screen
        self.genes_per_block = min(genes_per_block, screen.n_genes)
        self._slicer = _Slicer(screen, device, dtype)
        self._kept: dict[int, Batch] = {}

    def __len__(self) -> int:
        return -(-self.screen.n_genes // self.genes_per_block)

    @overload
    def __getitem__(self, number: int) -> Batch: ...

    @overload
    def __getitem__(self, number: slice) -> list[Batch]: ...

    def __getitem__(self, number: int | slice) -> Batch | list[Batch]:
        """Return block `number`: its rows, its genes, their sgRNAs, and every line."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        number %= len(self)
        if number in self._kept:
            return self._kept[number]
        batch = self._cut(number)
        if self.screen.n_rows <= ROWS_KEPT:
            self._kept[number] = batch
        return batch

    def forget(self) -> None:
        """Let go of the batches that were kept."""
        self._kept.clear()

    def _cut(self, number: int) -> Batch:
        first = number * self.genes_per_block
        last = min(first + self.genes_per_block, self.screen.n_genes)
        rows = self.screen.rows_of(slice(first, last))
        return self._slicer.cut(rows, first, last, local_scale=float(len(self)), row_scale=float(len(self)))

    def __iter__(self) -> Iterator[Batch]:
        return (self[i] for i in range(len(self)))


class RowParts(Sequence[Batch]):
    """A partition of the rows, drawn at random, into parts whose sizes differ by one row at most.

    Every part holds all genes, sgRNAs and lines; only rows are left out. A row is in a part taken uniformly with
    probability 1 / len(parts), hence `row_scale = len(parts)`.

    Parameters
    ----------
    screen
        The screen.
    rows_per_part
        Largest number of rows of a part.
    seed
        Of the partition.
    device, dtype
        Where the tensors live, and the type of the floating-point ones.

    Raises
    ------
    VihierError
        If `rows_per_part` is not positive.
    """

    def __init__(
        self,
        screen: Screen,
        rows_per_part: int,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if rows_per_part < 1:
            raise VihierError(f"batch_size {rows_per_part}: a batch needs at least one row; give 1 or more")
        self.screen = screen
        self._device, self._dtype = torch.device(device), dtype
        self._slicer = _Slicer(screen, device, dtype)
        n_parts = -(-screen.n_rows // rows_per_part)
        self._rows = np.array_split(np.random.default_rng(seed).permutation(screen.n_rows), n_parts)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> Batch: ...

    @overload
    def __getitem__(self, number: slice) -> list[Batch]: ...

    def __getitem__(self, number: int | slice) -> Batch | list[Batch]:
        """Return part `number`."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return self._slicer.cut(self.screen.rows_at(self._rows[number]), 0, self.screen.n_genes, 1.0, float(len(self)))


def gene_blocks(
    screen: Screen, genes_per_block: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> GeneBlocks:
    """Cut a screen into gene blocks; see `GeneBlocks`."""
    return GeneBlocks(screen, genes_per_block, device, dtype)


def genes_in_block(screen: Screen | ScreenStore, rows: int = ROWS_IN_BLOCK) -> int:
    """Return how many genes make blocks of about so many rows: at least 8, at most all."""
    return min(screen.n_genes, max(8, round(rows * screen.n_genes / screen.n_rows)))


def row_batch(
    screen: Screen, rows: np.ndarray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> Batch:
    """Return a batch of some rows, drawn uniformly at random, with all genes, sgRNAs and lines.

    Parameters
    ----------
    screen
        The screen.
    rows
        Positions of the rows, int [n]; each row's probability of being among them is n / n_rows.
    device, dtype
        Where the tensors live, and the type of the floating-point ones.
    """
    scale = screen.n_rows / max(len(rows), 1)
    return _Slicer(screen, device, dtype).cut(screen.rows_at(rows), 0, screen.n_genes, local_scale=1.0, row_scale=scale)


def genes_batch(
    screen: Screen, genes: np.ndarray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> Batch:
    """Return all rows of some genes, given by code in ascending order, as one batch; its scales are 1."""
    chosen = np.isin(screen.gene, genes)
    rows = screen.rows_at(np.flatnonzero(chosen))
    return _Slicer(screen, device, dtype).cut_genes(rows, genes, local_scale=1.0, row_scale=1.0)


def full_batch(screen: Screen, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> Batch:
    """Return the whole screen as one batch; its scales are 1."""
    return _Slicer(screen, device, dtype).cut(
        screen.rows_at(slice(None)), 0, screen.n_genes, local_scale=1.0, row_scale=1.0
    )


class _Slicer:
    """Cuts every array of a batch by the same rows and the same genes, so that nothing can misalign."""

    def __init__(self, screen: Screen | ScreenStore, device: torch.device | str, dtype: torch.dtype) -> None:
        self.screen = screen
        self.device, self.dtype = torch.device(device), dtype
        index = screen.index
        self._by_gene = np.argsort(index.gene_of_sgrna, kind="stable")
        counts = np.bincount(index.gene_of_sgrna, minlength=screen.n_genes)
        self._sgrna_starts = np.concatenate([[0], np.cumsum(counts)])
        self._position = np.zeros(screen.n_sgrnas, dtype=np.int64)
        self._gene_position = np.zeros(screen.n_genes, dtype=np.int64)
        self._lines = self._codes(np.arange(screen.n_lines))
        labels, codes = line_screens(index)
        self._sizes = {"replicate": len(index.replicates), "line_screen": len(labels)}
        self._line_screens = self._codes(codes)
        self._sizes |= {name: len(labels) for name, labels in index.categories.items()}
        self._lineages = None if index.lineage_of_line is None else self._codes(index.lineage_of_line)

    def cut(self, rows: Rows, first_gene: int, last_gene: int, local_scale: float, row_scale: float) -> Batch:
        """Return the batch of these rows, with genes `first_gene` to `last_gene` (excluded) and their sgRNAs."""
        return self.cut_genes(rows, np.arange(first_gene, last_gene), local_scale, row_scale)

    def cut_genes(self, rows: Rows, genes: np.ndarray, local_scale: float, row_scale: float) -> Batch:
        """Return the batch of these rows, with the genes of these codes, ascending, and their sgRNAs."""
        screen = self.screen
        of_genes = [self._by_gene[self._sgrna_starts[gene] : self._sgrna_starts[gene + 1]] for gene in genes]
        # In the order of the index, so that the whole screen's positions are the index's own.
        sgrnas = np.sort(np.concatenate(of_genes))
        self._position[sgrnas] = np.arange(len(sgrnas))
        self._gene_position[genes] = np.arange(len(genes))
        return Batch(
            n_genes=screen.n_genes,
            n_sgrnas=screen.n_sgrnas,
            n_lines=screen.n_lines,
            n_rows=screen.n_rows,
            gene_idx=self._codes(genes),
            sgrna_idx=self._codes(sgrnas),
            line_idx=self._lines,
            gene=self._codes(self._gene_position[rows.gene]),
            sgrna=self._codes(self._position[rows.sgrna]),
            line=self._codes(rows.line),
            lfc=self._floats(rows.lfc),
            gene_of_sgrna=self._codes(self._gene_position[screen.index.gene_of_sgrna[sgrnas]]),
            lineages=screen.n_lineages,
            lineages_of_lines=self._lineages,
            covariates={name: self._covariate(name, values) for name, values in rows.covariates.items()},
            replicate=self._codes(rows.replicate),
            line_screens_of_replicates=self._line_screens,
            sizes=self._sizes,
            local_scale=local_scale,
            row_scale=row_scale,
        )

    def _covariate(self, name: str, values: np.ndarray) -> torch.Tensor:
        return self._codes(values) if name in self.screen.index.categories else self._floats(values)

    def _codes(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _floats(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.device)
