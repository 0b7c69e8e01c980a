"""One gene in every line, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vihier.plots.axes import UNIT, axes, lineage_colours

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

LINES_WITH_LABELS = 80


def forest(post: Posterior, gene: str, ax: Axes | None = None, *, var: str = "effect") -> Axes:
    """Draw a gene's posterior in every line, most negative on top: mean, and 89 % highest-density interval.

    Parameters
    ----------
    post
        A fit.
    gene
        Its ``hugo_symbol``.
    ax
        Where to draw; a new figure when None. Beyond 80 lines only the lineages are named.
    var
        Variable over ``hugo_symbol`` and ``depmap_id``.
    """
    moments = post.moments(var, hugo_symbol=gene).squeeze("hugo_symbol")
    order = np.argsort(-moments["mean"].values, kind="stable")
    mean, low, high = (moments[name].values[order] for name in ("mean", "hdi_lower", "hdi_upper"))
    lines = moments["depmap_id"].values[order]
    labelled = len(lines) <= LINES_WITH_LABELS
    ax = axes(ax, 6.4, 1.2 + 0.16 * len(lines) if labelled else 9.0)
    place = np.arange(len(lines))
    colours: np.ndarray | str = "0.3"
    index = post.group("index")
    if "lineage_of_line" in index:
        lineage = index["lineage_of_line"].sel(depmap_id=lines).values
        names = index["lineage"].values
        by_lineage = lineage_colours(len(names))
        colours = by_lineage[lineage]
        handles = [
            Line2D([], [], marker="o", linestyle="", color=by_lineage[code], label=names[code], markersize=4)
            for code in np.unique(lineage)
        ]
        ax.legend(handles=handles, fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.hlines(place, low, high, color=colours, linewidth=1.5 if labelled else 0.4, alpha=0.7)
    ax.scatter(mean, place, s=14 if labelled else 2, color=colours, zorder=3, linewidths=0)
    if labelled:
        ax.set_yticks(place, lines.tolist(), fontsize=7)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(lines):,} cell lines")
    ax.set_ylim(-1, len(lines))
    ax.set_xlabel(f"{var} of {gene} ({UNIT})")
    return ax
