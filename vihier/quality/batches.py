"""One row for each plasmid batch: do its replicates have in common what others of the library have not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.quality.accumulate import Sums
from vihier.quality.replicates import named, specific_correlation
from vihier.screen.screen import ScreenIndex


def batch_table(index: ScreenIndex, sums: Sums, replicates: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the plasmid batches; without rows where the screen has no column `p_dna_batch`.

    Parameters
    ----------
    index
        Labels of the screen.
    sums
        Its `sum_rows`.
    replicates
        Its `replicate_table`.

    Returns
    -------
    DataFrame
        `p_dna_batch`, `screen` where there is one; `n_replicates`, `n_lines`; `median_lfc`, the median of its
        replicates', and `shift`, how far it is from that of the library's other batches (log2 fold change); and of
        pairs of replicates of different lines their mean `specific_correlation` `within` the batch, and with the
        library's other batches (`across`), and `excess_correlation`, the difference. A batch that shares nothing of
        its own has an excess of 0.
    """
    columns = ("p_dna_batch", "screen", "n_replicates", "n_lines", "median_lfc", "shift", "within", "across")
    batch, library = sums.batch_of_replicate, sums.screen_of_replicate
    line = index.line_of_replicate
    specific = specific_correlation(sums)
    specific[np.equal.outer(line, line)] = np.nan
    rows = []
    for code, of_library in sorted({(code, lib) for code, lib in zip(batch, library, strict=True) if code >= 0}):
        here = (batch == code) & (library == of_library)
        others = ~here & (library == of_library)
        level = np.median(replicates["median_lfc"][here])
        shift = level - np.median(replicates["median_lfc"][others]) if others.any() else np.nan
        within, across = _mean(specific[np.ix_(here, here)]), _mean(specific[np.ix_(here, others)])
        rows.append((code, of_library, here.sum(), len(np.unique(line[here])), level, shift, within, across))
    table = pd.DataFrame(rows, columns=list(columns))
    table["excess_correlation"] = table["within"] - table["across"]
    codes = table.pop("p_dna_batch").to_numpy(np.int64), table.pop("screen").to_numpy(np.int64)
    labels = {**named("p_dna_batch", index, codes[0]), **named("screen", index, codes[1])}
    return pd.concat([pd.DataFrame(labels, index=table.index), table], axis=1)


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
