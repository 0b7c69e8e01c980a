"""One gene in every line, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vihier.plots.axes import UNIT, axes, lineage_colours, plain, spread

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

LINES_WITH_LABELS = 80


def forest(post: Posterior, gene: str, ax: Axes | None = None, *, var: str = "effect") -> Axes:
    """Draw a gene's posterior in every line: mean, and 89 % highest-density interval.

    Up to 80 lines are named, the most negative on top. More of them are put together by lineage, the lineage of the
    lowest median on top, and lineages are named in their place.

    Parameters
    ----------
    post
        A fit.
    gene
        Its ``hugo_symbol``.
    ax
        Where to draw; a new figure when None.
    var
        Variable over ``hugo_symbol`` and ``depmap_id``.
    """
    moments = post.moments(var, hugo_symbol=gene).squeeze("hugo_symbol")
    mean, lines = moments["mean"].values, moments["depmap_id"].values
    index = post.group("index")
    known = "lineage_of_line" in index
    lineage = index["lineage_of_line"].sel(depmap_id=lines).values if known else np.zeros(len(lines), dtype=np.int64)
    names = index["lineage"].values if known else np.array([""])
    colours = lineage_colours(len(names)) if known else np.array([[0.3, 0.3, 0.3, 1.0]])
    named = len(lines) <= LINES_WITH_LABELS
    medians = np.zeros(len(names))
    if not named:
        medians = np.array(
            [np.median(mean[lineage == code]) if (lineage == code).any() else 0 for code in range(len(names))]
        )
    order = np.lexsort((-mean, lineage, -medians[lineage])) if not named else np.argsort(-mean, kind="stable")
    low, high = (moments[name].values[order] for name in ("hdi_lower", "hdi_upper"))
    mean, lines, lineage = mean[order], lines[order], lineage[order]
    ax = axes(ax, 6.8, 1.2 + 0.16 * len(lines) if named else 9.0)
    place = np.arange(len(lines))
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.hlines(place, low, high, color=colours[lineage], linewidth=1.5 if named else 0.5, alpha=0.7 if named else 0.35)
    ax.scatter(mean, place, s=14 if named else 3, color=colours[lineage], zorder=3, linewidths=0)
    ax.set_ylim(-1, len(lines))
    if named:
        ax.set_yticks(place, [*map(plain, lines)], fontsize=7)
        if known:
            _legend(ax, np.unique(lineage), names, colours)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(lines):,} cell lines", labelpad=4)
        if known:
            _name_groups(ax, lineage, names, colours)
    ax.set_xlabel(f"{var} of {plain(gene)} ({UNIT})")
    return ax


def _legend(ax: Axes, codes: np.ndarray, names: np.ndarray, colours: np.ndarray) -> None:
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colours[code], label=plain(names[code]), markersize=4)
        for code in codes
    ]
    ax.legend(handles=handles, fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _name_groups(ax: Axes, lineage: np.ndarray, names: np.ndarray, colours: np.ndarray) -> None:
    """Name each run of lines of one lineage at the right, and draw lines between the runs."""
    starts = np.flatnonzero(np.r_[True, lineage[1:] != lineage[:-1]])
    ends = np.r_[starts[1:], len(lineage)]
    for edge in starts[1:]:
        ax.axhline(edge - 0.5, color="0.9", linewidth=0.5, zorder=0)
    centres = (starts + ends - 1) / 2
    gap = len(lineage) / 62  # a line of 8-point text on the 8 inches that the axes are high
    for start, end, centre, at in zip(starts, ends, centres, spread(centres, gap, 0, len(lineage) - 1), strict=True):
        ax.annotate(
            f"{plain(names[lineage[start]])} ({end - start})",
            xy=(1.0, centre),
            xytext=(1.03, at),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=colours[lineage[start]],
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
