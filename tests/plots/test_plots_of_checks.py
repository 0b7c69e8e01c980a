"""Figures that check a fit or a screen count and place what they are given."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from vihier import plots
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior, open_posterior
from vihier.quality import Limit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "answers"))

from known_effects import known_draws, write_known

Make = Callable[..., Posterior]
AUROC = Limit("auroc", "line", "below", 0.9, "essential genes below non-essential ones")


def offsets(ax: object) -> list[np.ndarray]:
    return [np.asarray(each.get_offsets()) for each in ax.collections if isinstance(each, PathCollection)]  # type: ignore[attr-defined]


def test_the_predictive_check_marks_the_bins_that_the_model_gets_wrong() -> None:
    rng = np.random.default_rng(0)
    replicated = rng.normal(0, 1, (50, 5000))
    right = plots.predictive_check(rng.normal(0, 1, 5000), replicated)
    wrong = plots.predictive_check(rng.standard_t(3, 5000), replicated)
    n_right, n_wrong = (int(ax.get_title().split()[0]) for ax in (right, wrong))
    # 11 % of 60 bins by chance; of a t distribution with 3 degrees both tails and the middle.
    assert n_right < 15 < 25 < n_wrong
    assert len(offsets(wrong)[0]) == n_wrong
    # The distribution that is drawn has an area of 1.
    heights, edges, _ = right.patches[0].get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(1, abs=0.01)


def test_control_distributions_count_genes_and_mark_medians() -> None:
    effect = pd.DataFrame(
        np.r_[[np.r_[np.full(3, -2.0), np.full(5, 0.1)]] * 4] + np.arange(4)[:, None] / 100,
        columns=[*(f"e{i}" for i in range(3)), *(f"n{i}" for i in range(5))],
    )
    controls = ControlGenes({"e0", "e1", "e2", "absent"}, {f"n{i}" for i in range(5)})
    ax = plots.control_distributions(effect, controls)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "essential (3 genes)",
        "non-essential (5 genes)",
    ]
    np.testing.assert_allclose([line.get_xdata()[0] for line in ax.lines], [-2 + 0.015, 0.1 + 0.015])
    assert "4 lines, median AUROC 1.000" in ax.get_xlabel()


@pytest.mark.parametrize(("n_lines", "n_named"), [(5, 5), (80, 80), (1000, 60)])
def test_line_quality_names_the_worst_on_top_and_puts_the_others_together(n_lines: int, n_named: int) -> None:
    values = np.random.default_rng(0).permutation(np.linspace(0.5, 1.0, n_lines))
    table = pd.DataFrame({"depmap_id": [f"ACH-{i:04d}" for i in range(n_lines)], "auroc": values, "screen": "broad"})
    ax = plots.line_quality(table, AUROC)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    expected = (table.sort_values("auroc")["depmap_id"] + " broad").tolist()[:n_named]
    assert labels[:n_named] == expected
    assert labels[n_named:] == ([] if n_named == n_lines else ["940 others"])
    # Row 0 is at the top.
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    drawn = np.concatenate(offsets(ax))
    assert len(drawn) == n_lines
    worst = drawn[drawn[:, 1].argmin()]
    assert worst[0] == 0.5
    n_beyond = int((values < 0.9).sum())
    assert f"below 0.9 ({n_beyond})" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_drift_shows_the_limit_of_the_stopping_rule_and_what_is_not_in_the_history_is_refused(
    make_posterior: Make, tmp_path: Path
) -> None:
    post = make_posterior(2, 2, 1)
    with pytest.raises(VihierError, match="says nothing of how parameters moved"):
        plots.drift(post)
    bare = tmp_path / "bare.h5"
    shutil.copy(post.path, bare)
    with h5py.File(bare, "a") as file:
        del file["vi_history/elbo_per_row"]
    with open_posterior(bare) as without, pytest.raises(VihierError, match="has no ELBO"):
        plots.elbo(without)
    path = tmp_path / "moved.h5"
    shutil.copy(post.path, path)
    moved = np.full(100, np.nan)
    moved[[19, 59, 99]] = 4.0, 0.5, 0.1
    with h5py.File(path, "a") as file:
        drift = file["vi_history"].create_dataset("drift", data=moved)
        drift.dims[0].attach_scale(file["vi_history/record"])
    with open_posterior(path) as written:
        ax = plots.drift(written)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[190, 4.0], [590, 0.5], [990, 0.1]])
    assert ax.lines[1].get_ydata()[0] == 0.2 and ax.get_yscale() == "log"


def tables(shift: float, ratio: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A guide that is `shift` sds off in its means and by `ratio` in its sds, but for one scalar."""
    nuts = pd.DataFrame({"variable": "effect", "hugo_symbol": [f"G{i}" for i in range(9)], "mean": 1.0, "sd": 0.5})
    nuts = pd.concat([nuts, pd.DataFrame({"variable": ["sigma"], "mean": [2.0], "sd": [0.1]})], ignore_index=True)
    guide = nuts.copy()
    guide.loc[:8, "mean"] += 0.5 * shift
    guide.loc[:8, "sd"] *= ratio
    return guide.sample(frac=1, random_state=0), nuts


