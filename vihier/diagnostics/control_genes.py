"""Reference genes: essential ones, which every line needs, and non-essential ones, which none does.

Hart et al. (2017, G3 7, 2719) give CEGv2 and NEGv1; the Achilles controls come with Chronos (Dempster et al. 2021,
Genome Biology 22, 343).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Set
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from vihier.errors import VihierError
from vihier.screen.faults import shown


@dataclass(frozen=True)
class ControlGenes:
    """Symbols of reference genes.

    Attributes
    ----------
    essential
        Genes whose loss every line is expected to suffer from.
    nonessential
        Genes whose loss is expected to change nothing.

    Raises
    ------
    VihierError
        A gene is in both.

    Examples
    --------
    >>> ControlGenes(frozenset({"POLR2A"}), frozenset({"KRT1", "OR1A1"})).among(["KRAS", "KRT1", "POLR2A"])
    (array([2]), array([1]))
    """

    essential: Set[str]
    nonessential: Set[str]

    def __post_init__(self) -> None:
        both = sorted(self.essential & self.nonessential)
        if both:
            more = f" (and {len(both) - 1:,} more)" if len(both) > 1 else ""
            raise VihierError(f"control genes: {shown(both[0])}{more} is in both lists; take it out of one of them")

    def among(self, genes: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return positions of the essential and of the non-essential ones among `genes`.

        Raises
        ------
        VihierError
            None of one kind is there.
        """
        listed = list(genes)
        found = []
        for kind, symbols in (("essential", self.essential), ("non-essential", self.nonessential)):
            found.append(np.array([place for place, gene in enumerate(listed) if gene in symbols], dtype=np.int64))
            if not len(found[-1]):
                listing = f"{kind} genes: none of the {len(symbols):,} listed is among the {len(listed):,} genes"
                raise VihierError(f"{listing}; list them by symbol, such as {shown(listed[0])}")
        return found[0], found[1]


def read_control_genes(essential: str | PathLike[str], nonessential: str | PathLike[str]) -> ControlGenes:
    """Read two lists of genes: one a line, or a table with a column 'gene'; as SYMBOL or SYMBOL (ENTREZ).

    Raises
    ------
    VihierError
        A file that cannot be read or is no list; a gene that is in both.
    """
    from vihier.screen.importing.maps import read_genes

    return ControlGenes(read_genes(Path(essential)), read_genes(Path(nonessential)))


def separation(effect: pd.DataFrame, controls: ControlGenes) -> pd.DataFrame:
    """Separate essential from non-essential genes in every line.

    Parameters
    ----------
    effect
        Effects (log2 fold change), lines as rows and genes as columns; missing ones are left out.
    controls
        Which genes to take for one and the other.

    Returns
    -------
    DataFrame
        A row a line. ``auroc``: probability that an essential gene has a lower effect than a non-essential one, ties
        counting half. ``nnmd``: (median of essential - median of non-essential) / MAD of non-essential. NaN where a
        line lacks one kind, or its non-essential genes are all the same.

    Raises
    ------
    VihierError
        No gene of one kind is among the columns.

    Examples
    --------
    >>> effect = pd.DataFrame([[-2.0, -1.0, 0.0, 1.0, 3.0]], index=["line"], columns=["e1", "e2", "n1", "n2", "n3"])
    >>> separation(effect, ControlGenes({"e1", "e2"}, {"n1", "n2", "n3"}))
          auroc  nnmd
    line    1.0  -2.5
    """
    low, high = (effect.iloc[:, places].to_numpy() for places in controls.among(effect.columns))
    ranks = rankdata(np.hstack([low, high]), axis=1, nan_policy="omit")
    n_low, n_high = (np.isfinite(part).sum(axis=1) for part in (low, high))
    mann_whitney = np.nansum(ranks[:, : low.shape[1]], axis=1) - n_low * (n_low + 1) / 2
    with warnings.catch_warnings():
        # Of lines without a gene of one kind.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        middle = np.nanmedian(high, axis=1)
        mad = np.nanmedian(np.abs(high - middle[:, None]), axis=1)
        distance = np.nanmedian(low, axis=1) - middle
    missing = np.full(len(effect), np.nan)
    pairs = n_low * n_high
    return pd.DataFrame(
        {
            "auroc": 1 - np.divide(mann_whitney, pairs, out=missing.copy(), where=pairs > 0),
            "nnmd": np.divide(distance, mad, out=missing.copy(), where=mad > 0),
        },
        index=effect.index,
    )


# Share of true essential genes among those called at which recall is given: a false discovery rate of 5 %.
PRECISION = 0.95


def precision_recall(effect: pd.DataFrame, controls: ControlGenes) -> pd.DataFrame:
    """Judge every line by its ranking of the control genes, lowest effect first.

    Precision depends on how many genes of each kind there are, so compare lines of one screen, not screens.

    Parameters
    ----------
    effect
        Effects, lines as rows and genes as columns; missing ones are left out.
    controls
        Which genes to take for one and the other.

    Returns
    -------
    DataFrame
        A row a line. ``average_precision``: precision averaged over the ranks of the essential genes (the area under
        the precision-recall curve); of equal effects non-essential genes come first. ``recall``: the largest share of
        the essential genes found while at least 95 % of those ranked so far are essential.

    Raises
    ------
    VihierError
        No gene of one kind is among the columns.

    Examples
    --------
    >>> effect = pd.DataFrame([[-2.0, 0.1, 0.0, 1.0, 3.0]], index=["line"], columns=["e1", "e2", "n1", "n2", "n3"])
    >>> precision_recall(effect, ControlGenes({"e1", "e2"}, {"n1", "n2", "n3"})).round(3)
          average_precision  recall
    line              0.833     0.5
    """
    low, high = (effect.iloc[:, places].to_numpy() for places in controls.among(effect.columns))
    both = np.hstack([high, low])
    # Missing effects are sorted last, and count as neither.
    order = np.argsort(both, axis=1, kind="stable")
    essential = (order >= high.shape[1]) & np.isfinite(np.take_along_axis(both, order, axis=1))
    found = essential.cumsum(axis=1)
    precision = found / np.arange(1, both.shape[1] + 1)
    n_low = np.isfinite(low).sum(axis=1)
    recalled = np.where(precision >= PRECISION, found, 0).max(axis=1)
    share = {"average_precision": (precision * essential).sum(axis=1), "recall": recalled}
    missing = np.full(len(n_low), np.nan)
    return pd.DataFrame(
        {name: np.divide(total, n_low, out=missing.copy(), where=n_low > 0) for name, total in share.items()},
        index=effect.index,
    )
