"""One row for each replicate: is it like the others of its line, and unlike those of other lines."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from vihier.diagnostics.control_genes import ControlGenes
from vihier.quality.accumulate import Sums
from vihier.quality.limits import robust_z
from vihier.screen.screen import ScreenIndex

# sgRNAs that two replicates must have in common, and lines that a library must have for "what they share" to mean
# something.
LEAST_SGRNAS, LEAST_LINES = 50, 4


def replicate_table(index: ScreenIndex, sums: Sums, controls: ControlGenes | None = None) -> pd.DataFrame:
    """Return a table of the replicates, in the order of the screen.

    Parameters
    ----------
    index
        Labels of the screen.
    sums
        Its `sum_rows`.
    controls
        Where they are given, levels and spreads are those of the non-essential genes.

    Returns
    -------
    DataFrame
        `replicate`, `depmap_id`, and where the screen has them `screen`, `p_dna_batch`, `lineage`;

        - `n_sgrnas`, and `coverage`, their share of all sgRNAs of the library;
        - `median_lfc` and `spread` (1.4826 MAD) over genes, and `shift`, robust standard deviations of the median
          from those of the library's replicates;
        - `n_others`, how many other replicates the line has in the library; `correlation`, the mean Pearson correlation
          with them over sgRNAs, and `specific_correlation`, the same with what all replicates have in common (each
          sgRNA's mean) held constant: it is near 0 for replicates of different lines;
        - `most_like`, the replicate of another line with the highest specific correlation, and `stranger`, by how much
          it exceeds that with its own line (which tells swapped labels);
        - `reads` and `zero_counts` (share of sgRNAs) where there are counts.
    """
    line = index.line_of_replicate
    library = sums.screen_of_replicate
    per_library = np.bincount(sums.screen_of_sgrna[sums.n_of_sgrna > 0])
    quiet = sums.gene_replicate if controls is None else sums.gene_replicate[controls.among(index.genes)[1]]
    median, spread = median_and_spread(quiet)
    columns: dict[str, np.ndarray] = {"replicate": index.replicates, "depmap_id": index.lines[line]}
    columns |= named("screen", index, library) | named("p_dna_batch", index, sums.batch_of_replicate)
    if index.lineages is not None and index.lineage_of_line is not None:
        columns["lineage"] = index.lineages[index.lineage_of_line[line]]
    columns |= {
        "n_sgrnas": sums.n_of_replicate,
        "coverage": sums.n_of_replicate / per_library[library],
        "median_lfc": median,
        "spread": spread,
        "shift": robust_z(median, library),
        **_likeness(index, sums),
    }
    if sums.reads is not None and sums.zero_counts is not None:
        columns |= {"reads": sums.reads, "zero_counts": sums.zero_counts}
    return pd.DataFrame(columns)


def specific_correlation(sums: Sums) -> np.ndarray:
    """Return the correlation of replicates with each sgRNA's mean over all of them held constant, float64 [R, R].

    A partial correlation (Fisher 1924): NaN where the two have too few sgRNAs in common, and within libraries of few
    lines, where each replicate makes up much of the mean.
    """
    both = sums.pairs.correlation(LEAST_SGRNAS)
    with_mean = both[:-1, -1]
    rest = np.sqrt(np.maximum(1 - with_mean**2, 1e-12))
    found = (both[:-1, :-1] - np.outer(with_mean, with_mean)) / np.outer(rest, rest)
    lines_of = np.bincount(sums.screen_of_group)
    few = lines_of[sums.screen_of_replicate] < LEAST_LINES
    found[few | few[:, None]] = np.nan
    return found


def _likeness(index: ScreenIndex, sums: Sums) -> dict[str, np.ndarray]:
    line, group = index.line_of_replicate, sums.group_of_replicate
    own = np.equal.outer(group, group)
    np.fill_diagonal(own, False)
    raw = sums.pairs.correlation(LEAST_SGRNAS)[:-1, :-1]
    specific = specific_correlation(sums)
    of_own = _mean_where(own, specific)
    others = np.where(np.equal.outer(line, line) | np.isnan(specific), -np.inf, specific)
    best = others.argmax(axis=1)
    highest = others[np.arange(len(best)), best]
    known = np.isfinite(highest)
    return {
        "n_others": own.sum(axis=1),
        "correlation": _mean_where(own, raw),
        "specific_correlation": of_own,
        "most_like": np.where(known, index.replicates[best], None),
        "stranger": np.where(known, highest, np.nan) - of_own,
    }


def _mean_where(chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    chosen = chosen & np.isfinite(values)
    n = chosen.sum(axis=1)
    return np.divide(np.where(chosen, values, 0.0).sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)


def median_and_spread(genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median and 1.4826 MAD of each column [K] of genes [G, K]; missing ones are left out."""
    with warnings.catch_warnings():
        # Of columns without a value, such as a library that lacks all control genes: NaN.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        median = np.nanmedian(genes, axis=0).astype(np.float64)
        return median, 1.4826 * np.nanmedian(np.abs(genes - median), axis=0)


def named(column: str, index: ScreenIndex, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Return a column of labels, or none where the screen has not got it; -1 is missing."""
    if column not in index.categories:
        return {}
    return {column: np.concatenate([index.categories[column], [None]])[codes]}
