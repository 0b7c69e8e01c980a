"""Cells: all replicate rows of one (sgRNA, line) pair, as count, mean and within-cell sum of squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vihier.screen.rows import Rows
from vihier.screen.screen import Screen


@dataclass(frozen=True, eq=False)
class Cells:
    """Statistics of every (sgRNA, line) pair that has rows, in the screen's canonical order.

    Sufficient for the rows when the likelihood is Normal and its noise is common within the cell, and only then.

    Attributes
    ----------
    sgrna, line
        int32 [M] codes, M the number of pairs present; sorted by gene, sgRNA, line.
    n
        int32 [M], rows in the cell.
    mean
        float64 [M], mean lfc (log2 fold change).
    ss
        float64 [M], sum of squared deviations from that mean (0 for a single row).
    """

    sgrna: np.ndarray
    line: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    ss: np.ndarray

    @property
    def n_cells(self) -> int:
        """Number of pairs present, M."""
        return len(self.n)


def cell_statistics(screen: Screen | Rows) -> Cells:
    """Return count, mean and within-cell sum of squares for each (sgRNA, line) pair of a screen, or of some genes.

    The sum of squares is taken about the cell's own mean (two passes), not as a difference of large sums, so it keeps
    its digits when the replicates are close together far from zero.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import cell_statistics, read_screen
    >>> rows = {"sgrna": ["s1", "s1", "s2"], "hugo_symbol": "KRAS", "depmap_id": "ACH-1", "lfc": [1.0, 3.0, -1.0]}
    >>> cells = cell_statistics(read_screen(pd.DataFrame(rows)))
    >>> cells.n.tolist(), cells.mean.tolist(), cells.ss.tolist()
    ([2, 1], [2.0, -1.0], [2.0, 0.0])
    """
    # Canonical order has the rows of a cell side by side.
    n_rows = len(screen.lfc)
    first = np.ones(n_rows, dtype=bool)
    first[1:] = (screen.sgrna[1:] != screen.sgrna[:-1]) | (screen.line[1:] != screen.line[:-1])
    starts = np.flatnonzero(first)
    n = np.diff(starts, append=n_rows)
    mean = np.add.reduceat(screen.lfc, starts) / n
    deviation = screen.lfc - np.repeat(mean, n)
    return Cells(
        sgrna=screen.sgrna[starts],
        line=screen.line[starts],
        n=n.astype(np.int32),
        mean=mean,
        ss=np.add.reduceat(deviation * deviation, starts),
    )
