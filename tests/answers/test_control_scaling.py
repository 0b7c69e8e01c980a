"""Lines in their own unit: what is exactly 0 and -1, and which fits have no such unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from known_effects import ESSENTIAL, GENES, LINES, NONESSENTIAL, KnownEffects, known_draws, write_known
from numpy.testing import assert_allclose

from vihier.answers import control_scaling, effect_matrix
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import open_posterior


def test_the_medians_of_control_genes_are_0_and_minus_1_in_every_line(
    fit: KnownEffects, controls: ControlGenes
) -> None:
    scaling = control_scaling(fit.post, controls)
    matrix = effect_matrix(fit.post, scaling=scaling)
    # Means are stored in float32, and effects are of order 1.
    assert_allclose(matrix[list(NONESSENTIAL)].median(axis=1), 0, atol=1e-6)
    assert_allclose(matrix[list(ESSENTIAL)].median(axis=1), -1, atol=1e-6)
    assert (scaling.n_essential, scaling.n_nonessential) == (4, 4)


def test_sds_have_the_unit_of_the_means(fit: KnownEffects, controls: ControlGenes) -> None:
    scaling = control_scaling(fit.post, controls)
    draws = scaling.of_effects(fit.draws["effect"].astype(np.float64))
    assert_allclose(effect_matrix(fit.post, "sd", scaling).T, draws.std(axis=0, ddof=1), rtol=1e-5)
    assert_allclose(effect_matrix(fit.post, "mean", scaling).T, draws.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_line_that_does_not_separate_them_is_named(tmp_path: Path, controls: ControlGenes) -> None:
    draws = {"effect": known_draws()["effect"]}
    draws["effect"][..., [GENES.index(gene) for gene in ESSENTIAL], 3] = 1.0
    with open_posterior(write_known(tmp_path / "bad.h5", draws)) as post, pytest.raises(VihierError) as caught:
        control_scaling(post, controls)
    assert LINES[3] in str(caught.value) and "\n" not in str(caught.value)


def test_a_fit_without_effect_is_refused(tmp_path: Path, controls: ControlGenes) -> None:
    path = write_known(tmp_path / "other.h5", {"sigma": known_draws()["sigma"]})
    with open_posterior(path) as post, pytest.raises(VihierError, match="no variable 'effect'"):
        control_scaling(post, controls)
