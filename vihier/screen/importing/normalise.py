"""Read counts -> log2 fold changes: each step is one function, and what was done is said in words.

The steps are those of the DepMap pipeline (Dempster et al. 2019, doi:10.1101/720243): reads per million, a pseudocount,
log2, minus the plasmid pool that the replicate was started from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vihier.errors import VihierError

MILLION = 1e6


@dataclass(frozen=True)
class Centring:
    """What is subtracted from each replicate's fold changes.

    Attributes
    ----------
    on
        ``"none"``: nothing. ``"median"``: the replicate's median over all its sgRNAs. ``"nonessential"``: its median
        over the sgRNAs of ``genes``.
    genes
        Symbols of genes whose loss changes nothing, such as Hart's NEGv1.

    Raises
    ------
    VihierError
        ``"nonessential"`` without genes, or genes without ``"nonessential"``.

    Examples
    --------
    >>> Centring("median").describe()
    "minus the replicate's median"
    """

    on: Literal["none", "median", "nonessential"] = "none"
    genes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.on not in ("none", "median", "nonessential"):
            raise VihierError(f"centring {self.on!r}: unknown; use 'none', 'median' or 'nonessential'")
        if (self.on == "nonessential") != bool(self.genes):
            raise VihierError(
                "centring on non-essential genes needs a list of them, and no other centring does; give both "
                "--centre nonessential and --nonessential GENES.txt, or neither"
            )

    def describe(self) -> str:
        """Return it in words; an empty string for none."""
        if self.on == "none":
            return ""
        return "minus the replicate's median" + (" over non-essential genes" if self.on == "nonessential" else "")


@dataclass(frozen=True)
class Normalisation:
    """How counts become log2 fold changes.

    Attributes
    ----------
    reads_per_million
        Divide each sample's counts by its total and multiply by a million.
    pseudocount
        Added before the logarithm; in reads per million, or in reads without ``reads_per_million``.
    minus_plasmid
        Subtract the mean log2 abundance over the plasmid (or initial) samples of the replicate's own batch.
    min_plasmid
        Leave out an sgRNA's values in the replicates of a batch in whose plasmid samples its mean abundance is lower;
        in the unit of ``pseudocount``.
    centring
        What is subtracted from each replicate at the end.
    keep_counts
        Have the column ``counts_expected`` beside ``counts_final``, for a fit of the counts themselves, and leave out
        values of sgRNAs without reads in the plasmid samples of the batch.

    Raises
    ------
    VihierError
        A pseudocount that is not positive, or a negative ``min_plasmid``.

    Examples
    --------
    >>> Normalisation().describe()
    'log2(reads per million + 1) minus the mean of its plasmid batch'
    """

    reads_per_million: bool = True
    pseudocount: float = 1.0
    minus_plasmid: bool = True
    min_plasmid: float = 0.0
    centring: Centring = field(default_factory=Centring)
    keep_counts: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.pseudocount) and self.pseudocount > 0):
            raise VihierError(f"pseudocount {self.pseudocount:g}: must be above 0, or counts of 0 have no logarithm")
        if not (math.isfinite(self.min_plasmid) and self.min_plasmid >= 0):
            raise VihierError(f"lowest plasmid abundance {self.min_plasmid:g}: must be 0 or above")

    @property
    def needs_plasmid(self) -> bool:
        """Whether every replicate must have plasmid samples in its batch."""
        return self.minus_plasmid or self.min_plasmid > 0 or self.keep_counts

    @property
    def unit(self) -> str:
        """What abundances are counted in."""
        return "reads per million" if self.reads_per_million else "reads"

    def describe(self) -> str:
        """Return what ``lfc`` is, in words."""
        parts = [f"log2({self.unit} + {self.pseudocount:g})"]
        if self.minus_plasmid:
            parts.append("minus the mean of its plasmid batch")
        if self.min_plasmid:
            parts.append(f"where that batch has at least {self.min_plasmid:g} {self.unit} of the sgRNA")
        return ", ".join([" ".join(parts), *filter(None, [self.centring.describe()])])


@dataclass(frozen=True, eq=False)
class Batches:
    """Which samples are plasmid (or initial) ones, and which belong together.

    Attributes
    ----------
    initial
        bool [R].
    batch
        int [R], from 0; -1 for a sample without one.
    n_batches
        Number of batches, B.
    """

    initial: np.ndarray
    batch: np.ndarray
    n_batches: int


def abundance(counts: np.ndarray, totals: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """Return counts [S, R] as reads per million of the sample's total [R], or as they are.

    Examples
    --------
    >>> abundance(np.array([[1.0], [3.0]]), np.array([4.0]), Normalisation()).ravel().tolist()
    [250000.0, 750000.0]
    """
    return counts / totals * MILLION if normalisation.reads_per_million else counts


def batch_means(values: np.ndarray, batches: Batches) -> np.ndarray:
    """Return the mean over the plasmid samples of each batch, [S, B]; missing values do not count.

    Parameters
    ----------
    values
        [S, R].
    batches
        Of the R samples.

    Returns
    -------
    numpy.ndarray
        NaN where a batch has no value.

    Examples
    --------
    >>> pools = Batches(np.array([True, True, False]), np.array([0, 0, 0]), 1)
    >>> batch_means(np.array([[1.0, 3.0, 9.0]]), pools)
    array([[2.]])
    """
    means = np.full((len(values), batches.n_batches), np.nan)
    for batch in range(batches.n_batches):
        of_batch = values[:, batches.initial & (batches.batch == batch)]
        n = (~np.isnan(of_batch)).sum(axis=1)
        there = n > 0
        means[there, batch] = np.nansum(of_batch[there], axis=1) / n[there]
    return means


def fold_changes(
    counts: np.ndarray, totals: np.ndarray, batches: Batches, normalisation: Normalisation
) -> tuple[np.ndarray, np.ndarray]:
    """Return log2 fold changes before centring.

    Parameters
    ----------
    counts
        [S, R], NaN is missing.
    totals
        [R], all reads of each sample.
    batches
        Of the R samples.
    normalisation
        What to do.

    Returns
    -------
    tuple
        ``lfc`` [S, R], NaN where there is none and in the columns of plasmid samples; and which values [S, R] are
        missing because the plasmid pool has too few reads of the sgRNA.

    Examples
    --------
    >>> pools = Batches(np.array([True, False]), np.array([0, 0]), 1)
    >>> counts = np.array([[3.0, 0.0], [7.0, 10.0]])
    >>> plain = Normalisation(reads_per_million=False)
    >>> fold_changes(counts, counts.sum(axis=0), pools, plain)[0][:, 1].round(3).tolist()
    [-2.0, 0.459]
    """
    abundances = abundance(counts, totals, normalisation)
    lfc = np.log2(abundances + normalisation.pseudocount)
    if normalisation.minus_plasmid:
        lfc = lfc - _of_sample(batch_means(lfc, batches), batches)
    lfc[:, batches.initial] = np.nan
    low = np.zeros(lfc.shape, dtype=bool)
    if normalisation.min_plasmid:
        pool = _of_sample(batch_means(abundances, batches), batches)
        low = ~(pool >= normalisation.min_plasmid) & ~np.isnan(lfc)
        lfc[low] = np.nan
    return lfc, low


def expected_counts(counts: np.ndarray, totals: np.ndarray, batches: Batches) -> np.ndarray:
    """Return how many reads of each sgRNA a sample would have, were its share of them that in its plasmid samples.

    Arguments as of ``fold_changes``; [S, R], NaN where the plasmid samples have no value.

    Examples
    --------
    >>> pools = Batches(np.array([True, False]), np.array([0, 0]), 1)
    >>> counts = np.array([[1.0, 0.0], [3.0, 20.0]])
    >>> expected_counts(counts, counts.sum(axis=0), pools)[:, 1].tolist()
    [5.0, 15.0]
    """
    return _of_sample(batch_means(counts / totals, batches), batches) * totals


def centres(lfc: np.ndarray) -> np.ndarray:
    """Return each replicate's median [R] over the sgRNAs of ``lfc`` [S, R]; NaN where it has no value.

    Examples
    --------
    >>> centres(np.array([[1.0, np.nan], [2.0, np.nan], [9.0, np.nan]]))
    array([ 2., nan])
    """
    found = np.full(lfc.shape[1], np.nan)
    there = ~np.isnan(lfc).all(axis=0)
    found[there] = np.nanmedian(lfc[:, there], axis=0)
    return found


def _of_sample(of_batch: np.ndarray, batches: Batches) -> np.ndarray:
    """Return values of batches [S, B] at each sample, [S, R]; NaN for a sample without a batch."""
    missing = np.full((len(of_batch), 1), np.nan)
    return np.concatenate([of_batch, missing], axis=1)[:, batches.batch]
