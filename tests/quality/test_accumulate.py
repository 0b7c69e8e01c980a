"""Sums over blocks of genes are those of pandas over the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_screen import made_table, screen_of

import vihier.quality.accumulate as accumulate
from vihier.quality.accumulate import Sums, sum_rows
from vihier.quality.correlation import AgreementSums, PairSums
from vihier.quality.replicates import specific_correlation
from vihier.store.pack import pack


def two_libraries() -> pd.DataFrame:
    """The made table and a second library of other sgRNAs, some rows missing."""
    first, second = made_table(0), made_table(1)
    second = second[second["depmap_id"] < "ACH-05"].assign(sgrna=lambda rows: rows["sgrna"] + "K")
    both = pd.concat([first.assign(screen="broad"), second.assign(screen="sanger")], ignore_index=True)
    return both.sample(frac=0.97, random_state=0)


def wide(table: pd.DataFrame, columns: list[str], rows: str = "sgrna") -> pd.DataFrame:
    return table.pivot_table(index=rows, columns=columns, values="lfc", aggfunc="mean")


@pytest.mark.parametrize("elements", [1, 4_000_000])
def test_means_of_genes_and_sgrnas_are_those_of_pandas(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulate, "_ELEMENTS_AT_ONCE", elements)
    table = two_libraries()
    screen = screen_of(table)
    sums = sum_rows(screen)
    cells = wide(table, ["depmap_id", "screen"])
    gene_of = pd.Series(screen.index.genes[screen.index.gene_of_sgrna], index=screen.index.sgrnas)
    expected = cells.groupby(gene_of).mean()
    # Kept as float32.
    np.testing.assert_allclose(sums.gene_group, expected.to_numpy(), rtol=1e-5, atol=1e-6)
    labels = zip(screen.index.lines[sums.line_of_group], sums.screen_of_group, strict=True)
    assert [(line, ["broad", "sanger"][code]) for line, code in labels] == expected.columns.to_list()
    np.testing.assert_allclose(sums.sgrna_mean, cells.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(sums.sgrna_sd, cells.std(axis=1), rtol=1e-9)


def test_correlations_are_those_of_pandas_over_what_two_replicates_have_in_common() -> None:
    table = two_libraries()
    screen = screen_of(table)
    sums = sum_rows(screen)
    by_replicate = wide(table, ["depmap_id", "replicate_id", "screen"])
    by_replicate.columns = ["|".join(column) for column in by_replicate.columns]
    expected = by_replicate[screen.index.replicates].corr(min_periods=50)
    found = sums.pairs.correlation(50)[:-1, :-1]
    # Sums of a block are float32.
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_specific_correlation_is_that_of_residuals_on_the_mean() -> None:
    table = made_table()
    screen = screen_of(table)
    specific = specific_correlation(sum_rows(screen))
    by_replicate = wide(table, ["depmap_id", "replicate_id"]).to_numpy()
    design = np.column_stack([np.ones(len(by_replicate)), by_replicate.mean(axis=1)])
    residuals = by_replicate - design @ np.linalg.lstsq(design, by_replicate, rcond=None)[0]
    np.testing.assert_allclose(specific, np.corrcoef(residuals.T), atol=1e-5)


def test_agreement_is_the_intraclass_correlation_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    groups = [
        rng.normal(centre, 1.0, size) for centre, size in zip(rng.normal(0, 2, 40), rng.integers(1, 7, 40), strict=True)
    ]
    sums = AgreementSums(1)
    for part in (groups[:11], groups[11:]):
        stack = [[len(g), g.sum(), (g**2).sum()] for g in part]
        sums.add(*(np.array(stack).T[:, :, None]))
    # By the book, genes of one sgRNA left out.
    several = [g for g in groups if len(g) > 1]
    n, k = sum(map(len, several)), len(several)
    grand = np.concatenate(several).mean()
    between = sum(len(g) * (g.mean() - grand) ** 2 for g in several) / (k - 1)
    within = sum(((g - g.mean()) ** 2).sum() for g in several) / (n - k)
    size = (n - sum(len(g) ** 2 for g in several) / n) / (k - 1)
    expected = (between - within) / (between + (size - 1) * within)
    assert sums.icc()[0] == pytest.approx(expected, rel=1e-12)
    # The variance between genes is 4 and within 1: 0.8, of 40 genes give or take 0.06.
    assert 0.6 < expected < 0.95


def test_columns_without_a_pair_have_no_correlation() -> None:
    pairs = PairSums(2)
    pairs.add(np.array([[1, np.nan], [2, np.nan], [3, 1], [np.nan, 2]], dtype=np.float32))
    assert np.isnan(pairs.correlation()[0, 1])
    assert np.isnan(AgreementSums(2).icc()).all()


def test_a_store_gives_what_the_table_gives(tmp_path: Path) -> None:
    table = two_libraries()
    table.to_parquet(tmp_path / "screen.parquet")
    with pack(tmp_path / "screen.parquet", tmp_path / "store.h5") as store:
        of_store = sum_rows(store)
    of_table = sum_rows(screen_of(table))
    for name in Sums.__dataclass_fields__:
        if name not in ("pairs", "agreement"):
            np.testing.assert_equal(getattr(of_store, name), getattr(of_table, name), err_msg=name)
    np.testing.assert_array_equal(of_store.pairs.product, of_table.pairs.product)
