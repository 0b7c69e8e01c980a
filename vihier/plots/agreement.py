"""The guide against NUTS, variable by variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, WARN_COLOUR, axes
from vihier.refinement.agreement import AGREES_WITHIN, QUANTILES, compared

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

_COLOURS = {"q05": "#7aa6c2", "q50": MEAN_COLOUR, "q95": "#e0a458"}
_POINTS = 2_000


def nuts_quantiles(post: Posterior, ax: Axes | None = None) -> Axes:
    """Draw how far the guide's 5, 50 and 95 % quantiles are from those of NUTS, a row a variable, a dot an element.

    Parameters
    ----------
    post
        A fit that `vihier refine` has added NUTS draws to.
    ax
        Where to draw; a new figure when None. Of variables with many elements, 2,000 are shown.
    """
    found = list(compared(post))
    ax = axes(ax, 6.8, 1.4 + 0.28 * len(found))
    random = np.random.default_rng(0)
    for row, one in enumerate(reversed(found)):
        statistics = one.statistics
        shown = random.permutation(one.nuts.shape[1])[:_POINTS]
        for shift, name in zip((-0.22, 0.0, 0.22), QUANTILES, strict=True):
            values = statistics[f"{name}_difference"][shown]
            height = row + shift + random.uniform(-0.08, 0.08, len(values))
            size = 18 if len(values) == 1 else 5
            label = f"{QUANTILES[name]:.0%} quantile" if row == 0 else None
            ax.scatter(values, height, s=size, color=_COLOURS[name], alpha=0.8, linewidths=0, label=label)
    ax.axvspan(-AGREES_WITHIN, AGREES_WITHIN, color="0.95", zorder=0)
    ax.axvline(0, color="0.5", linewidth=0.8, zorder=1)
    ax.set_yticks(np.arange(len(found)), [one.name for one in reversed(found)], fontsize=8)
    for text, one in zip(ax.get_yticklabels(), reversed(found), strict=True):
        text.set_color(WARN_COLOUR if one.name in post.not_identified else "black")
    ax.set_ylim(-0.6, len(found) - 0.4)
    widest = max(1.0, 1.1 * max(abs(bound) for bound in ax.dataLim.intervalx))
    ax.set_xlim(-widest, widest)
    ax.set_xlabel("guide minus NUTS, in posterior sds")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, fontsize=8, frameon=False)
    return ax