def test_guide_and_nuts_are_held_to_each_other_element_by_element() -> None:
    ax = plots.guide_vs_nuts(*tables(0.4, 1.5))
    by_label = {each.get_label(): np.asarray(each.get_offsets()) for each in ax.collections}
    np.testing.assert_allclose(by_label["effect (9)"], np.tile([0.4, 1.5], (9, 1)))
    np.testing.assert_allclose(by_label["sigma (1)"], [[0.0, 1.0]])
    assert ax.get_title().startswith("10.0% of 10 within 0.2 sd")
    assert plots.guide_vs_nuts(*tables(0.1, 0.9)).get_title().startswith("100.0% of 10")


def test_guide_and_nuts_without_a_common_element_are_refused() -> None:
    guide, nuts = tables(0, 1)
    with pytest.raises(VihierError, match="no element in common"):
        plots.guide_vs_nuts(guide, nuts.assign(variable="other"))


def test_the_group_nuts_of_a_file_is_read_beside_the_guides_moments(tmp_path: Path) -> None:
    path = write_known(tmp_path / "fit.h5", known_draws())
    with pytest.raises(VihierError, match="vihier refine"), open_posterior(path) as post:
        plots.nuts_tables(post)
    # A run of two genes, labelled by scales of its own.
    draws = known_draws()
    with h5py.File(path, "a") as file:
        group = file.create_group("nuts")
        sizes = {"chain": np.arange(2), "draw": np.arange(150), "hugo_symbol": np.array(["BRAF", "TP53"], dtype="O")}
        labels = file["index/depmap_id"][:]
        for name, values in {**sizes, "depmap_id": labels}.items():
            group.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype == "O" else None)
            group[name].make_scale(name)
        genes = [file["index/hugo_symbol"][:].tolist().index(gene) for gene in (b"BRAF", b"TP53")]
        run = {"effect": draws["effect"][:, :, genes] + 1, "sigma": draws["sigma"]}
        for name, dims in {"effect": ("hugo_symbol", "depmap_id"), "sigma": ()}.items():
            dataset = group.create_dataset(name, data=run[name])
            for axis, dim in enumerate(("chain", "draw", *dims)):
                dataset.dims[axis].attach_scale(group[dim])
    with open_posterior(path) as post:
        guide, nuts = plots.nuts_tables(post)
    assert (
        guide.groupby("variable").size().to_dict()
        == nuts.groupby("variable").size().to_dict()
        == {"effect": 14, "sigma": 1}
    )
    keys = ["variable", "hugo_symbol", "depmap_id"]
    both = guide.merge(nuts, on=keys)
    of_effect = both[both["variable"] == "effect"]
    # The run's effects were made 1 higher.
    np.testing.assert_allclose(of_effect["mean_y"] - of_effect["mean_x"], 1.0, atol=1e-5)
    np.testing.assert_allclose(both["sd_x"], both["sd_y"], rtol=1e-4)
