"""The table of lines against the draws, with and without what not every model has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from known_effects import (
    DIMS,
    ESSENTIAL,
    GENES,
    LINEAGES,
    LINES,
    NONESSENTIAL,
    KnownEffects,
    known_draws,
    write_known,
)
from numpy.testing import assert_allclose

from vihier.answers import line_table
from vihier.diagnostics.control_genes import ControlGenes
from vihier.posterior.reader import open_posterior


def test_it_is_what_the_draws_say(fit: KnownEffects, controls: ControlGenes) -> None:
    table = line_table(fit.post, controls)
    assert list(table["depmap_id"]) == LINES and set(table["lineage"]) == set(LINEAGES)
    beta = fit.draws["beta_dev"].astype(np.float64)
    assert_allclose(table["beta_dev"], beta.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert_allclose(table["sd"], beta.std(axis=0, ddof=1), rtol=1e-5)
    assert_allclose(table["median_effect_sd"], fit.effect.std("draw", ddof=1).median("gene"), rtol=1e-5)
    mean = fit.effect.mean("draw")
    for name, genes in {"nonessential": NONESSENTIAL, "essential": ESSENTIAL}.items():
        assert_allclose(table[name], mean.sel(gene=list(genes)).median("gene"), atol=1e-6)
    assert (table["auroc"] == 1).all()  # essential genes lie 1.6 lower, ten times what genes differ by
    assert (table["nnmd"] < -3).all()


def test_without_control_genes_there_is_no_quality(fit: KnownEffects) -> None:
    columns = list(line_table(fit.post))
    assert "auroc" not in columns and "beta_dev" in columns


def test_a_model_without_line_effects_has_the_rest(tmp_path: Path) -> None:
    with open_posterior(write_known(tmp_path / "fit.h5", {"effect": known_draws()["effect"]})) as post:
        assert list(line_table(post)) == ["depmap_id", "lineage", "median_effect_sd"]


def test_crossed_shows_what_it_identifies_and_noise_where_it_is_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIMS, "beta_plus_theta", ("depmap_id",))
    monkeypatch.setitem(DIMS, "sigma", ("depmap_id",))
    made = known_draws()
    offset = np.random.default_rng(0).normal(0, 3, (*made["sigma"].shape, 1)).astype(np.float32)
    draws = {
        "effect": made["effect"],
        "beta_dev": made["beta_dev"] + 1,
        "beta_plus_theta": made["beta_dev"] + offset,  # known up to an offset that all lines share
        "sigma": np.repeat(made["sigma"][..., None], len(LINES), axis=2),
    }
    with open_posterior(write_known(tmp_path / "fit.h5", draws)) as post:
        table = line_table(post)
    assert "beta_dev" not in table
    assert_allclose(table["beta_plus_theta_dev"], made["beta_dev"].mean((0, 1)), atol=1e-5)
    # The offset of sd 3 is gone; float32 leaves 1e-6 of it.
    assert_allclose(table["sd"], made["beta_dev"].reshape(-1, len(GENES[:7])).std(0, ddof=1), rtol=1e-4)
    assert_allclose(table["sigma"], made["sigma"].mean(), rtol=1e-6)
