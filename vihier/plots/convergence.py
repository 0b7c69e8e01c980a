"""How the ELBO rose, how the parameters came to rest, and whether the fit says that it converged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from vihier.errors import VihierError
from vihier.inference.convergence import R_HAT_LIMIT
from vihier.plots.axes import MEAN_COLOUR, WARN_COLOUR, axes

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior


# What a fit records of its progress, by the name in its history: the words for its steps, and for it.
PER_ROW = {
    "elbo_per_row": ("step", "ELBO per row (nats)"),
    "log_density_per_row": ("sweep", "log density per row (nats)"),
}


def elbo(post: Posterior, ax: Axes | None = None) -> Axes:
    """Draw the ELBO per row (nats) against the step; of a fit by sweeps alone, the log density per row of its chains.

    The first steps lie far below: the axis begins where 98 % of the last nine tenths of the run do.

    Parameters
    ----------
    post
        A fit.
    ax
        Where to draw; a new figure when None.

    Raises
    ------
    VihierError
        The fit has neither: that of a large screen, whose chains are exact.
    """
    history = post.group("vi_history")
    name = next((name for name in PER_ROW if name in history), None)
    if name is None:
        raise VihierError(f"{post.path}: has no ELBO, since its draws are of exact chains; see `vihier check`")
    ax = axes(ax)
    step, values = history["step"].values, history[name].values
    ax.plot(step, values, color=MEAN_COLOUR, linewidth=1)
    late = values[len(values) // 10 :]
    late = late[np.isfinite(late)]
    if len(late) > 1 and late.max() > late.min():
        # Single steps far below are cut off: they would squeeze the rest into a line.
        low, high = np.quantile(late, 0.02), late.max()
        margin = 0.08 * (high - low)
        ax.set_ylim(low - margin, high + margin)
    ax.set(xlabel=PER_ROW[name][0], ylabel=PER_ROW[name][1])
    verdict = "converged" if post.converged else "did not converge"
    ax.set_title(f"{post.model}, {post.guide}: {verdict}", color="black" if post.converged else WARN_COLOUR)
    return ax


# What a fit watches, by the name in its history: the words for it, and the limit of its stopping rule.
_WATCHED = {
    "drift": ("largest move of a shared scale\nbetween windows (posterior sds)", 0.2),
    "r_hat": ("largest R-hat of shared parameters\nover segments of a window", R_HAT_LIMIT),
}


def drift(post: Posterior, ax: Axes | None = None) -> Axes:
    """Draw what the stopping rule watches against the step, with the limit below which a fit has converged.

    Parameters
    ----------
    post
        A fit.
    ax
        Where to draw; a new figure when None.

    Raises
    ------
    VihierError
        The fit's history does not say what it watched.
    """
    history = post.group("vi_history")
    name = next((name for name in _WATCHED if name in history), None)
    if name is None:
        raise VihierError(f"{post.path}: its history says nothing of how parameters moved; see `vihier check`")
    ax = axes(ax)
    label, limit = _WATCHED[name]
    values = history[name].values
    step = history["window_step" if name == "r_hat" else "step"].values
    there = np.isfinite(values)
    ax.plot(step[there], values[there], "o-", color=MEAN_COLOUR, linewidth=1, markersize=4)
    ax.axhline(limit, color=WARN_COLOUR, linewidth=1, linestyle="--", label=f"limit {limit:g}")
    if (values[there] > 0).all():
        ax.set_yscale("log")
        ends = ax.get_ylim()
        if ends[1] < 30 * ends[0]:
            # Powers of ten alone would leave the axis with a number or none.
            ax.yaxis.set_major_locator(MaxNLocator(6, prune="lower"))
            ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="step", ylabel=label)
    ax.legend(frameon=False, loc="upper right")
    return ax
