"""Rows as a store keeps them: by gene, the sgRNA implied by the place, line and screen by the replicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from vihier.screen.content_hash import order_of_ties
from vihier.screen.rows import Rows
from vihier.screen.screen import ScreenIndex

PIECE_ROWS = 1 << 20
"""Rows that are looked at together where all are passed through."""

Dataset = Callable[[slice], np.ndarray]
"""Reads a range of rows; an HDF5 dataset's own indexing."""


class StoredRows:
    """The rows of a store, read by ranges of genes.

    Parameters
    ----------
    index
        Labels and maps.
    rows_of_gene, rows_of_sgrna
        int64 [G] and [S], how many rows each has.
    screen_of_replicate
        int32 [R] codes, or None where there is no column ``screen``.
    columns
        ``lfc``, ``replicate``; and `covariates`, the other ones by name: how to read a range of rows of each.
    ties
        Whether there are rows equal in key and lfc.

    Attributes
    ----------
    gene_starts
        int64 [G + 1].
    names
        Names of all covariates, ascending.
    """

    def __init__(
        self,
        index: ScreenIndex,
        rows_of_gene: np.ndarray,
        rows_of_sgrna: np.ndarray,
        screen_of_replicate: np.ndarray | None,
        columns: Mapping[str, Dataset],
        covariates: Mapping[str, Dataset],
        ties: bool,
    ) -> None:
        self.index = index
        self.gene_starts = np.concatenate([[0], np.cumsum(rows_of_gene)]).astype(np.int64)
        self.n_rows = int(self.gene_starts[-1])
        self.names = sorted([*covariates, *([] if screen_of_replicate is None else ["screen"])])
        self.ties = ties
        self._columns, self._covariates = columns, covariates
        self._screen = screen_of_replicate
        # sgRNAs in the order of the rows: by gene, then by label.
        self._sgrnas = np.argsort(index.gene_of_sgrna, kind="stable").astype(np.int32)
        self._rows_of_sgrna = rows_of_sgrna[self._sgrnas]
        counts = np.bincount(index.gene_of_sgrna, minlength=len(index.genes))
        self._sgrna_starts = np.concatenate([[0], np.cumsum(counts)])
        self._lines = index.line_of_replicate.astype(np.int32)

    def read(self, genes: slice) -> Rows:
        """Return the rows of consecutive genes, one read a column."""
        sgrna = self._sgrna(genes)
        replicate = self._replicate(genes)
        covariates = {name: self._covariate(name, genes, replicate) for name in self.names}
        gene = self.index.gene_of_sgrna.astype(np.int32)[sgrna]
        return Rows(gene, sgrna, self._lines[replicate], replicate, self._lfc(genes), covariates)

    def pieces(self) -> Iterator[slice]:
        """Yield ranges of genes that cover all, of about `PIECE_ROWS` rows each."""
        first, n_genes = 0, len(self.index.genes)
        while first < n_genes:
            last = int(np.searchsorted(self.gene_starts, self.gene_starts[first] + PIECE_ROWS, side="right")) - 1
            last = min(max(last, first + 1), n_genes)
            yield slice(first, last)
            first = last

    def keys(self) -> Iterator[Iterable[np.ndarray]]:
        """Yield sgrna, line, replicate and lfc, each in pieces, as `content_hash` asks for them."""
        yield (self._sgrna(genes) for genes in self.pieces())
        yield (self._lines[self._replicate(genes)] for genes in self.pieces())
        yield (self._replicate(genes) for genes in self.pieces())
        yield (self._lfc(genes) for genes in self.pieces())

    def covariates(self, names: Sequence[str]) -> Iterator[Iterable[np.ndarray]]:
        """Yield these covariates, each in pieces, rows equal in key and lfc ordered by them alone."""
        for name in names:
            yield (self._reordered(name, names, genes) for genes in self.pieces())

    def _reordered(self, name: str, names: Sequence[str], genes: slice) -> np.ndarray:
        replicate = self._replicate(genes)
        values = self._covariate(name, genes, replicate)
        if not self.ties:
            return values
        keys = (self._sgrna(genes), replicate, self._lfc(genes))
        order = order_of_ties(keys, [self._covariate(each, genes, replicate) for each in names])
        return values if order is None else values[order]

    def _range(self, genes: slice) -> slice:
        return slice(int(self.gene_starts[genes.start]), int(self.gene_starts[genes.stop]))

    def _sgrna(self, genes: slice) -> np.ndarray:
        those = slice(int(self._sgrna_starts[genes.start]), int(self._sgrna_starts[genes.stop]))
        return np.repeat(self._sgrnas[those], self._rows_of_sgrna[those])

    def _replicate(self, genes: slice) -> np.ndarray:
        codes = self._columns["replicate"](self._range(genes)).astype(np.int32)
        return _within(codes, 0, len(self.index.replicates))

    def _lfc(self, genes: slice) -> np.ndarray:
        return self._columns["lfc"](self._range(genes)).astype(np.float64, copy=False)

    def _covariate(self, name: str, genes: slice, replicate: np.ndarray) -> np.ndarray:
        if name == "screen" and self._screen is not None:
            return self._screen[replicate]
        values = self._covariates[name](self._range(genes))
        if name in self.index.categories:
            return _within(values.astype(np.int32), -1, len(self.index.categories[name]))
        return values.astype(np.float64, copy=False)


def _within(codes: np.ndarray, least: int, end: int) -> np.ndarray:
    """Refuse codes that stand for no label: a negative one would be taken for another label without a word."""
    if len(codes) and not (least <= codes.min() and codes.max() < end):
        raise ValueError("a code stands for no label")
    return codes
