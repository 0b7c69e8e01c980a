"""Posterior predictive p-values of one grouping of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import axes, lineage_colours

if TYPE_CHECKING:
    from vihier.diagnostics.checks.predictive import PValues


def p_values(found: PValues, ax: Axes | None = None) -> Axes:
    """Draw the distribution of the groups' p-values, a curve for each statistic.

    Where the model is right, p-values gather around 1/2 and the curves are steeper there than the diagonal. A curve
    that starts or ends with a jump is a statistic that the rows drawn hardly ever reach.

    Parameters
    ----------
    found
        p-values of one grouping.
    ax
        Where to draw; a new figure when None.
    """
    ax = axes(ax, 3.6, 3.4)
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    colours = lineage_colours(len(found.values))
    for colour, (name, values) in zip(colours, found.values.items(), strict=True):
        if len(values):
            ranked = np.concatenate([[0.0], np.sort(values), [1.0]])
            share = np.concatenate([[0.0], np.arange(1, len(values) + 1) / len(values), [1.0]])
            ax.step(ranked, share, where="post", color=colour, label=name, linewidth=1.4)
    ax.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        xlabel="posterior predictive p",
        ylabel=f"share of {len(found.labels):,} {found.grouping}s",
        title=f"by {found.grouping}",
    )
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax
