"""Figures show the numbers of the posterior they are given, in the order and with the names they promise."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

import vihier.plots as plots
from vihier.plots.axes import lineage_colours, spread
from vihier.posterior.reader import Posterior

Make = Callable[..., Posterior]


def texts(ax: Axes, which: str) -> list[str]:
    return [label.get_text() for label in (ax.get_yticklabels() if which == "y" else ax.get_xticklabels())]


@pytest.mark.parametrize("figure", ["elbo", "effect_heatmap", "truth_vs_posterior", "forest", "trace", "density"])
def test_a_figure_draws_on_the_axes_it_is_given(figure: str, make_posterior: Make) -> None:
    post = make_posterior(4, 6, 2)
    _, ax = plt.subplots()
    what = {"forest": ("GENE0001",), "trace": ("sigma",), "density": ("sigma",)}.get(figure, ())
    if figure == "truth_vs_posterior":
        what = (post.moments("effect")["mean"].rename("effect"),)
    assert getattr(plots, figure)(post, *what, ax=ax) is ax
    assert ax.has_data()


@pytest.mark.parametrize(("converged", "said"), [(True, "converged"), (False, "did not converge")])
def test_elbo_says_whether_the_fit_converged(converged: bool, said: str, make_posterior: Make) -> None:
    ax = plots.elbo(make_posterior(2, 2, 1, converged))
    assert ax.get_title() == f"additive, mean_field: {said}"
    # The first step, at -31 nats, would squeeze the rest into a line.
    assert ax.get_ylim()[0] > -10


def test_heat_map_shows_each_mean_at_its_labels(make_posterior: Make) -> None:
    post = make_posterior(7, 9, 3)
    ax = plots.effect_heatmap(post)
    mean = post.moments("effect")["mean"].sel(hugo_symbol=texts(ax, "y"), depmap_id=texts(ax, "x"))
    np.testing.assert_array_equal(ax.images[0].get_array(), mean.values)


def test_heat_map_keeps_the_lines_of_a_lineage_together_and_names_it_once(make_posterior: Make) -> None:
    post = make_posterior(5, 12, 4)
    ax = plots.effect_heatmap(post)
    index = post.group("index")
    shown = index["lineage_of_line"].sel(depmap_id=texts(ax, "x")).values
    assert (np.diff(shown) != 0).sum() == 3  # four lineages meet at three places
    strip = ax.child_axes[0]
    assert [text.get_text() for text in strip.texts] == index["lineage"].values.tolist()


def test_heat_map_of_a_thousand_lines_counts_them_instead_of_naming_them(make_posterior: Make) -> None:
    ax = plots.effect_heatmap(make_posterior(3, 1000, 5))
    assert ax.get_xlabel() == "1,000 cell lines"
    assert texts(ax, "x") == []
    assert texts(ax, "y") != []


def test_heat_map_takes_a_selection(make_posterior: Make) -> None:
    ax = plots.effect_heatmap(make_posterior(5, 6, 2), hugo_symbol=["GENE0003"])
    assert texts(ax, "y") == ["GENE0003"]


def test_forest_has_the_most_negative_line_on_top_and_its_interval(make_posterior: Make) -> None:
    post = make_posterior(3, 8, 4)
    ax = plots.forest(post, "GENE0002")
    moments = post.moments("effect", hugo_symbol="GENE0002").squeeze("hugo_symbol")
    top = texts(ax, "y")[-1]
    assert top == moments["depmap_id"].values[moments["mean"].values.argmin()]
    intervals = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
    expected = [float(moments[name].sel(depmap_id=top)) for name in ("hdi_lower", "hdi_upper")]
    np.testing.assert_array_equal(intervals[-1][:, 0], expected)


def test_boxes_name_lineages_with_their_number_of_lines_lowest_median_on_top(make_posterior: Make) -> None:
    # Lines 0, 3, 6 are in lineage 00; the effect falls by 0.1 a lineage, ten times the Monte Carlo error of a mean.
    ax = plots.effects_by_lineage(make_posterior(2, 7, 3), "GENE0001")
    assert texts(ax, "y") == ["lineage 00 (3)", "lineage 01 (2)", "lineage 02 (2)"]
    assert ax.get_ylim()[0] < ax.get_ylim()[1]
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    # The lines', and a diamond for each lineage.
    assert sum(len(c.get_offsets()) for c in dots) == 7 + 3


def test_truth_figure_counts_what_the_intervals_cover(make_posterior: Make) -> None:
    post = make_posterior(4, 5, 2)
    mean = post.moments("effect")["mean"].rename("effect")
    # 10 away is far outside every interval (sd 0.1).
    truth = mean.where(mean["hugo_symbol"] != "GENE0000", mean + 10).transpose("depmap_id", "hugo_symbol")
    ax = plots.truth_vs_posterior(post, truth)
    assert ax.get_title().startswith("75.0% of intervals cover the truth")


def test_density_marks_the_interval_that_the_summary_gives(make_posterior: Make) -> None:
    post = make_posterior(2, 2, 1)
    ax = plots.density(post, "sigma")
    row = post.summary("sigma").iloc[0]
    bar = ax.lines[-1].get_xdata()
    # The file keeps float32.
    np.testing.assert_allclose(bar, [row["hdi_5.5%"], row["hdi_94.5%"]], rtol=1e-6)


def test_spread_labels_keep_their_order_and_distance_within_the_axis() -> None:
    moved = spread([0.0, 0.1, 0.2, 9.8, 9.9, 10.0], 0.5, 0.0, 10.0)
    assert moved.min() >= 0 and moved.max() <= 10
    assert np.diff(moved).min() >= 0.5 - 1e-12  # additions round
    # Where there is no room for the gap, what there is is shared out.
    crowded = spread(np.full(11, 5.0), 3.0, 0.0, 10.0)
    assert np.diff(crowded).min() > 0.99


def test_twenty_lineages_have_twenty_colours() -> None:
    assert len(np.unique(lineage_colours(20), axis=0)) == 20
    assert lineage_colours(33).shape == (33, 4)
