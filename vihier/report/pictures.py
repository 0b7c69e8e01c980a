"""The pictures of a report: figures of `vihier.plots`, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vihier.plots import effect_heatmap

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

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


def pictures(post: Posterior) -> list[Picture]:
    """Draw the pictures of a fit that has `effect`."""
    found = []
    n_effects = len(post.labels("hugo_symbol")) * len(post.labels("depmap_id"))
    if n_effects <= MOST_EFFECTS:
        caption = "Posterior means; genes clustered, lines by lineage and clustered within it."
        found.append(picture("Effects", caption, lambda ax: effect_heatmap(post, ax), 11, 9))
    return found


def picture(title: str, caption: str, draw: Callable[[Axes], object], width: float, height: float) -> Picture:
    """Draw on axes of a size in inches, without a window and without leaving a figure behind."""
    image = io.BytesIO()
    # Labels are data: a dollar sign in one does not begin a formula.
    with mpl.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(image, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Picture(title, caption, f"data:image/png;base64,{base64.b64encode(image.getvalue()).decode('ascii')}")
