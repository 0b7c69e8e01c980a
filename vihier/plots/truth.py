"""What a fit says against the truth that its screen was simulated from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, TRUTH_COLOUR, UNIT, WARN_COLOUR, axes

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

DOTS, INTERVALS = 4_000, 600


def truth_vs_posterior(post: Posterior, truth: xr.DataArray, ax: Axes | None = None) -> Axes:
    """Draw posterior means and 89 % intervals against the truth, intervals that miss it in another colour.

    Parameters
    ----------
    post
        The fit of a simulated screen.
    truth
        True values with the labels of the fit's dims; its name is the variable's.
    ax
        Where to draw; a new figure when None. At most 4,000 elements are drawn, and intervals of 600, taken at random;
        the title's figures are of all.
    """
    ax = axes(ax, 5.6, 5.2)
    var = str(truth.name)
    moments, aligned = xr.align(post.moments(var), truth, join="inner")
    # The order of dims may differ between the two.
    true = aligned.transpose(*moments["mean"].dims).values.ravel()
    mean, low, high = (moments[name].values.ravel() for name in ("mean", "hdi_lower", "hdi_upper"))
    covered = (low <= true) & (true <= high)
    taken = np.random.default_rng(0).permutation(len(true))[:DOTS]
    for inside, colour in ((True, MEAN_COLOUR), (False, WARN_COLOUR)):
        at = taken[:INTERVALS][covered[taken[:INTERVALS]] == inside]
        ax.vlines(true[at], low[at], high[at], color=colour, alpha=0.35, linewidth=0.8)
        dots = taken[covered[taken] == inside]
        ax.scatter(true[dots], mean[dots], s=6, color=colour, linewidths=0, label="covers" if inside else "misses")
    ends = np.array([min(true.min(), mean.min()), max(true.max(), mean.max())])
    ax.plot(ends, ends, color=TRUTH_COLOUR, linewidth=1, zorder=3)
    correlation = np.corrcoef(true, mean)[0, 1]
    ax.set(xlabel=f"true {var} ({UNIT})", ylabel=f"posterior mean and 89 % interval ({UNIT})")
    ax.set_title(f"{covered.mean():.1%} of intervals cover the truth, correlation {correlation:.3f}", fontsize=10)
    ax.legend(title="interval", frameon=False, loc="upper left", markerscale=2)
    return ax
