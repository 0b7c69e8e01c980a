"""Correlations from sums that are added up block by block: of replicates, and of the sgRNAs of a gene."""

from __future__ import annotations

import numpy as np


class PairSums:
    """Sums for the correlation of all pairs of columns over the rows where both have a value.

    Parameters
    ----------
    n_columns
        How many.

    Examples
    --------
    >>> pairs = PairSums(2)
    >>> pairs.add(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [9.0, np.nan]], dtype=np.float32))
    >>> pairs.correlation().round(6).tolist(), pairs.n.tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [[4.0, 3.0], [3.0, 3.0]])
    """

    def __init__(self, n_columns: int) -> None:
        # Of each pair (a, b): rows, sum of a, sum of a squared, sum of a b.
        self.n, self.sum, self.square, self.product = np.zeros((4, n_columns, n_columns))

    def add(self, values: np.ndarray) -> None:
        """Add rows, float32 [n, n_columns]; NaN is missing."""
        # In float32, whose error in sums of a block is 1e-6 of them, and in float64 from block to block.
        there = np.isfinite(values)
        filled = np.where(there, values, np.float32(0))
        mask = there.astype(np.float32)
        self.n += mask.T @ mask
        self.sum += filled.T @ mask
        self.square += (filled * filled).T @ mask
        self.product += filled.T @ filled

    def correlation(self, least: int = 3) -> np.ndarray:
        """Return Pearson's correlation [n_columns, n_columns]; NaN of pairs with fewer than `least` rows in common."""
        n = np.where(self.n >= least, self.n, np.nan)
        mean = self.sum / n
        variance = np.maximum(self.square / n - mean**2, 0)
        covariance = self.product / n - mean * mean.T
        scale = np.sqrt(variance * variance.T)
        return covariance / np.where(scale > 0, scale, np.nan)


class AgreementSums:
    """Sums for the intraclass correlation of a gene's sgRNAs, for each of some columns.

    One-way random effects, ICC(1) of Shrout & Fleiss (1979), Psychological Bulletin 86(2): the share of the variance of
    sgRNAs that lies between genes, for genes of unequal numbers of sgRNAs.

    Parameters
    ----------
    n_columns
        How many.
    """

    def __init__(self, n_columns: int) -> None:
        self.genes, self.n, self.n_square, self.within, self.between, self.total = np.zeros((6, n_columns))

    def add(self, count: np.ndarray, total: np.ndarray, square: np.ndarray) -> None:
        """Add genes: number, sum and sum of squares of their sgRNAs, each float64 [n_genes, n_columns]."""
        several = count >= 2
        count, total, square = (np.where(several, values, 0.0) for values in (count, total, square))
        of_gene = total**2 / np.where(several, count, 1.0)
        self.genes += several.sum(axis=0)
        self.n += count.sum(axis=0)
        self.n_square += (count**2).sum(axis=0)
        self.within += (square - of_gene).sum(axis=0)
        self.between += of_gene.sum(axis=0)
        self.total += total.sum(axis=0)

    def icc(self) -> np.ndarray:
        """Return the intraclass correlation [n_columns]; NaN with fewer than two genes of two sgRNAs."""
        enough = self.genes >= 2
        genes, n = np.where(enough, self.genes, 2.0), np.where(enough, self.n, 4.0)
        among = (self.between - self.total**2 / n) / (genes - 1)
        inside = np.maximum(self.within, 0) / (n - genes)
        typical = (n - self.n_square / n) / (genes - 1)
        scale = among + (typical - 1) * inside
        return np.divide(among - inside, scale, out=np.full(len(n), np.nan), where=enough & (scale > 0))
