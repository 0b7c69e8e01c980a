"""Figures of single genes and of contrasts show what the posterior and the rows say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from vihier import plots
from vihier.answers import contrast
from vihier.posterior.moments import hdi_of_draws
from vihier.posterior.reader import Posterior, open_posterior
from vihier.screen import read_screen
from vihier.screen.screen import Screen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "answers"))

from known_effects import GENES, LINES, known_draws, write_known

Make = Callable[..., Posterior]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Posterior]:
    with open_posterior(write_known(tmp_path / "fit.h5", known_draws())) as opened:
        yield opened


@pytest.fixture
def screen(post: Posterior) -> Screen:
    """Two replicates of each sgRNA in each line but the last; lfc 0.01 sgRNA + line, minus 0.5 in replicate B."""
    rows = [
        {"sgrna": name, "hugo_symbol": GENES[i % 12], "depmap_id": line, "replicate_id": r, "lfc": 0.01 * i + c - k}
        for i, name in enumerate(post.labels("sgrna"))
        for c, line in enumerate(LINES[:-1])
        for r, k in (("A", 0.0), ("B", 0.5))
    ]
    return read_screen(pd.DataFrame(rows))


def dots(ax: Axes) -> list[np.ndarray]:
    return [np.asarray(each.get_offsets()) for each in ax.collections if isinstance(each, PathCollection)]


def y_labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_a_genes_page_has_each_row_in_its_lines_place(post: Posterior, screen: Screen) -> None:
    ax = plots.gene_page(post, "BRAF", screen)
    means = post.moments("effect", hugo_symbol="BRAF")["mean"].squeeze("hugo_symbol").to_series()
    assert y_labels(ax) == means.sort_values(ascending=False).index.tolist()
    rows = dots(ax)[-1]
    place = {line: y for y, line in enumerate(y_labels(ax))}
    part = screen.subset(genes="BRAF")
    expected = sorted((place[part.index.lines[c]], lfc) for c, lfc in zip(part.line, part.lfc, strict=True))
    # Dots are moved within the height of their line only.
    found = sorted((round(float(y)), float(x)) for x, y in rows)
    assert [y for y, _ in found] == [y for y, _ in expected]
    np.testing.assert_allclose([x for _, x in found], [x for _, x in expected])


def test_a_genes_page_has_bars_of_the_posterior_interval(post: Posterior) -> None:
    ax = plots.gene_page(post, "KRAS")
    moments = post.moments("effect", hugo_symbol="KRAS").squeeze("hugo_symbol").sel(depmap_id=y_labels(ax))
    np.testing.assert_allclose([bar.get_x() for bar in ax.patches], moments["hdi_lower"], rtol=1e-6)
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(ends, moments["hdi_upper"], rtol=1e-6)


def test_a_genes_page_has_its_sgrnas_above_in_the_colours_of_their_rows(post: Posterior, screen: Screen) -> None:
    ax = plots.gene_page(post, "BRAF", screen)
    (panel,) = ax.child_axes
    names = y_labels(panel)
    # Every twelfth sgRNA is BRAF's, from the first.
    assert names == ["SGRNA00", "SGRNA12", "SGRNA24"]
    draws = post.draws("alpha_dev", sgrna=names).values + post.draws("effect_gene", hugo_symbol="BRAF").values
    np.testing.assert_allclose(dots(panel)[0][:, 0], draws.mean(axis=(0, 1)), rtol=1e-5)
    lines = next(each for each in panel.collections if isinstance(each, LineCollection))
    np.testing.assert_allclose([s[0, 0] for s in lines.get_segments()], hdi_of_draws(draws, 0.89)[0], rtol=1e-5)
    # 0.24 more in the third than in the first tells which dots are whose.
    rows = next(each for each in reversed(ax.collections) if isinstance(each, PathCollection))
    of_third = np.isclose(np.mod(np.asarray(rows.get_offsets())[:, 0], 0.5), 0.24)
    assert {to_hex(colour) for colour in rows.get_facecolors()[of_third]} == {to_hex(lines.get_colors()[2])}


def test_a_genes_page_of_a_thousand_lines_has_a_band_and_counts_them(make_posterior: Make) -> None:
    ax = plots.gene_page(make_posterior(2, 1000, 5), "GENE0001")
    assert ax.get_ylabel() == "1,000 cell lines" and y_labels(ax) == [] and not ax.patches


def test_a_forest_of_a_thousand_lines_puts_lineages_together_and_names_each_in_its_place(make_posterior: Make) -> None:
    post = make_posterior(2, 1000, 5)
    ax = plots.forest(post, "GENE0001")
    # The mean falls by 0.1 from lineage to lineage: the last is the lowest, and on top.
    names = [text.get_text() for text in ax.texts]
    assert names == [f"lineage {code:02d} (200)" for code in range(5)]
    mean = post.moments("effect", hugo_symbol="GENE0001")["mean"].squeeze("hugo_symbol")
    lineage = post.group("index")["lineage_of_line"]
    for code, text in enumerate(ax.texts):
        assert text.xy[1] == pytest.approx(200 * code + 99.5)
        drawn = dots(ax)[0][200 * code : 200 * (code + 1), 0]
        expected = np.sort(mean.values[lineage.values == code])[::-1]
        np.testing.assert_array_equal(drawn, expected)


def test_lineages_have_the_interval_of_their_mean_by_draws(post: Posterior) -> None:
    ax = plots.effects_by_lineage(post, "BRAF")
    effect = post.draws("effect", hugo_symbol="BRAF").values[:, :, 0]
    of_line = post.group("index")["lineage_of_line"].values
    top = y_labels(ax)[-1]
    assert top == "skin (3)"  # BRAF is 1 lower there
    skin = effect[:, :, of_line == 2].mean(axis=2)
    diamonds = dots(ax)[-1]
    assert diamonds[-1, 0] == pytest.approx(skin.mean(), rel=1e-5)
    intervals = [each for each in ax.collections if isinstance(each, LineCollection)][-1].get_segments()
    expected = [float(bound[0]) for bound in hdi_of_draws(skin[..., None], 0.89)]
    np.testing.assert_allclose(intervals[-1][:, 0], expected, rtol=1e-5)


def test_the_volcano_has_every_gene_and_names_hits_only(post: Posterior) -> None:
    skin = [LINES[0], LINES[2], LINES[5]]
    found = contrast(post, skin)
    ax = plots.volcano(found)
    assert sum(map(len, dots(ax))) == len(GENES)
    hits = found.table[found.table["hit"]]
    named = {text.get_text() for text in ax.texts}
    assert "BRAF" in named and named <= set(hits["hugo_symbol"])
    braf = found.table.set_index("hugo_symbol").loc["BRAF"]
    size = abs(braf["difference"]) / braf["sd"]
    assert np.isclose(dots(ax)[1], [braf["difference"], size]).all(axis=1).any()
    assert ax.get_legend().get_texts()[1].get_text() == f"stronger dependency ({(hits['difference'] < 0).sum()})"


def test_names_of_points_do_not_overlap_and_the_first_ones_win() -> None:
    from vihier.plots.axes import name_points

    _, ax = plt.subplots(figsize=(4, 3))
    x, y = np.r_[np.full(30, 0.5), 0.1], np.r_[np.linspace(0.49, 0.51, 30), 0.9]
    ax.scatter(x, y)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    n_named = name_points(ax, x, y, [f"name {i}" for i in range(31)])
    assert n_named == len(ax.texts) < 31
    assert {ax.texts[0].get_text(), ax.texts[-1].get_text()} == {"name 0", "name 30"}
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("gene", [None, "BRAF"])
def test_shrinkage_is_the_slope_of_posterior_means_on_those_of_rows(gene: str | None, post: Posterior) -> None:
    # Rows that are the posterior means are shrunk to themselves; rows twice as far apart by half.
    mean = post.moments("effect")["mean"].to_series().reset_index(name="lfc")
    table = mean.assign(sgrna=mean["hugo_symbol"], lfc=2 * mean["lfc"])
    ax = plots.shrinkage(post, read_screen(table), gene=gene)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no shrinkage", "slope 0.50"]
    offsets = dots(ax)[0]
    assert len(offsets) == len(LINES) * (1 if gene else len(GENES))
    np.testing.assert_allclose(offsets[:, 0], 2 * offsets[:, 1], atol=1e-5)
