"""Labels are data: whatever is in them, a figure shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vihier import plots
from vihier.posterior.reader import Posterior, open_posterior
from vihier.posterior.writer import PosteriorWriter

# No formula, the beginning of one, and one that is none: asked to set the last, matplotlib fails.
LABELS = ["$5", r"$\frac{$", "A$B$"]


@pytest.fixture
def post(tmp_path: Path) -> Posterior:
    about = {"model": "additive", "guide": "mean_field", "seed": 0, "priors": {}, "config": "", "screen_hash": ""}
    dims = dict.fromkeys(("sgrna", "hugo_symbol", "depmap_id", "lineage"), LABELS)
    draws = np.random.default_rng(0).normal(size=(20, 3, 3))
    with PosteriorWriter(tmp_path / "fit.h5", labels=dims, n_draws=20, attrs=about) as writer:
        for name, index, values in (
            ("effect", ("hugo_symbol", "depmap_id"), draws),
            ("effect_gene", ("hugo_symbol",), draws[..., 0]),
            ("alpha_dev", ("sgrna",), draws[..., 1]),
        ):
            writer.add(name, index)
            writer.write(name, values)
        maps = {"gene_of_sgrna": ("sgrna",), "lineage_of_line": ("depmap_id",)}
        writer.write_group("index", {name: np.arange(3) for name in maps}, maps)
        writer.finish(converged=True)
    return open_posterior(tmp_path / "fit.h5")


DRAWN: dict[str, Callable[[Posterior, Axes], object]] = {
    "heatmap": lambda post, ax: plots.effect_heatmap(post, ax),
    "forest": lambda post, ax: plots.forest(post, LABELS[1], ax),
    "gene_page": lambda post, ax: plots.gene_page(post, LABELS[1], None, ax),
    "lineages": lambda post, ax: plots.effects_by_lineage(post, LABELS[1], ax),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_dollar_sign_in_a_label_begins_no_formula(kind: str, post: Posterior) -> None:
    figure = Figure(figsize=(8, 8), layout="constrained")
    DRAWN[kind](post, figure.subplots())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = "\n".join(text.get_text() for text in figure.findobj(match=lambda each: hasattr(each, "get_text")))
    assert LABELS[1].replace("$", r"\$") in shown
    assert r"\frac" in shown
