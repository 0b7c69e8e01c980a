"""What figures share: axes to draw on, colours of lineages, labels that fit."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

UNIT = "log2 fold change"
MEAN_COLOUR, TRUTH_COLOUR, WARN_COLOUR = "#22567d", "#333333", "#c2410c"


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.8) -> Axes:
    """Return `ax`, or the axes of a new figure of this size (inches) where it is None."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def lineage_colours(n_lineages: int) -> np.ndarray:
    """Colours of lineages in label order, neighbours unlike each other: RGBA [n_lineages, 4].

    There are twenty; further lineages take them again, so figures name lineages beside colouring them.
    """
    # Strong tones first, then the pale ones: tab20 has each pale tone next to its strong one.
    order = np.r_[0:20:2, 1:20:2]
    tones = mpl.colormaps["tab20"](order)
    return tones[np.arange(n_lineages) % len(tones)]


def spread(positions: Sequence[float] | np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Move ascending positions apart so that neighbours are `gap` away, as far as `low` to `high` has room.

    Examples
    --------
    >>> spread([1.0, 1.1, 5.0], 1.0, 0.0, 6.0).tolist()
    [1.0, 2.0, 5.0]
    """
    moved = np.array(positions, dtype=float)
    gap = min(gap, (high - low) / max(len(moved) - 1, 1))
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    if len(moved):
        moved[-1] = min(moved[-1], high)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    return moved
