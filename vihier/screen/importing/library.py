"""One library's matrix with what its maps say, ready to be read as rows of the long table, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from vihier.screen.faults import fault, shown
from vihier.screen.importing.matrix import Matrix
from vihier.screen.importing.normalise import (
    Batches,
    Centring,
    Normalisation,
    batch_means,
    centres,
    expected_counts,
    fold_changes,
)
from vihier.screen.importing.samples import Samples
from vihier.screen.importing.sgrnas import Sgrnas
from vihier.screen.importing.spool import Spool
from vihier.screen.validate import LARGEST_LFC

ROWS_IN_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class Library:
    """A screen of one library: its matrix and its maps.

    Attributes
    ----------
    matrix
        Counts or log2 fold changes.
    samples, sgrnas
        What the maps say, in the matrix's order.
    screen
        Its label in the column ``screen``; None for a table without that column.
    files
        What was read, for the report.
    layers
        Further values of the long table, each like the matrix.
    """

    matrix: Matrix
    samples: Samples
    sgrnas: Sgrnas
    screen: str | None
    files: tuple[str, ...]
    layers: Mapping[str, Spool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cells:
    """Values of some sgRNAs in all kept samples, each [k, F], NaN where missing.

    Attributes
    ----------
    lfc
        log2 fold change, before centring where it is asked of a source that has not been centred.
    counts_final, counts_initial
        Reads of the replicate, and mean reads over the plasmid samples of its batch; None where none are known.
    counts_expected
        Reads that the replicate would have with the plasmid samples' shares, times two to the power of its centre; None
        where it is not asked for.
    low
        bool: missing because the plasmid pool has too few reads of the sgRNA.
    """

    lfc: np.ndarray
    counts_final: np.ndarray | None
    counts_initial: np.ndarray | None
    low: np.ndarray
    counts_expected: np.ndarray | None = None


class Measured:
    """Reads a library's values as log2 fold changes.

    Parameters
    ----------
    library
        The library.
    symbols
        Object [S]: the gene of each of the matrix's sgRNAs, None for those that are left out.
    how
        How counts become fold changes; or, of a matrix that has fold changes, how they are centred.

    Raises
    ------
    VihierError
        A sample without reads or without a plasmid batch, or a replicate that cannot be centred.
    """

    def __init__(self, library: Library, symbols: np.ndarray, how: Normalisation | Centring) -> None:
        self.library = library
        self.symbols = symbols
        self.final = np.flatnonzero(library.samples.kept)
        kept = [place for place, symbol in enumerate(symbols) if symbol is not None]
        sgrnas = library.matrix.entities
        self.order = np.array(sorted(kept, key=lambda place: (symbols[place], sgrnas[place])), dtype=np.int64)
        self._how = how
        self._batches = self._totals = None
        if isinstance(how, Normalisation):
            samples = library.samples
            nothing = Batches(samples.initial, np.full(len(samples.names), -1), 0)
            self._batches = samples.batches() if how.needs_plasmid else nothing
            self._totals = self._reads(samples)
        self._centre = np.zeros(len(self.final))
        self._centre = self._centres(how.centring if isinstance(how, Normalisation) else how)

    @property
    def has_counts(self) -> bool:
        """Whether the matrix has counts."""
        return self._batches is not None

    @property
    def has_expected(self) -> bool:
        """Whether the reads that are expected of each value are asked for."""
        return isinstance(self._how, Normalisation) and self._how.keep_counts

    @property
    def has_plasmid(self) -> bool:
        """Whether the counts of the plasmid samples are known."""
        return self._batches is not None and self._batches.n_batches > 0

    def blocks(self) -> Iterator[tuple[np.ndarray, Cells]]:
        """Yield the positions of some sgRNAs, by gene, and their centred values."""
        height = max(1, ROWS_IN_BLOCK // len(self.final))
        for start in range(0, len(self.order), height):
            positions = self.order[start : start + height]
            cells = self._cells(positions)
            self._refuse_no_fold_change(positions, cells.lfc)
            yield positions, cells

    def _cells(self, positions: np.ndarray) -> Cells:
        values = self.library.matrix.values.rows(positions)
        if not isinstance(self._how, Normalisation):
            lfc = values[:, self.final] - self._centre
            return Cells(lfc, None, None, np.zeros(lfc.shape, dtype=bool))
        assert self._batches is not None and self._totals is not None
        lfc, low = fold_changes(values, self._totals, self._batches, self._how)
        initial = None
        if self._batches.n_batches:
            initial = batch_means(values, self._batches)[:, self._batches.batch[self.final]]
        lfc, low = lfc[:, self.final] - self._centre, low[:, self.final]
        expected = None
        if self._how.keep_counts:
            expected = expected_counts(values, self._totals, self._batches)[:, self.final] * 2**self._centre
            without = ~(expected > 0) & ~np.isnan(lfc)
            lfc[without], low = np.nan, low | without
        return Cells(lfc, values[:, self.final], initial, low, expected)

    def _reads(self, samples: Samples) -> np.ndarray:
        matrix = self.library.matrix
        totals = np.zeros(len(samples.names))
        for index in matrix.values.row_blocks():
            totals += np.nansum(matrix.values.rows(index), axis=0)
        empty = np.flatnonzero((totals == 0) & (samples.kept | samples.initial))
        if len(empty):
            problem = f"sample {shown(samples.names[empty[0]])} has no reads"
            raise fault(matrix.source, problem, cure="take it out of the matrix")
        return np.where(totals > 0, totals, np.nan)

    def _centres(self, centring: Centring) -> np.ndarray:
        if centring.on == "none":
            return self._centre
        source, names = self.library.matrix.source, self.library.samples.names
        if centring.on == "median":
            with Spool(self.library.matrix.values.folder, len(self.final)) as turned:
                for index in self.library.matrix.values.row_blocks(self.order):
                    turned.append(self._cells(index).lfc)
                found = np.concatenate([centres(block) for _, block in turned.column_blocks()])
        else:
            controls = self.order[[self.symbols[place] in centring.genes for place in self.order]]
            if not len(controls):
                problem = f"none of the {len(centring.genes):,} non-essential genes is in the screen"
                raise fault(source, problem, cure="give a list of the same kind of gene names")
            blocks = self.library.matrix.values.row_blocks(controls)
            found = centres(np.concatenate([self._cells(index).lfc for index in blocks]))
        if np.isnan(found).any():
            problem = f"sample {shown(names[self.final[np.argmax(np.isnan(found))]])} has no value to be centred on"
            raise fault(source, problem, cure="take the sample out, or do not centre")
        return found

    def _refuse_no_fold_change(self, positions: np.ndarray, lfc: np.ndarray) -> None:
        wrong = np.abs(lfc) > LARGEST_LFC  # NaN compares false
        if not wrong.any():
            return
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        matrix, names = self.library.matrix, self.library.samples.names
        where = f"sgRNA {shown(matrix.entities[positions[row]])}, sample {shown(names[self.final[column]])}"
        problem = f"{lfc[row, column]:g} is no log2 fold change (within [-{LARGEST_LFC:g}, {LARGEST_LFC:g}])"
        raise fault(matrix.source, where, problem, cure="correct it, or, if the table has counts, import it as such")
