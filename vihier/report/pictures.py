"""The pictures of a report: figures of `vihier.plots`, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from vihier.answers.control_scaling import ControlScaling
from vihier.answers.export import effect_matrix
from vihier.diagnostics.checks import Checked
from vihier.diagnostics.control_genes import ControlGenes
from vihier.plots import control_distributions, effect_heatmap, line_quality, p_values, shrinkage
from vihier.quality import FIT_LIMITS
from vihier.screen.screen import Screen

if TYPE_CHECKING:
    import pandas as pd

    from vihier.posterior.reader import Posterior
    from vihier.store.store import ScreenStore

_DOTS_PER_INCH = 110
# Effects, beyond which a heat map has more cells than dots.
MOST_EFFECTS = 2_000_000


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes
    ----------
    title
        What it shows.
    caption
        How to read it; its alternative text too.
    source
        The image, as a `data:` address.
    """

    title: str
    caption: str
    source: str


def pictures(
    post: Posterior,
    lines: pd.DataFrame,
    screen: Screen | ScreenStore | None = None,
    controls: ControlGenes | None = None,
    scaling: ControlScaling | None = None,
) -> list[Picture]:
    """Draw the pictures of a fit that has `effect`.

    Parameters
    ----------
    post
        The fit.
    lines
        Table of its lines, as `fit_quality` gives it.
    screen
        What it was fitted to. Of a store, which is not in memory, nothing is drawn.
    controls, scaling
        Reference genes, and each line's unit.
    """
    found = []
    n_effects = len(post.labels("hugo_symbol")) * len(post.labels("depmap_id"))
    if n_effects <= MOST_EFFECTS:
        caption = "Posterior means (log2 fold change); genes clustered, lines by lineage and clustered within it."
        found.append(picture("Effects", caption, lambda figure: effect_heatmap(post, figure.subplots()), 11, 9))
    if controls is not None:
        effect = effect_matrix(post, "mean", scaling)
        caption = "Posterior means in all lines, in each line's own unit."
        drawn = picture(
            "Control genes",
            caption,
            lambda figure: control_distributions(effect, controls, figure.subplots(), unit="control genes"),
            7,
            4,
        )
        found.append(drawn)
        limit = next(each for each in FIT_LIMITS if (each.about, each.measure) == ("line", "auroc"))
        caption = f"How well posterior means tell control genes apart in each line; {limit.because}."
        height = 1.2 + 0.16 * min(len(lines), 80)
        found.append(picture("Lines", caption, lambda figure: line_quality(lines, limit, figure.subplots()), 7, height))
    if isinstance(screen, Screen) and n_effects <= MOST_EFFECTS and _is_part(screen, post):
        caption = (
            "What is a line's own in each gene: measured against the posterior. Where rows say little, it shrinks."
        )
        found.append(picture("Shrinkage", caption, lambda figure: shrinkage(post, screen, figure.subplots()), 7.5, 5))
    return found


def p_value_pictures(checked: Checked) -> list[Picture]:
    """Draw the posterior predictive p-values, where rows were looked at."""
    n = len(checked.p_values)
    if n == 0:
        return []

    def draw(figure: Figure) -> None:
        for found, ax in zip(checked.p_values, figure.subplots(1, n, squeeze=False)[0], strict=True):
            p_values(found, ax)

    caption = (
        "Rows drawn from the fit beside the rows measured. Where the model is right, the curves are steeper than the "
        "diagonal in the middle; a jump at 0 or 1 is what it hardly ever draws."
    )
    return [picture("Posterior predictive p-values", caption, draw, 3.6 * n, 3.6)]


def _is_part(screen: Screen, post: Posterior) -> bool:
    """Whether all genes and lines of the screen are in the fit."""
    index = screen.index
    return {*index.genes} <= {*post.labels("hugo_symbol")} and {*index.lines} <= {*post.labels("depmap_id")}


def picture(title: str, caption: str, draw: Callable[[Figure], object], width: float, height: float) -> Picture:
    """Draw on a figure of a size in inches, without a window and without leaving a figure behind.

    Parameters
    ----------
    title, caption
        Of the picture.
    draw
        Draws on the figure that it is given.
    width, height
        Inches.
    """
    image = io.BytesIO()
    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    figure.savefig(image, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Picture(title, caption, f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode('ascii')}")
