"""Effects of genes in lines as a picture, lines by lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from scipy.cluster.hierarchy import leaves_list, linkage

from vihier.plots.axes import UNIT, axes, lineage_colours, plain, spread

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

# Points: labels that would have to be smaller are left out, and their number is given. More elements than CLUSTERED are
# not ordered by clustering, which takes time and memory with their square.
SMALLEST_LABEL, CLUSTERED = 5.0, 2_000


def effect_heatmap(post: Posterior, ax: Axes | None = None, *, var: str = "effect", **labels: Any) -> Axes:
    """Draw the posterior means of a gene x line variable.

    Genes are ordered by hierarchical clustering, lines by lineage and clustered within it; a strip above names the
    lineages. Colours are symmetric around 0 and end at the 99 % quantile of the absolute values.

    Parameters
    ----------
    post
        A fit.
    ax
        Where to draw; a new figure when None.
    var
        Variable over ``hugo_symbol`` and ``depmap_id``.
    **labels
        Selection, as for ``Posterior.summary``.
    """
    mean = post.moments(var, **labels)["mean"].transpose("hugo_symbol", "depmap_id")
    ax = axes(ax, 11, float(np.clip(3.4 + 0.1 * len(mean), 4.5, 9.5)))
    values = mean.values
    lineage, names = _lineages(post, mean["depmap_id"].values)
    genes = _clustered(values)
    groups = (np.flatnonzero(lineage == code) for code in np.unique(lineage))
    lines = np.concatenate([group[_clustered(values[:, group].T)] for group in groups])

    limit = float(np.nanquantile(np.abs(values), 0.99)) or 1.0
    image = ax.imshow(
        values[np.ix_(genes, lines)], aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02, extend="both")
    bar.set_label(f"{var}, posterior mean\n({UNIT})")
    _label(ax, "y", mean["hugo_symbol"].values[genes], "genes")
    _label(ax, "x", mean["depmap_id"].values[lines], "cell lines")
    if names is not None:
        _lineage_strip(ax, lineage[lines], names)
    return ax


def _lineages(post: Posterior, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Lineage code of each line, int [C], and the labels; all 0 and None for a screen without lineages."""
    index = post.group("index")
    if "lineage_of_line" not in index:
        return np.zeros(len(lines), dtype=np.int64), None
    return index["lineage_of_line"].sel(depmap_id=lines).values, index["lineage"].values


def _clustered(rows: np.ndarray) -> np.ndarray:
    """Order in which like rows are neighbours, int [len(rows)]."""
    if not 2 < len(rows) <= CLUSTERED:
        return np.arange(len(rows))
    return leaves_list(linkage(np.nan_to_num(rows), method="average", optimal_ordering=len(rows) <= 500))


def _label(ax: Axes, which: str, labels: np.ndarray, noun: str) -> None:
    axis = ax.yaxis if which == "y" else ax.xaxis
    box = ax.get_window_extent()
    points = 72 * (box.height if which == "y" else box.width) / ax.figure.dpi
    size = min(8.0, 0.8 * points / len(labels))
    if size < SMALLEST_LABEL:
        axis.set_ticks([])
        axis.set_label_text(f"{len(labels):,} {noun}")
        return
    axis.set_ticks(np.arange(len(labels)), [*map(plain, labels)], fontsize=size)
    if which == "x":
        ax.tick_params("x", rotation=90)


def _lineage_strip(ax: Axes, lineage: np.ndarray, names: np.ndarray) -> None:
    """Colour strip above the heat map, each lineage named once, names moved apart where they would overlap."""
    n_lines = len(lineage)
    inch = ax.figure.dpi / ax.get_window_extent().height
    strip = ax.inset_axes((0, 1 + 0.04 * inch, 1, 0.14 * inch))
    strip.imshow(
        lineage[None], aspect="auto", cmap=ListedColormap(lineage_colours(len(names))), vmin=-0.5, vmax=len(names) - 0.5
    )
    strip.set_axis_off()
    codes, first, count = np.unique(lineage, return_index=True, return_counts=True)
    centres = first + (count - 1) / 2
    gap = n_lines / 55  # a line of 8-point text, turned, on the 9 inches that the map is wide
    for code, centre, at in zip(codes, centres, spread(centres, gap, 0, n_lines - 1), strict=True):
        strip.annotate(
            plain(names[code]),
            xy=((centre + 0.5) / n_lines, 1.0),
            xytext=((at + 0.5) / n_lines, 2.2),
            xycoords="axes fraction",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 0},
        )
