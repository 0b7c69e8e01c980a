"""A measure of every line, the poor ones named."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, WARN_COLOUR, axes, plain
from vihier.quality.limits import Limit

ALL_NAMED, NAMED = 80, 60
# Rows of the axis that the lines without a name share.
_ROOM = 4


def line_quality(lines: pd.DataFrame, limit: Limit, ax: Axes | None = None) -> Axes:
    """Draw a measure of every line with its limit, the worst lines on top.

    Up to 80 lines each have a row; of more, the 60 worst do, and the others lie together below them.

    Parameters
    ----------
    lines
        Table of lines with the column ``limit.measure`` and `depmap_id`, as `vihier qc` gives it: of a screen or of a
        fit. With a column `screen`, names are followed by it.
    limit
        One of `vihier.quality.SCREEN_LIMITS` or `FIT_LIMITS` that is about lines.
    ax
        Where to draw; a new figure when None.
    """
    table = lines[lines[limit.measure].notna()]
    names = table["depmap_id"].astype(str)
    if "screen" in table:
        names = names + " " + table["screen"].astype(str)
    badness = limit.sizes(table[limit.measure]) * (1 if limit.side == "above" else -1)
    order = np.argsort(-badness, kind="stable")
    values = table[limit.measure].to_numpy(np.float64)[order]
    beyond = limit.beyond(table[limit.measure])[order]
    n_named = len(values) if len(values) <= ALL_NAMED else NAMED
    # Row 0 is on top; those without a name are spread over some rows below, only so that they can be told apart.
    place = np.arange(len(values), dtype=np.float64)
    place[n_named:] = n_named + np.random.default_rng(0).uniform(0.2, _ROOM - 1, len(values) - n_named)
    n_rows = n_named + (_ROOM if len(values) > n_named else 0)
    ax = axes(ax, 6.4, 1.4 + 0.15 * n_rows)
    for bound in (limit.value, -limit.value) if limit.two_sided else (limit.value,):
        ax.axvline(bound, color=WARN_COLOUR, linewidth=1, linestyle="--")
    outside = f"{limit.side} {'± ' if limit.two_sided else ''}{limit.value:g}"
    for chosen, colour, text in ((~beyond, MEAN_COLOUR, "within"), (beyond, WARN_COLOUR, outside)):
        if not chosen.any():
            continue
        sizes = np.where(place < n_named, 16, 5)[chosen]
        label = f"{text} ({chosen.sum():,})"
        ax.scatter(values[chosen], place[chosen], s=sizes, color=colour, alpha=0.8, linewidths=0, label=label)
    ticks, labels = list(range(n_named)), [plain(name) for name in names.to_numpy()[order][:n_named]]
    if len(values) > n_named:
        ax.axhline(n_named - 0.4, color="0.8", linewidth=1)
        ticks.append(n_named + _ROOM // 2 - 1)
        labels.append(f"{len(values) - n_named:,} others")
    ax.set_yticks(ticks, labels, fontsize=7)
    ax.set_ylim(n_rows - 0.4, -0.6)
    ax.set_xlabel(fill(f"{limit.measure.replace('_', ' ')}: {limit.because.split(';')[0]}", 80), fontsize=8)
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return ax
