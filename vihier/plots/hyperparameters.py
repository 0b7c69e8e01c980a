"""Draws of single parameters: in the order they were drawn, and how they are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, axes

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior


def trace(post: Posterior, var: str, ax: Axes | None = None, **labels: Any) -> Axes:
    """Draw the draws of a variable's elements in order, a line each chain and element.

    Draws of a variational fit are independent: their trace shows outliers, and nothing about mixing.

    Parameters
    ----------
    post
        A fit.
    var
        Variable, best a scalar one.
    ax
        Where to draw; a new figure when None.
    **labels
        Selection, as for ``Posterior.summary``.
    """
    ax = axes(ax, 6.4, 2)
    draws = post.draws(var, **labels).values
    ax.plot(draws.swapaxes(0, 1).reshape(draws.shape[1], -1), linewidth=0.4)
    ax.set(xlabel="draw", title=var)
    return ax


def density(post: Posterior, var: str, ax: Axes | None = None, *, prob: float = 0.89, **labels: Any) -> Axes:
    """Draw the histogram of a variable's draws with its mean and highest-density interval.

    A histogram, because a kernel estimate would lie about scales, which pile up at 0.

    Parameters
    ----------
    post
        A fit.
    var
        Variable; the draws of all selected elements are taken together.
    ax
        Where to draw; a new figure when None.
    prob
        Probability of the interval.
    **labels
        Selection, as for ``Posterior.summary``.
    """
    from vihier.posterior.moments import hdi_of_draws

    ax = axes(ax, 4.8, 2)
    draws = post.draws(var, **labels).values.reshape(1, -1, 1)
    (lower,), (upper,) = hdi_of_draws(draws, prob)
    # The tails of heavy-tailed scales would squeeze the rest into one bar.
    shown = np.quantile(draws, (0.0, 0.995)) if draws.min() >= 0 else np.quantile(draws, (0.0025, 0.9975))
    n_bins = min(50, max(10, int(draws.size**0.5)))
    ax.hist(
        draws.ravel(), bins=n_bins, range=(shown[0], max(shown[1], upper)), density=True, color=MEAN_COLOUR, alpha=0.55
    )
    ax.axvline(draws.mean(), color="black", linewidth=1)
    ax.plot([lower, upper], [0, 0], color="black", linewidth=4, solid_capstyle="butt", clip_on=False)
    ax.set(yticks=[], title=f"{var}: {draws.mean():.3g}, {prob:.0%} in [{lower:.3g}, {upper:.3g}]")
    ax.title.set_fontsize(9)
    return ax
