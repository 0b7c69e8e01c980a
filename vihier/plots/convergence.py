"""How the ELBO rose, and whether the fit says that it converged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, WARN_COLOUR, axes

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior


def elbo(post: Posterior, ax: Axes | None = None) -> Axes:
    """Draw the ELBO per row (nats) against the step.

    The first steps lie far below: the axis begins where the last nine tenths of the run do.

    Parameters
    ----------
    post
        A fit.
    ax
        Where to draw; a new figure when None.
    """
    ax = axes(ax)
    history = post.group("vi_history")
    step, values = history["step"].values, history["elbo_per_row"].values
    ax.plot(step, values, color=MEAN_COLOUR, linewidth=1)
    late = values[len(values) // 10 :]
    late = late[np.isfinite(late)]
    if len(late) > 1 and late.max() > late.min():
        margin = 0.08 * (late.max() - late.min())
        ax.set_ylim(late.min() - margin, late.max() + margin)
    ax.set(xlabel="step", ylabel="ELBO per row (nats)")
    verdict = "converged" if post.converged else "did not converge"
    ax.set_title(f"{post.model}, {post.guide}: {verdict}", color="black" if post.converged else WARN_COLOUR)
    return ax
