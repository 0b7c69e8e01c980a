"""Values of lines as boxes by lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import UNIT, axes, lineage_colours

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior


def effects_by_lineage(post: Posterior, gene: str, ax: Axes | None = None, *, var: str = "effect") -> Axes:
    """Draw one gene's posterior means by lineage: a dot a line, a box a lineage, most negative lineage first.

    Parameters
    ----------
    post
        A fit of a screen that has lineages.
    gene
        Its ``hugo_symbol``.
    ax
        Where to draw; a new figure when None.
    var
        Variable over ``hugo_symbol`` and ``depmap_id``.
    """
    index = post.group("index")
    mean = post.moments(var, hugo_symbol=gene)["mean"].squeeze("hugo_symbol").values
    ax = boxes_by_lineage(mean, index["lineage_of_line"].values, index["lineage"].values, ax)
    ax.set_xlabel(f"{var} of {gene}, posterior mean ({UNIT})")
    return ax


def boxes_by_lineage(values: np.ndarray, lineage: np.ndarray, names: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw values as boxes by lineage with a dot for each, the lineage of the lowest median on top.

    Parameters
    ----------
    values
        [n], log2 fold change.
    lineage
        Lineage code of each value, int [n].
    names
        Labels of the lineages.
    ax
        Where to draw; a new figure when None.
    """
    codes = np.unique(lineage)
    groups = [values[lineage == code] for code in codes]
    order = np.argsort([-np.median(group) for group in groups], kind="stable")
    ax = axes(ax, 6.4, 1.2 + 0.28 * len(codes))
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.boxplot(
        [groups[i] for i in order],
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        medianprops={"color": "black"},
        boxprops={"color": "0.4"},
        whiskerprops={"color": "0.4"},
        capprops={"color": "0.4"},
    )
    colours = lineage_colours(len(names))
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(values))  # only so that equal dots can be told apart
    size = 14 if len(values) <= 500 else 3
    for place, i in enumerate(order, start=1):
        here = lineage == codes[i]
        ax.scatter(
            values[here], place + jitter[here], s=size, color=colours[codes[i]], alpha=0.8, linewidths=0, zorder=3
        )
    counts = [f"{names[codes[i]]} ({len(groups[i])})" for i in order]
    ax.set_yticks(np.arange(1, len(codes) + 1), counts, fontsize=8)
    ax.set_ylim(0.4, len(codes) + 0.6)
    ax.set_xlabel(UNIT)
    return ax
