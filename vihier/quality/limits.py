"""Where a measure of quality becomes a flag: each limit by name, with what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Limit:
    """A bound beyond which a measure is flagged.

    Attributes
    ----------
    measure
        Column of the table.
    about
        What a row of the table is: a replicate, a line, ...
    side
        Whether values below or above are flagged.
    value
        The bound.
    because
        What it rests on.
    two_sided
        Whether it is the size of a measure that counts, whatever its sign.
    """

    measure: str
    about: str
    side: Literal["below", "above"]
    value: float
    because: str
    two_sided: bool = False

    def sizes(self, values: pd.Series) -> np.ndarray:
        """Return what the bound is held to, float64 [n]."""
        numbers = values.to_numpy(np.float64)
        return np.abs(numbers) if self.two_sided else numbers

    def beyond(self, values: pd.Series) -> np.ndarray:
        """Return which values are flagged, bool [n]; a missing one is not.

        Examples
        --------
        >>> Limit("auroc", "line", "below", 0.9, "").beyond(pd.Series([0.8, 0.95, float("nan")])).tolist()
        [True, False, False]
        """
        sizes = self.sizes(values)
        return sizes < self.value if self.side == "below" else sizes > self.value


_ROBUST = "robust standard deviations (1.4826 MAD) from the median of its library; 5 is one in two million of Normals"

SCREEN_LIMITS = (
    Limit("correlation", "replicate", "below", 0.5, "Pearson of sgRNAs; good pooled screens have 0.7 and more"),
    Limit(
        "stranger", "replicate", "above", 0.1, "another line's replicate correlates more than its own line's, by this"
    ),
    Limit("coverage", "replicate", "below", 0.9, "share of the library's sgRNAs that were measured"),
    Limit("zero_counts", "replicate", "above", 0.1, "share of sgRNAs without a single read"),
    Limit("shift", "replicate", "above", 5.0, f"median lfc, in {_ROBUST}", two_sided=True),
    Limit("auroc", "line", "below", 0.9, "essential genes below non-essential ones; 0.5 is chance"),
    Limit(
        "nnmd",
        "line",
        "above",
        -2.0,
        "essential genes' median in MADs of the non-essential genes; about DepMap's -1.25",
    ),
    Limit("shift", "line", "above", 5.0, f"median lfc, in {_ROBUST}", two_sided=True),
    Limit("agreement", "line", "below", 0.1, "share of the variance of sgRNAs that is between genes: 0 without signal"),
    Limit("n_replicates", "line", "below", 2, "nothing to compare a single replicate with"),
    Limit("coverage", "line", "below", 0.9, "share of the library's genes that were measured"),
    Limit("copy_number_correlation", "line", "below", -0.3, "amplified genes look essential: cutting them is toxic"),
    Limit(
        "z",
        "sgRNA",
        "above",
        5.0,
        "mean minus that of the gene's others, in robust standard deviations of all",
        two_sided=True,
    ),
    Limit("n_sgrnas", "gene", "below", 2, "nothing to compare a single sgRNA with"),
    Limit(
        "excess_correlation", "batch", "above", 0.1, "different lines of one batch correlate more than of two, by this"
    ),
)
"""Limits of `screen_quality`."""

FIT_LIMITS = (
    Limit("noise", "replicate", "above", 5.0, f"noise, in {_ROBUST}"),
    Limit("shift", "line", "above", 5.0, f"line effect, in {_ROBUST}", two_sided=True),
    Limit("noise", "line", "above", 5.0, f"noise, in {_ROBUST}"),
    Limit("auroc", "line", "below", 0.9, "posterior means of essential genes below non-essential ones; 0.5 is chance"),
    Limit(
        "nnmd",
        "line",
        "above",
        -2.0,
        "essential genes' median in MADs of the non-essential genes; about DepMap's -1.25",
    ),
    Limit(
        "z",
        "sgRNA",
        "above",
        5.0,
        "alpha_dev in robust standard deviations of all, where its sign is sure (0.99)",
        two_sided=True,
    ),
)
"""Limits of `fit_quality`."""


def robust_z(values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Return how many robust standard deviations (1.4826 MAD) values are from their group's median, with their sign.

    Parameters
    ----------
    values
        float [n]; missing ones stay missing.
    groups
        int [n]; all in one when None. Groups of fewer than five have no outliers: NaN.

    Examples
    --------
    >>> robust_z(np.array([-1.0, 0.0, 1.0, 2.0, 14.826])).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 9.33]
    """
    groups = np.zeros(len(values), dtype=np.int64) if groups is None else groups
    found = np.full(len(values), np.nan)
    for group in np.unique(groups):
        here = np.flatnonzero((groups == group) & np.isfinite(values))
        if len(here) < 5:
            continue
        distance = values[here] - np.median(values[here])
        scale = 1.4826 * np.median(np.abs(distance))
        if scale > 0:
            found[here] = distance / scale
    return found


def worst(values: pd.Series, limit: Limit) -> float:
    """Return the value that is farthest on the side that the limit flags, with its sign; NaN where there is none."""
    there = values.dropna()
    if not len(there):
        return float("nan")
    place = there.abs().argmax() if limit.two_sided else there.argmin() if limit.side == "below" else there.argmax()
    return float(there.iloc[place])
