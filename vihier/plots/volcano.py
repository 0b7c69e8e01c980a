"""What two sets of lines depend on differently: how much, and how surely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, UNIT, WARN_COLOUR, axes, name_points

if TYPE_CHECKING:
    from vihier.answers.contrast import Contrast

NAMED = 15


def volcano(found: Contrast, ax: Axes | None = None, *, unit: str = UNIT, named: int = NAMED) -> Axes:
    """Draw the difference of every gene against its size in posterior standard deviations, and name the strongest hits.

    Other volcanoes have a p-value there. The local false sign rate would do, but it cannot be less than half a draw,
    and all that are surer lie on one line; this one goes on. Hits are coloured: orange is a stronger dependency of the
    first set.

    Parameters
    ----------
    found
        What `vihier.answers.contrast` gave.
    ax
        Where to draw; a new figure when None.
    unit
        Of the differences.
    named
        How many hits are named on each side, as far as their names do not overlap.
    """
    ax = axes(ax, 6.8, 5.0)
    table = found.table
    difference = table["difference"].to_numpy(np.float64)
    size = np.abs(difference) / table["sd"].to_numpy(np.float64)
    hit = table["hit"].to_numpy(bool)
    negative = difference < 0
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    kinds = (
        (~hit, "0.7", f"no hit ({(~hit).sum():,})"),
        (hit & negative, WARN_COLOUR, f"stronger dependency ({(hit & negative).sum():,})"),
        (hit & ~negative, MEAN_COLOUR, f"weaker dependency ({(hit & ~negative).sum():,})"),
    )
    for chosen, colour, label in kinds:
        ax.scatter(difference[chosen], size[chosen], s=9, color=colour, alpha=0.7, linewidths=0, label=label)
    ax.set_ylim(bottom=0)
    # Room at the sides for names.
    ax.margins(x=0.12)
    n_lines, n_against = len(found.lines), len(found.against)
    ax.set(
        xlabel=f"{_lines(n_lines)} minus {_lines(n_against)}: difference of effects ({unit})",
        ylabel="size in posterior standard deviations",
    )
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    genes = table["hugo_symbol"].to_numpy()
    for side, colour in ((negative, WARN_COLOUR), (~negative, MEAN_COLOUR)):
        # The table's own order is the strongest first.
        here = np.flatnonzero(hit & side)
        name_points(ax, difference[here], size[here], genes[here].tolist(), colour=colour, most=named)
    return ax


def _lines(count: int) -> str:
    return f"{count:,} line{'s' * (count != 1)}"
