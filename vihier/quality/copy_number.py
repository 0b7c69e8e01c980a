"""How lfc falls with copy number: cutting DNA many times is toxic, whatever the gene.

Aguirre et al. (2016), Cancer Discovery 6, 914; Munoz et al. (2016), Cancer Discovery 6, 900.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.diagnostics.control_genes import ControlGenes
from vihier.quality.accumulate import Sums
from vihier.screen.screen import ScreenIndex

N_BINS = 10
LEAST_GENES = 20


def copy_number_by_line(index: ScreenIndex, sums: Sums, controls: ControlGenes | None) -> dict[str, np.ndarray]:
    """Return columns [K]: slope (log2 fold change for one unit of the table's `copy_number`), and correlation.

    Of each gene's lfc and copy number its mean over the lines of the library is taken off first, and of each line its
    mean over genes: what is left is the line's own copy number against the line's own lfc. Of non-essential genes
    alone where they are given, since a real dependency on an amplified gene looks the same. NaN below 20 genes.
    """
    lfc, copies = _residuals(index, sums, controls)
    there = np.isfinite(lfc)
    enough = there.sum(axis=0) >= LEAST_GENES
    xx, yy = np.nansum(copies**2, axis=0), np.nansum(lfc**2, axis=0)
    xy = np.nansum(copies * lfc, axis=0)
    varies = enough & (xx > 0) & (yy > 0)
    empty = np.full(len(xx), np.nan)
    return {
        "copy_number_slope": np.divide(xy, xx, out=empty.copy(), where=varies),
        "copy_number_correlation": np.divide(xy, np.sqrt(xx * yy), out=empty.copy(), where=varies),
    }


def copy_number_trend(index: ScreenIndex, sums: Sums, controls: ControlGenes | None) -> pd.DataFrame:
    """Return how genes fare in ten bins of copy number, each of a tenth of the gene x line pairs (ties apart).

    Returns
    -------
    DataFrame
        `from`, `to` (of `copy_number` as it is in the table), `n` pairs, and `lfc`, the mean of what is left of lfc
        when the means of its gene and its line are taken off, with its standard error `se`.
    """
    lfc, _ = _residuals(index, sums, controls)
    assert sums.gene_line_copies is not None
    copies = sums.gene_line_copies[_genes(index, controls)][:, sums.line_of_group]
    there = np.isfinite(lfc) & np.isfinite(copies)
    x, y = copies[there].astype(np.float64), lfc[there]
    if not len(x):
        return pd.DataFrame({name: np.array([]) for name in ("from", "to", "n", "lfc", "se")})
    edges = np.unique(np.quantile(x, np.linspace(0, 1, N_BINS + 1)))
    part = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = pd.DataFrame({"bin": part, "y": y}).groupby("bin")["y"].agg(n="size", lfc="mean", se="sem")
    ends = np.minimum(found.index.to_numpy() + 1, len(edges) - 1)
    bounds = pd.DataFrame({"from": edges[found.index.to_numpy()], "to": edges[ends]})
    return pd.concat([bounds, found.reset_index(drop=True)], axis=1)


def _genes(index: ScreenIndex, controls: ControlGenes | None) -> np.ndarray:
    return np.arange(len(index.genes)) if controls is None else controls.among(index.genes)[1]


def _residuals(index: ScreenIndex, sums: Sums, controls: ControlGenes | None) -> tuple[np.ndarray, np.ndarray]:
    """Return lfc and copy number [G', K] without means of gene (in the library) and line; NaN where one is missing."""
    assert sums.gene_line_copies is not None
    genes = _genes(index, controls)
    lfc = sums.gene_group[genes].astype(np.float64)
    copies = sums.gene_line_copies[genes][:, sums.line_of_group].astype(np.float64)
    missing = np.isnan(lfc) | np.isnan(copies)
    lfc[missing] = copies[missing] = np.nan
    for values in (lfc, copies):
        for library in np.unique(sums.screen_of_group):
            here = sums.screen_of_group == library
            values[:, here] -= _mean(values[:, here], axis=1)
        values -= _mean(values, axis=0)
    return lfc, copies


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    n = np.isfinite(values).sum(axis=axis, keepdims=True)
    return np.divide(np.nansum(values, axis=axis, keepdims=True), n, out=np.full(n.shape, np.nan), where=n > 0)
