"""Values of lines as boxes by lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.errors import VihierError
from vihier.plots.axes import UNIT, axes, lineage_colours, plain

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior


def effects_by_lineage(post: Posterior, gene: str, ax: Axes | None = None, *, var: str = "effect") -> Axes:
    """Draw one gene by lineage: a dot a line, a box a lineage, and below it the interval of the lineage's mean.

    Dots are posterior means, boxes their quartiles, the lineage of the lowest median on top. The diamond is the
    posterior mean of the effect averaged over the lineage's lines, with its 89 % interval, by draws.

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

    Raises
    ------
    VihierError
        The fit knows no lineages.
    """
    from vihier.posterior.moments import moments_of_draws

    index = post.group("index")
    if "lineage_of_line" not in index:
        raise VihierError(f"{post.path}: knows no lineages; fit a table that has the column 'lineage'")
    mean = post.moments(var, hugo_symbol=gene)["mean"].squeeze("hugo_symbol").values
    lineage, names = index["lineage_of_line"].values, index["lineage"].values
    ax = boxes_by_lineage(mean, lineage, names, ax)
    draws = post.draws(var, hugo_symbol=gene).values[:, :, 0]
    # The order in which boxes_by_lineage puts them.
    codes = lowest_on_top(mean, lineage)
    averages = np.stack([draws[:, :, lineage == code].mean(axis=2) for code in codes], axis=2)
    moments = moments_of_draws(averages)
    place = np.arange(1, len(codes) + 1) - 0.42
    ax.hlines(place, moments["hdi_lower"], moments["hdi_upper"], color="black", linewidth=1.2)
    ax.scatter(
        moments["mean"], place, marker="D", s=12, color="black", linewidths=0, zorder=4, label="lineage's mean, 89 %"
    )
    ax.legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    ax.set_xlabel(f"{var} of {plain(gene)} ({UNIT})")
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
    codes = lowest_on_top(values, lineage)
    groups = [values[lineage == code] for code in codes]
    ax = axes(ax, 6.4, 1.2 + 0.3 * len(codes))
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.boxplot(
        groups,
        orientation="horizontal",
        widths=0.5,
        showfliers=False,
        medianprops={"color": "black"},
        boxprops={"color": "0.4"},
        whiskerprops={"color": "0.4"},
        capprops={"color": "0.4"},
    )
    colours = lineage_colours(len(names))
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(values))  # only so that equal dots can be told apart
    size = 14 if len(values) <= 500 else 3
    for place, code in enumerate(codes, start=1):
        here = lineage == code
        ax.scatter(values[here], place + jitter[here], s=size, color=colours[code], alpha=0.8, linewidths=0, zorder=3)
    counts = [f"{plain(names[code])} ({len(group)})" for code, group in zip(codes, groups, strict=True)]
    ax.set_yticks(np.arange(1, len(codes) + 1), counts, fontsize=8)
    ax.set_ylim(0.4, len(codes) + 0.6)
    ax.set_xlabel(UNIT)
    return ax


def lowest_on_top(values: np.ndarray, lineage: np.ndarray) -> np.ndarray:
    """Return the codes of the lineages that occur, int [n], the one of the lowest median last: on top of an axis.

    Examples
    --------
    >>> lowest_on_top(np.array([0.0, 0.0, -1.0, 2.0]), np.array([0, 0, 4, 1])).tolist()
    [1, 0, 4]
    """
    codes = np.unique(lineage)
    return codes[np.argsort([-np.median(values[lineage == code]) for code in codes], kind="stable")]
