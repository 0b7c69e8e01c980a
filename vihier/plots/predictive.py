"""Do rows drawn from the posterior look like the rows that were measured."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, TRUTH_COLOUR, UNIT, WARN_COLOUR, axes

N_BINS = 60


def predictive_check(
    observed: np.ndarray, replicated: np.ndarray, ax: Axes | None = None, *, prob: float = 0.89
) -> Axes:
    """Draw the distribution of measured rows over that of replicated ones, on a logarithmic scale.

    The band holds the histograms of `prob` of the replicated screens, bin by bin; bins in which the measured rows lie
    outside it are marked, as many as 1 - `prob` of them by chance. What a model gets wrong is mostly in the tails,
    which a linear scale hides.

    Parameters
    ----------
    observed
        lfc of the rows, [N].
    replicated
        Draws of them from the posterior, [draws, N], as `vihier.posterior_predictive` gives them.
    ax
        Where to draw; a new figure when None.
    prob
        Of the band.
    """
    ax = axes(ax, 6.4, 4.2)
    ends = min(observed.min(), np.quantile(replicated, 0.0001)), max(observed.max(), np.quantile(replicated, 0.9999))
    edges = np.linspace(*ends, N_BINS + 1)
    width = edges[1] - edges[0]
    density = np.stack([np.histogram(draw, edges)[0] for draw in replicated]) / (replicated.shape[1] * width)
    measured = np.histogram(observed, edges)[0] / (len(observed) * width)
    low, high = np.quantile(density, ((1 - prob) / 2, (1 + prob) / 2), axis=0)
    # Half a row, for what is empty: a logarithmic scale has no 0.
    floor = 0.5 / (len(observed) * width)
    middle = (edges[1:] + edges[:-1]) / 2
    band = f"{prob:.0%} of {len(replicated)} replicated screens"
    lower, upper = (np.maximum(np.r_[each, each[-1]], floor) for each in (low, high))
    ax.fill_between(edges, lower, upper, step="post", color=MEAN_COLOUR, alpha=0.4, linewidth=0, label=band)
    ax.stairs(np.maximum(measured, floor), edges, baseline=None, color=TRUTH_COLOUR, linewidth=1.2, label="measured")
    outside = (measured < low) | (measured > high)
    ax.scatter(
        middle[outside],
        np.maximum(measured, floor)[outside],
        s=12,
        color=WARN_COLOUR,
        zorder=3,
        label="outside the band",
    )
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor * 0.8)
    ax.set(xlabel=f"lfc of a row ({UNIT})", ylabel="density")
    ax.set_title(f"{outside.sum()} of {N_BINS} bins outside the band", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax
