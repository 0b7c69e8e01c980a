"""Residuals of rows that are made as far off as is said."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known_effects import GENES, LINES, KnownEffects, known_draws, write_known
from numpy.testing import assert_allclose

from vihier.answers import line_table, residuals, sgrna_table
from vihier.errors import VihierError
from vihier.posterior.reader import open_posterior
from vihier.screen import read_screen
from vihier.store.pack import pack


@pytest.fixture
def table(fit: KnownEffects) -> pd.DataFrame:
    """Rows of all sgRNAs but two in all lines but the last: what the fit expects, and off by 0.1 for each line."""
    effect = fit.post.moments("effect")["mean"]
    deviation = fit.post.moments("alpha_dev")["mean"].values
    rows = [
        {
            "sgrna": name,
            "hugo_symbol": GENES[s % 12],
            "depmap_id": line,
            "replicate_id": replicate,
            "lfc": float(effect.sel(hugo_symbol=GENES[s % 12], depmap_id=line)) + deviation[s] + sign * 0.1 * (c + 1),
        }
        for s, name in enumerate(fit.post.labels("sgrna")[:-2])
        for c, line in enumerate(LINES[:-1])
        for replicate, sign in (("A", 1), ("B", -1))
    ]
    return pd.DataFrame(rows)


def test_they_are_what_rows_are_off_by(fit: KnownEffects, table: pd.DataFrame) -> None:
    off = residuals(fit.post, read_screen(table))
    # Moments are float32.
    assert_allclose(off.line, [*(0.1 * c for c in range(1, 7)), np.nan], atol=1e-6)
    assert off.sgrna is not None
    each = np.sqrt(np.mean((0.1 * np.arange(1, 7)) ** 2))
    assert_allclose(off.sgrna, [*[each] * 28, np.nan, np.nan], atol=1e-6)
    assert_allclose(line_table(fit.post, residuals=off)["residual"], off.line)
    assert_allclose(sgrna_table(fit.post, residuals=off)["residual"], off.sgrna)


def test_a_store_read_gene_by_gene_gives_the_same(
    fit: KnownEffects, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.to_parquet(tmp_path / "screen.parquet")
    at_once = residuals(fit.post, read_screen(table))
    monkeypatch.setattr(import_module("vihier.answers.residuals"), "_GENES_AT_ONCE", 1)
    with pack(tmp_path / "screen.parquet", tmp_path / "store.h5") as store:
        by_gene = residuals(fit.post, store)
    # The order of additions differs.
    assert_allclose(by_gene.line, at_once.line, rtol=1e-12)


def test_a_model_without_sgrnas_has_those_of_lines(table: pd.DataFrame, tmp_path: Path) -> None:
    with open_posterior(write_known(tmp_path / "fit.h5", {"effect": known_draws()["effect"]})) as post:
        off = residuals(post, read_screen(table))
    assert off.sgrna is None and np.isfinite(off.line[:-1]).all()


def test_a_screen_that_was_not_fitted_is_refused(fit: KnownEffects, table: pd.DataFrame) -> None:
    other = table.assign(depmap_id=table["depmap_id"].replace(LINES[0], "ACH-999999"))
    with pytest.raises(VihierError, match="'ACH-999999' of the screen is not in the fit"):
        residuals(fit.post, read_screen(other))
