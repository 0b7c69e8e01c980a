"""Matrices and rows against numpy on the draws, and read block by block as in one go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from known_effects import ESSENTIAL, GENES, LINES, NONESSENTIAL, KnownEffects
from numpy.testing import assert_allclose

from vihier.answers import control_scaling, dependency_matrix, effect_matrix, effect_rows
from vihier.diagnostics.control_genes import ControlGenes


def test_the_matrix_is_that_of_depmap(fit: KnownEffects) -> None:
    matrix = effect_matrix(fit.post)
    assert matrix.index.name == "ModelID"
    assert list(matrix.index) == LINES and list(matrix.columns) == GENES
    # The file holds float32; means and sds are of order 1 and 0.1.
    assert_allclose(matrix, fit.effect.mean("draw").T, rtol=1e-6, atol=1e-6)
    assert_allclose(effect_matrix(fit.post, "sd"), fit.effect.std("draw", ddof=1).T, rtol=1e-5)


def test_dependency_is_the_share_of_draws_below_the_midpoint(fit: KnownEffects, controls: ControlGenes) -> None:
    mean = fit.effect.mean("draw")
    midpoint = (mean.sel(gene=list(NONESSENTIAL)).median("gene") + mean.sel(gene=list(ESSENTIAL)).median("gene")) / 2
    expected = (fit.effect < midpoint).mean("draw").transpose("line", "gene")
    got = dependency_matrix(fit.post, control_scaling(fit.post, controls))
    # A draw within rounding of the midpoint may fall on either side: one of 300.
    assert_allclose(got, expected, atol=1 / 300 + 1e-6)
    assert list(got.index) == LINES and list(got.columns) == GENES
    assert got.loc[:, "RPL3"].min() > 0.9 and got.loc[:, "KRT1"].max() < 0.1


def test_rows_are_the_matrices_in_long(fit: KnownEffects, controls: ControlGenes) -> None:
    scaling = control_scaling(fit.post, controls)
    rows = pd.concat(effect_rows(fit.post, scaling), ignore_index=True)
    assert len(rows) == len(GENES) * len(LINES)
    wide = rows.pivot_table(index="depmap_id", columns="hugo_symbol", values=["mean", "sd", "dependency"])
    assert_allclose(wide["mean"], effect_matrix(fit.post, "mean", scaling), rtol=1e-5, atol=1e-6)
    assert_allclose(wide["sd"], effect_matrix(fit.post, "sd", scaling), rtol=1e-5)
    assert_allclose(wide["dependency"], dependency_matrix(fit.post, scaling))
    assert set(rows.loc[rows["lineage"] == "skin", "depmap_id"]) == {LINES[0], LINES[2], LINES[5]}


def test_without_control_genes_rows_are_the_summary(fit: KnownEffects) -> None:
    rows = pd.concat(effect_rows(fit.post), ignore_index=True)
    summary = fit.post.summary("effect").drop(columns="variable")
    pd.testing.assert_frame_equal(rows.drop(columns="lineage"), summary, rtol=1e-6)


@pytest.mark.usefixtures("one_gene_at_a_time")
def test_blocks_of_one_gene_give_the_same(
    fit: KnownEffects, controls: ControlGenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = control_scaling(fit.post, controls)
    streamed = [effect_matrix(fit.post), dependency_matrix(fit.post, scaling)]
    rows = list(effect_rows(fit.post, scaling))
    assert len(rows) == len(GENES)
    monkeypatch.undo()
    whole = [effect_matrix(fit.post), dependency_matrix(fit.post, scaling)]
    for one, other in zip(streamed, whole, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    expected = pd.concat(effect_rows(fit.post, scaling), ignore_index=True)
    pd.testing.assert_frame_equal(pd.concat(rows, ignore_index=True), expected, check_exact=True)


def test_no_more_than_a_block_of_draws_is_read_at_a_time(
    fit: KnownEffects, controls: ControlGenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = 3 * 4 * fit.draws["effect"][:, 0].size
    monkeypatch.setattr("vihier.answers.effect_draws._BLOCK_BYTES", n_bytes)
    read: list[int] = []
    draws = type(fit.post).draws

    def watched(*args: object, **kwargs: object) -> object:
        found = draws(*args, **kwargs)  # type: ignore[arg-type]
        read.append(found.nbytes)
        return found

    monkeypatch.setattr(type(fit.post), "draws", watched)
    dependency_matrix(fit.post, control_scaling(fit.post, controls))
    assert np.sum(read) == fit.draws["effect"].nbytes and max(read) <= n_bytes
