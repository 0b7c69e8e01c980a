"""Coverage and ranks of a calibration study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from vihier.diagnostics.calibration import FAMILY, SLACK, coverage
from vihier.plots.axes import axes

Ranks = Mapping[str, Mapping[str, Sequence[float]]]


def coverage_by_variable(
    fitted: Sequence[Ranks], ax: Axes | None = None, *, factor: float = 1.0, control: float | None = None
) -> Axes:
    """Draw how far from nominal the coverage of each variable's 50 and 90 % intervals is, with 99 % bars.

    Parameters
    ----------
    fitted
        Variable -> factor -> `rank_statistics`, of each replicate.
    ax
        Where to draw; a new figure when None.
    factor, control
        By which the posteriors' sds were multiplied: of the dots, and of a control drawn as bars.
    """
    names = sorted(fitted[0], key=lambda name: (name.startswith("sigma"), name))[::-1]
    height = np.arange(len(names))
    ax = axes(ax, 5.2, 1.2 + 0.24 * len(names))
    shown = [(factor, "o", " intervals")]
    if control is not None:
        shown.append((control, "|", f", sds times {control:g}"))
    for level, colour, i in ((0.5, "#22567d", 1), (0.9, "#c2410c", 2)):
        for size, marker, label in shown:
            got = [coverage(np.array([each[name][str(size)][i] for each in fitted]), level) for name in names]
            off = 100 * (np.array([each["covered"] for each in got]) - level)
            error = 100 * np.array([each["band_99"] for each in got]) if marker == "o" else None
            shift = 0.12 if i == 1 else -0.12
            look: dict[str, Any] = {"color": colour, "ms": 4, "lw": 1, "label": f"{level:.0%}{label}"}
            ax.errorbar(off, height + shift, xerr=error, fmt=marker, **look)
    ax.axvspan(-100 * SLACK, 100 * SLACK, color="0.9", zorder=0)
    ax.axvline(0, color="0.4", lw=0.8)
    ax.set(yticks=height, yticklabels=names, xlabel="coverage - nominal (points; 99 % bars)")
    return ax


def rank_curves(fitted: Sequence[Ranks], ax: Axes | None = None, *, factor: float = 1.0) -> Axes:
    """Draw how far the distribution of each variable's ranks is from uniform; parameters as `coverage_by_variable`."""
    ax = axes(ax, 5.2, 3)
    grid = np.linspace(0, 1, 201)
    n = len(fitted)
    for name in fitted[0]:
        rank = np.sort([each[name][str(factor)][0] for each in fitted])
        colour = "#c2410c" if name.startswith("sigma") else "#22567d"
        ax.plot(grid, np.searchsorted(rank, grid) / n - grid, color=colour, lw=0.8, alpha=0.6)
    # Kolmogorov's band at FAMILY over all variables: P(sup > k / sqrt(n)) is about 2 exp(-2 k^2).
    bound = np.sqrt(np.log(2 * len(fitted[0]) / FAMILY) / 2 / n)
    ax.axhline(bound, color="0.5", ls=":")
    ax.axhline(-bound, color="0.5", ls=":")
    ax.set(xlabel="rank (blue: locations, orange: scales; dotted: 1 %)", xlim=(0, 1))
    return ax
