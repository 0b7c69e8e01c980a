"""How far the posterior draws the difference between lines towards 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import MEAN_COLOUR, TRUTH_COLOUR, UNIT, WARN_COLOUR, axes, plain

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen

DOTS = 5_000


def shrinkage(post: Posterior, screen: Screen, ax: Axes | None = None, *, gene: str | None = None) -> Axes:
    """Draw what the posterior makes of how a gene differs between lines, against the plain means of the rows.

    Of both, the gene's and the line's means are taken off, so that what is left is the line's own. Where rows say
    little, the posterior trusts the gene's other lines: the slope is below 1.

    Parameters
    ----------
    post
        A fit with `effect`.
    screen
        What it was fitted to, or a part of it.
    ax
        Where to draw; a new figure when None. More than 5,000 pairs of gene and line are drawn as counts.
    gene
        One gene; all of the screen's when None.

    Raises
    ------
    VihierError
        A gene or line of the screen is not in the fit.
    """
    if gene is not None:
        screen = screen.subset(genes=gene)
    index = screen.index
    raw = _raw_means(screen)
    mean = post.moments("effect", hugo_symbol=index.genes.tolist(), depmap_id=index.lines.tolist())["mean"].values
    # Of one gene there is no line mean to take off but its own.
    both = [_own(np.where(np.isfinite(raw), values, np.nan), several=gene is None) for values in (raw, mean)]
    there = np.isfinite(both[0])
    x, y = (values[there] for values in both)
    slope = float((x * y).sum() / (x * x).sum()) if (x != 0).any() else float("nan")
    ax = axes(ax, 5.6, 5.2)
    if len(x) > DOTS:
        shown = ax.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0.1)
        ax.figure.colorbar(shown, ax=ax, shrink=0.7, pad=0.02).set_label("pairs of gene and line")
    else:
        ax.scatter(x, y, s=10 if len(x) < 500 else 4, color=MEAN_COLOUR, alpha=0.6, linewidths=0)
    ends = np.array([x.min(), x.max()]) if len(x) else np.zeros(2)
    ax.plot(ends, ends, color=TRUTH_COLOUR, linewidth=1, label="no shrinkage")
    ax.plot(ends, slope * ends, color=WARN_COLOUR, linewidth=1.2, linestyle="--", label=f"slope {slope:.2f}")
    what = "genes" if gene is None else gene
    ax.set(
        xlabel=f"mean of rows, minus gene's and line's mean ({UNIT})"
        if gene is None
        else f"mean of rows, centred ({UNIT})",
        ylabel=f"posterior mean of effect, likewise ({UNIT})",
    )
    ax.set_title(f"{plain(what)}: {len(x):,} pairs of gene and line", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax


def _raw_means(screen: Screen) -> np.ndarray:
    """Mean lfc of each gene in each line, [G, C]; NaN without rows."""
    cell = screen.gene.astype(np.int64) * screen.n_lines + screen.line
    size = screen.n_genes * screen.n_lines
    n = np.bincount(cell, minlength=size)
    total = np.bincount(cell, weights=screen.lfc, minlength=size)
    return np.divide(total, n, out=np.full(size, np.nan), where=n > 0).reshape(screen.n_genes, screen.n_lines)


def _own(values: np.ndarray, several: bool) -> np.ndarray:
    """Take off the means of rows, and then of columns."""
    values = values - _mean(values, 1)
    return values - _mean(values, 0) if several else values


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    n = np.isfinite(values).sum(axis=axis, keepdims=True)
    return np.nansum(values, axis=axis, keepdims=True) / np.maximum(n, 1)
