"""What figures share: axes to draw on, colours of lineages, labels that fit."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.transforms import Bbox

UNIT = "log2 fold change"
# Blue and orange, which all kinds of colour vision tell apart.
MEAN_COLOUR, TRUTH_COLOUR, WARN_COLOUR = "#22567d", "#333333", "#c2410c"
# Okabe & Ito's tones (without the yellow, which white swallows), then Tol's muted ones and some between: made for
# colour-blind readers, as far as twenty can be.
_TONES = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288", "#999933", "#882255", "#44AA99"),
    *("#661100", "#88CCEE", "#117733", "#DDCC77", "#AA4499", "#6699CC", "#CC6677", "#777777", "#AACC66", "#000000"),
)


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.8) -> Axes:
    """Return `ax`, or the axes of a new figure of this size (inches) where it is None."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def plain(label: str) -> str:
    r"""Return a label of a screen as a figure shows it: its dollar signs begin no formula.

    Examples
    --------
    >>> plain("A$B")
    'A\\$B'
    """
    return label.replace("$", r"\$")


def lineage_colours(n_lineages: int) -> np.ndarray:
    """Colours of lineages in label order, neighbours unlike each other: RGBA [n_lineages, 4].

    There are twenty; further lineages take them again, so figures name lineages beside colouring them.
    """
    tones = to_rgba_array(_TONES)
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


def name_points(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    *,
    colour: str = "black",
    fontsize: float = 7.0,
    most: int | None = None,
) -> int:
    """Write names beside points, the first ones first.

    A name that has no room beside its point, within the axes and clear of other names and of all these points, is left
    out.

    Parameters
    ----------
    ax
        Axes on which everything else is drawn already: its layout is settled first.
    x, y
        Data coordinates [n].
    names
        In order of importance.
    colour, fontsize
        Of the text.
    most
        How many names at most; all when None.

    Returns
    -------
    int
        How many were written.
    """
    figure = ax.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    taken = [text.get_window_extent() for text in ax.texts]
    points = ax.transData.transform(np.column_stack([x, y]))
    # Names that come later do not move the layout: they stay within the axes, and are no part of it.
    inside, pixel = ax.get_window_extent(), figure.dpi / 72
    n_written = 0
    for (px, py), name in zip(points[:most], names[:most], strict=True):
        width, height = (0.62 * len(name) + 0.3) * fontsize * pixel, 1.25 * fontsize * pixel
        for side, lift in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            left = px + 4 * pixel if side > 0 else px - 4 * pixel - width
            low = py - height / 2 + lift * height * 0.7
            box = Bbox.from_bounds(left, low, width, height)
            within = box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
            if within and not box.count_contains(points) and not any(box.overlaps(other) for other in taken):
                offset = (4 * side, lift * 1.25 * fontsize * 0.7)
                written = ax.annotate(
                    plain(name),
                    tuple(ax.transData.inverted().transform((px, py))),
                    offset,
                    textcoords="offset points",
                    ha="left" if side > 0 else "right",
                    va="center",
                    fontsize=fontsize,
                    color=colour,
                )
                written.set_in_layout(False)
                taken.append(box)
                n_written += 1
                break
    return n_written
