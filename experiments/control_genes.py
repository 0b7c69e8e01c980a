"""How well effects separate reference essential genes from non-essential ones, line by line.

Hart et al. (2017, G3 7, 2719) give CEGv2 and NEGv1; the Achilles controls come with Chronos (Dempster et al. 2021).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

SETS = {
    "achilles": ("AchillesCommonEssentialControls.csv", "AchillesNonessentialControls.csv", ","),
    "hart": ("CEGv2.txt", "NEGv1.txt", "\t"),
}


def read_gene_sets(folder: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Read the reference sets: name -> symbols of essential genes, symbols of non-essential genes."""
    sets = {}
    for name, (essential, nonessential, separator) in SETS.items():
        files = [pd.read_csv(folder / file, sep=separator).iloc[:, 0] for file in (essential, nonessential)]
        # Achilles writes "AAMP (14)": the symbol and the Entrez number.
        first, second = (set(symbols.str.split(" ").str[0]) for symbols in files)
        sets[name] = (first, second)
    return sets


def separation(effect: pd.DataFrame, essential: set[str], nonessential: set[str]) -> pd.DataFrame:
    """Separate the two sets in every line.

    Parameters
    ----------
    effect
        Effects (log2 fold change), lines as rows and genes as columns; missing ones are left out.
    essential, nonessential
        Symbols.

    Returns
    -------
    DataFrame
        A row a line. ``auroc``: probability that an essential gene has a lower effect than a non-essential one, ties
        counting half. ``nnmd``: (median of essential - median of non-essential) / MAD of non-essential.
    """
    low = effect.loc[:, effect.columns.isin(essential)].to_numpy()
    high = effect.loc[:, effect.columns.isin(nonessential)].to_numpy()
    ranks = rankdata(np.hstack([low, high]), axis=1, nan_policy="omit")
    n_low, n_high = (np.isfinite(part).sum(axis=1) for part in (low, high))
    mann_whitney = np.nansum(ranks[:, : low.shape[1]], axis=1) - n_low * (n_low + 1) / 2
    middle = np.nanmedian(high, axis=1)
    mad = np.nanmedian(np.abs(high - middle[:, None]), axis=1)
    return pd.DataFrame(
        {"auroc": 1 - mann_whitney / (n_low * n_high), "nnmd": (np.nanmedian(low, axis=1) - middle) / mad},
        index=effect.index,
    )
