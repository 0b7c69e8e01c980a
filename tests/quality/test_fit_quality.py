"""What a fit says of lines and sgRNAs, on a fit whose draws are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.diagnostics.control_genes import ControlGenes
from vihier.posterior.reader import open_posterior
from vihier.quality import FitQuality, fit_quality
from vihier.quality.limits import robust_z
from vihier.screen import read_screen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "answers"))

from known_effects import ESSENTIAL, LINES, NONESSENTIAL, known_draws, write_known

CONTROLS = ControlGenes(frozenset(ESSENTIAL), frozenset(NONESSENTIAL))


def judged(path: Path, draws: dict[str, np.ndarray], controls: ControlGenes | None = CONTROLS) -> FitQuality:
    with open_posterior(write_known(path, draws)) as post:
        return fit_quality(post, controls)


def test_a_line_far_from_the_others_and_an_sgrna_far_from_its_genes_are_flagged(tmp_path: Path) -> None:
    draws = known_draws()
    draws["beta_dev"][..., 6] -= 7
    draws["alpha_dev"][..., 3] -= 9
    quality = judged(tmp_path / "fit.h5", draws)
    assert quality.flags[["about", "label"]].to_numpy().tolist() == [["line", LINES[6]], ["sgRNA", "SGRNA03"]]
    line = quality.lines.set_index("depmap_id").loc[LINES[6]]
    assert line["shift"] < -5 and f"beta_dev is {line['beta_dev']:.2f}" in quality.flags["text"][0]
    assert (quality.lines["auroc"] == 1).all()
    assert [each["measure"] for each in quality.overview["measured"]] == ["shift", "auroc", "nnmd", "z"]


def test_an_sgrna_whose_sign_is_in_doubt_is_not_flagged(tmp_path: Path) -> None:
    draws = known_draws()
    # Mean -9, and more than 1 % of the draws above 0.
    draws["alpha_dev"][..., 3] -= 9
    draws["alpha_dev"][..., :6, 3] = 9
    assert judged(tmp_path / "fit.h5", draws).flags.empty


def test_a_line_that_tells_control_genes_apart_poorly_is_flagged(tmp_path: Path) -> None:
    draws = known_draws()
    # Essential genes of the first line as high as the others' median.
    genes = sorted([*ESSENTIAL, *NONESSENTIAL, "BRAF", "KRAS", "SOX10", "TP53"])
    for place, gene in enumerate(ESSENTIAL):
        draws["effect"][..., genes.index(gene), 0] = -0.01 * place - 0.01 + draws["effect"][..., genes.index("KRT1"), 0]
    quality = judged(tmp_path / "fit.h5", draws)
    assert set(quality.flags["label"]) == {LINES[0]} and "nnmd" in set(quality.flags["measure"])


def test_without_control_genes_and_sgrna_effects_it_says_what_it_can(tmp_path: Path) -> None:
    draws = {name: values for name, values in known_draws().items() if name != "alpha_dev"}
    quality = judged(tmp_path / "fit.h5", draws, None)
    assert quality.sgrnas is None and "auroc" not in quality.lines
    assert set(quality.tables()) == {"lines"}


def test_robust_z_is_of_each_group_and_of_no_group_that_is_too_small() -> None:
    values = np.array([0.0, 1, 2, 3, 4, 100, 101, 102, 103, 150, 7, 8])
    groups = np.array([0] * 5 + [1] * 5 + [2] * 2)
    found = robust_z(values, groups)
    # Medians 2 and 102, MADs 1.
    np.testing.assert_allclose(found[:10], np.r_[-2, -1, 0, 1, 2, -2, -1, 0, 1, 48] / 1.4826)
    assert np.isnan(found[10:]).all()
    assert np.isnan(robust_z(np.ones(9))).all()  # all the same: no scale to measure by


@pytest.mark.parametrize("missing", [0, 3])
def test_missing_values_have_no_robust_z_and_do_not_count(missing: int) -> None:
    values = np.r_[np.arange(7.0), np.full(missing, np.nan)]
    np.testing.assert_allclose(robust_z(values)[:7], (np.arange(7) - 3) / (1.4826 * 2))


def test_a_noisy_line_is_flagged_where_the_rows_are_at_hand(tmp_path: Path) -> None:
    draws = known_draws()
    rng = np.random.default_rng(0)
    sds = [0.3] * 6 + [1.5]
    with open_posterior(write_known(tmp_path / "fit.h5", draws)) as post:
        effect = post.moments("effect")["mean"]
        deviation = post.moments("alpha_dev")["mean"].values
        genes = post.labels("hugo_symbol")
        rows = [
            {"sgrna": name, "hugo_symbol": genes[s % 12], "depmap_id": line, "replicate_id": replicate}
            | {"lfc": float(effect[s % 12, c]) + deviation[s] + rng.normal(0, sds[c])}
            for s, name in enumerate(post.labels("sgrna"))
            for c, line in enumerate(LINES)
            for replicate in "AB"
        ]
        quality = fit_quality(post, screen=read_screen(pd.DataFrame(rows)))
    flagged = quality.flags.set_index("measure").loc[["noise"]]
    assert flagged["label"].tolist() == [LINES[6]]
    # An sd of 60 rows is known to 9 %.
    np.testing.assert_allclose(quality.lines["residual"], sds, rtol=0.4)
