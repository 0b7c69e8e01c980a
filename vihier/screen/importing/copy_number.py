"""Copy number of each row's gene in its line, looked up in a matrix of lines by genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vihier.screen.importing.matrix import read_matrix
from vihier.screen.importing.symbols import symbol_of


class CopyNumber:
    """A matrix of lines by genes, such as DepMap's ``OmicsCNGene``; values are carried as they are.

    Parameters
    ----------
    path
        The matrix, in text or in Chronos's HDF5 layout, genes as ``SYMBOL`` or ``SYMBOL (ENTREZ)``.
    folder
        Where the temporary file is made.
    lines
        Lines of the screen.

    Raises
    ------
    VihierError
        No such matrix, or none that has the lines.
    """

    def __init__(self, path: Path, folder: Path, lines: list[str]) -> None:
        self.matrix = read_matrix(path, folder, "copy number", samples=lines)
        self._line = {line: place for place, line in enumerate(self.matrix.samples)}
        self._gene = {gene: place for place, gene in enumerate(self.matrix.entities)}
        self._symbol: dict[str, int] = {}
        shared: set[str] = set()
        for gene, place in self._gene.items():
            if self._symbol.setdefault(symbol_of(gene), place) != place:
                shared.add(symbol_of(gene))
        # A symbol that two genes share says nothing about either.
        for symbol in shared:
            del self._symbol[symbol]

    def lines_without(self, lines: list[str]) -> list[str]:
        """Return the lines that the matrix does not have."""
        return [line for line in lines if line not in self._line]

    def at(self, genes: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """Return the copy number, [genes, lines], NaN where it is not known.

        Parameters
        ----------
        genes
            Object [k], as the guide map writes them; few different ones.
        lines
            Object [F].
        """
        row = np.array([self._gene.get(gene, self._symbol.get(symbol_of(gene), -1)) for gene in genes])
        column = np.array([self._line.get(line, -1) for line in lines])
        found, place = np.unique(row[row >= 0], return_inverse=True)
        values = np.full((len(row), len(column)), np.nan)
        known = column >= 0
        if len(found) and known.any():
            read = self.matrix.values.rows(found)
            values[np.ix_(row >= 0, known)] = read[place][:, column[known]]
        return values
