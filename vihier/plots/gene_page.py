"""All that a fit says of one gene: its rows, its sgRNAs, its effect in every line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from vihier.plots.axes import UNIT, axes, lineage_colours, plain

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen

LINES_WITH_LABELS = 80


def gene_page(post: Posterior, gene: str, screen: Screen | None = None, ax: Axes | None = None) -> Axes:
    """Draw the effect of a gene in every line with the rows behind it, and above it the effects of its sgRNAs.

    Lines are in the order of their posterior means, the most negative on top: a bar, or with more than 80 lines a band,
    is the 89 % interval. Each dot is a row, coloured by its sgRNA. Above, on the same axis, is the mean effect of each
    sgRNA over lines with its interval, in a model that has effects of sgRNAs.

    Parameters
    ----------
    post
        A fit with `effect`.
    gene
        Its ``hugo_symbol``.
    screen
        Gives the rows; without it there are no dots.
    ax
        Where to draw; a new figure when None.
    """
    moments = post.moments("effect", hugo_symbol=gene).squeeze("hugo_symbol")
    order = np.argsort(-moments["mean"].values, kind="stable")
    mean, low, high = (moments[name].values[order] for name in ("mean", "hdi_lower", "hdi_upper"))
    lines = moments["depmap_id"].values[order]
    named = len(lines) <= LINES_WITH_LABELS
    ax = axes(ax, 7.0, 3.0 + 0.17 * len(lines) if named else 9.0)
    place = np.arange(len(lines))
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    if named:
        ax.barh(place, high - low, left=low, height=0.7, color="0.82", zorder=1)
        ax.set_yticks(place, [*map(plain, lines)], fontsize=7)
    else:
        ax.fill_betweenx(place, low, high, color="0.7", linewidth=0, zorder=1)
        ax.set_yticks([])
        ax.set_ylabel(f"{len(lines):,} cell lines")
    if named:
        ax.scatter(mean, place, marker="|", s=40, color="black", zorder=4, linewidths=1)
    else:
        ax.plot(mean, place, color="black", linewidth=0.8, zorder=4)
    sgrnas = _sgrnas(post, gene, screen)
    colours = lineage_colours(len(sgrnas))
    if screen is not None:
        _rows(ax, gene, screen, lines, sgrnas, colours, small=not named)
    ax.set_ylim(-1, len(lines))
    said = [f"grey: effect of {plain(gene)} in each line, mean and 89 %"]
    if screen is not None:
        said.append("dots: rows, by sgRNA")
    if len(sgrnas) and "alpha_dev" in post.variables:
        _sgrna_panel(ax, post, gene, sgrnas, colours)
        said.append("above: sgRNAs over all lines")
    ax.set_xlabel("\n".join([UNIT, *said]), fontsize=8)
    return ax


def _sgrnas(post: Posterior, gene: str, screen: Screen | None) -> list[str]:
    """Return the gene's sgRNAs, from the fit or else from the screen, sorted."""
    index = post.group("index")
    if "gene_of_sgrna" in index:
        place = post.labels("hugo_symbol").tolist().index(gene)
        return post.labels("sgrna")[index["gene_of_sgrna"].values == place].tolist()
    if screen is None:
        return []
    part = screen.subset(genes=gene)
    return part.index.sgrnas.tolist()


def _rows(
    ax: Axes, gene: str, screen: Screen, lines: np.ndarray, sgrnas: list[str], colours: np.ndarray, small: bool
) -> None:
    part = screen.subset(genes=gene)
    place_of_line = {line: place for place, line in enumerate(lines)}
    place = np.array([place_of_line.get(line, -1) for line in part.index.lines])[part.line]
    code_of_sgrna = {name: code for code, name in enumerate(sgrnas)}
    code = np.array([code_of_sgrna.get(name, -1) for name in part.index.sgrnas])[part.sgrna]
    known = (place >= 0) & (code >= 0)
    place, code, lfc = place[known], code[known], part.lfc[known]
    # Dots of one line lie in the order of their sgRNAs, so that equal values do not hide each other.
    shift = (code + 0.5) / max(len(sgrnas), 1) - 0.5
    ax.scatter(
        lfc,
        place + 0.66 * shift,
        s=2 if small else 8,
        color=colours[code],
        alpha=0.5 if small else 0.85,
        linewidths=0,
        zorder=3,
        rasterized=small,
    )


def _sgrna_panel(ax: Axes, post: Posterior, gene: str, sgrnas: list[str], colours: np.ndarray) -> None:
    """Effects of the sgRNAs over lines, above the axes and on the same horizontal axis."""
    from vihier.posterior.moments import moments_of_draws

    deviation = post.draws("alpha_dev", sgrna=sgrnas).values
    moments = moments_of_draws(deviation + post.draws("effect_gene", hugo_symbol=gene).values)
    # Inches, whatever the height of the axes.
    inch = ax.figure.dpi / ax.get_window_extent().height
    panel = ax.inset_axes((0, 1 + 0.1 * inch, 1, (0.15 * len(sgrnas) + 0.1) * inch), sharex=ax)
    place = np.arange(len(sgrnas))[::-1]
    panel.axvline(0, color="0.8", linewidth=1, zorder=0)
    panel.hlines(place, moments["hdi_lower"], moments["hdi_upper"], color=colours, linewidth=2)
    panel.scatter(moments["mean"], place, s=16, color=colours, linewidths=0, zorder=3)
    panel.set_yticks(place, [*map(plain, sgrnas)], fontsize=6)
    panel.set_ylim(-0.7, len(sgrnas) - 0.3)
    panel.tick_params("x", labelbottom=False)
