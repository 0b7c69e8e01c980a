"""One row for each sgRNA and each gene: do the sgRNAs of a gene agree."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.quality.accumulate import Sums
from vihier.quality.limits import robust_z
from vihier.quality.replicates import named
from vihier.screen.screen import ScreenIndex


def sgrna_quality_table(index: ScreenIndex, sums: Sums) -> pd.DataFrame:
    """Return a table of the sgRNAs, in the order of the screen.

    Returns
    -------
    DataFrame
        `sgrna`, `hugo_symbol`, `screen` where there is one; `n_lines` it was measured in; `mean`, its mean lfc over
        them, and `sd` over them; `n_others`, how many other sgRNAs its gene has in the library, and `others`, the
        median of their means; `difference` from it, and `z`, the same in robust standard deviations (1.4826 MAD) of the
        library. NaN where a gene has no other sgRNA.
    """
    # Codes of genes in libraries.
    pair = index.gene_of_sgrna * (sums.screen_of_sgrna.max(initial=0) + 1) + sums.screen_of_sgrna
    others = median_of_others(sums.sgrna_mean, pair)
    difference = sums.sgrna_mean - others
    return pd.DataFrame(
        {
            "sgrna": index.sgrnas,
            "hugo_symbol": index.genes[index.gene_of_sgrna],
            **named("screen", index, sums.screen_of_sgrna),
            "n_lines": sums.n_of_sgrna,
            "mean": sums.sgrna_mean,
            "sd": sums.sgrna_sd,
            "n_others": np.bincount(pair)[pair] - 1,
            "others": others,
            "difference": difference,
            "z": robust_z(difference, sums.screen_of_sgrna),
        }
    )


def median_of_others(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return for each value the median of the others of its group, float64 [n]; NaN where there are none.

    The median, because the mean of the others would follow the one that is off, and accuse them all.

    Parameters
    ----------
    values
        float64 [n].
    groups
        int [n].

    Examples
    --------
    >>> median_of_others(np.array([1.0, 2.0, 9.0, 4.0, 5.0]), np.array([0, 0, 0, 0, 1])).tolist()
    [4.0, 4.0, 2.0, 2.0, nan]
    """
    order = np.lexsort((values, groups))
    ordered, grouped = values[order], groups[order]
    start = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    size = np.diff(np.r_[start, len(values)])
    first, n = np.repeat(start, size), np.repeat(size, size)
    rank = np.arange(len(values)) - first
    # Of the n - 1 others, the middle one or the two middle ones; those from this value's rank on stand one place later.
    low, high = (n - 2) // 2, (n - 1) // 2
    middle = [ordered[np.minimum(first + place + (place >= rank), len(values) - 1)] for place in (low, high)]
    found = np.empty(len(values))
    found[order] = np.where(n > 1, (middle[0] + middle[1]) / 2, np.nan)
    return found


def gene_quality_table(index: ScreenIndex, sgrnas: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the genes, one row a gene and library.

    Parameters
    ----------
    index
        Labels of the screen.
    sgrnas
        Its `sgrna_quality_table`.

    Returns
    -------
    DataFrame
        `hugo_symbol`, `screen` where there is one; `n_sgrnas`; `mean` of its sgRNAs' mean lfc, `sd` between them, and
        `n_outliers`, its sgRNAs whose `z` is beyond 5.
    """
    by = ["hugo_symbol", "screen"] if "screen" in sgrnas else ["hugo_symbol"]
    outlier = (sgrnas["z"].abs() > 5).astype(np.int64)
    grouped = sgrnas.assign(outlier=outlier).groupby(by, sort=True)
    return grouped.agg(
        n_sgrnas=("sgrna", "size"), mean=("mean", "mean"), sd=("mean", "std"), n_outliers=("outlier", "sum")
    ).reset_index()
