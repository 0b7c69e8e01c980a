"""Noise of replicates and lines against the draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from known_effects import LINES, REPLICATES, KnownEffects, known_draws, write_known
from numpy.testing import assert_allclose

from vihier.answers import line_table, replicate_table
from vihier.posterior.reader import open_posterior
from vihier.quality import fit_quality


@pytest.fixture
def noisy(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A fit with noise by replicate, 0.5 of all but the second line's B, and its draws [N, R]."""
    centre = np.full(len(REPLICATES), 0.5)
    centre[REPLICATES.index(f"{LINES[1]}|B")] = 2.0
    draws = known_draws()
    rng = np.random.default_rng(0)
    scales = np.exp(rng.normal(0, 0.03, (*draws["sigma"].shape, len(REPLICATES)))) * centre
    draws["sigma_replicate"] = scales.astype(np.float32)
    return write_known(tmp_path / "fit.h5", draws), scales.reshape(-1, len(REPLICATES))


def test_replicates_have_their_noise_and_their_line(noisy: tuple[Path, np.ndarray]) -> None:
    path, scales = noisy
    with open_posterior(path) as post:
        table = replicate_table(post)
    assert table is not None and table["replicate"].tolist() == REPLICATES
    assert table["depmap_id"].tolist() == [label.split("|")[0] for label in REPLICATES]
    assert_allclose(table["sigma"], scales.mean(axis=0), rtol=1e-5)
    assert_allclose(table["sd"], scales.std(axis=0, ddof=1), rtol=1e-4)


def test_a_lines_noise_is_the_root_mean_square_of_its_replicates(noisy: tuple[Path, np.ndarray]) -> None:
    path, scales = noisy
    with open_posterior(path) as post:
        table = line_table(post).set_index("depmap_id")
    second = scales[:, [REPLICATES.index(f"{LINES[1]}|{r}") for r in "AB"]]
    assert_allclose(table.loc[LINES[1], "sigma"], np.sqrt((second**2).mean(axis=1)).mean(), rtol=1e-5)
    # The last line has one replicate.
    assert_allclose(table.loc[LINES[-1], "sigma"], scales[:, -1].mean(), rtol=1e-5)


def test_a_noisy_replicate_is_flagged(noisy: tuple[Path, np.ndarray]) -> None:
    with open_posterior(noisy[0]) as post:
        quality = fit_quality(post)
    assert quality.flags["label"].tolist() == [LINES[1], f"{LINES[1]}|B"]
    assert set(quality.tables()) == {"lines", "sgrnas", "replicates", "flags"}


def test_with_one_noise_for_all_there_is_no_table(fit: KnownEffects) -> None:
    assert replicate_table(fit.post) is None
    assert "sigma" not in line_table(fit.post)
