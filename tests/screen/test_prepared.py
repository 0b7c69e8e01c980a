"""Covariates prepared by what was learned from one screen, applied to others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vihier.errors import VihierError
from vihier.screen import Screen, read_screen
from vihier.screen.prepared import Preparation, PreparedCovariate, prepared_screen


def frame(seed: int = 0, genes: int = 3) -> pd.DataFrame:
    """Genes of 1 to 3 sgRNAs in 5 lines; expression and copy number of gene and line, one expression missing."""
    random = np.random.default_rng(seed)
    rna, copies = random.normal(2, 1, (genes, 5)), random.uniform(0, 4, (genes, 5))
    rna[1] = 3.0  # the same in all lines
    rows = [
        (f"S{g}{k}", f"G{g}", f"ACH-{c}", "skin", 0.1 * k, rna[g, c], copies[g, c])
        for g in range(genes)
        for k in range(1 + g)
        for c in range(5)
    ]
    columns = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "lfc", "rna_expr", "copy_number"]
    return pd.DataFrame(rows, columns=columns)


def fitted(text: str, screen: Screen, column: str = "rna_expr") -> PreparedCovariate:
    return PreparedCovariate.fit(column, Preparation.parse(column, text), screen)


def of_pairs(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.pivot_table(index="hugo_symbol", columns="depmap_id", values=column)


def test_scores_within_genes_have_a_floor_and_bounds() -> None:
    screen = read_screen(frame())
    prepared = fitted("zscore(0.5) | clip(-1, 1)", screen)
    mine = of_pairs(prepared_screen(screen, {"rna_expr": prepared}).to_frame(), "rna_expr")
    raw = of_pairs(frame(), "rna_expr")
    sd = np.maximum(raw.std(axis=1, ddof=0), 0.5)
    expected = raw.sub(raw.mean(axis=1), axis=0).div(sd, axis=0).clip(-1, 1)
    np.testing.assert_allclose(mine, expected, atol=1e-12)
    assert (mine.loc["G1"] == 0).all()  # not 0 / 0


def test_the_median_is_over_pairs_and_not_over_sgrnas() -> None:
    screen = read_screen(frame())
    prepared = fitted("log2p1 | centre", screen, "copy_number")
    raw = np.log2(of_pairs(frame(), "copy_number").to_numpy() + 1)
    assert float(prepared.learned[1]) == pytest.approx(np.median(raw), abs=1e-12)
    mine = of_pairs(prepared_screen(screen, {"copy_number": prepared}).to_frame(), "copy_number")
    np.testing.assert_allclose(mine, raw - np.median(raw), atol=1e-12)


def test_other_screens_are_prepared_by_what_the_first_one_taught() -> None:
    """A part of the genes, in another order of rows, other values: the same line on the same scale."""
    prepared = fitted("zscore(0.1)", read_screen(frame()))
    other = frame(seed=1).query("hugo_symbol == 'G2'").sample(frac=1, random_state=0)
    mine = of_pairs(prepared_screen(read_screen(other), {"rna_expr": prepared}).to_frame(), "rna_expr")
    raw = of_pairs(frame(), "rna_expr").loc["G2"]
    expected = (of_pairs(other, "rna_expr").loc["G2"] - raw.mean()) / raw.std(ddof=0)
    np.testing.assert_allclose(mine.loc["G2"], expected, atol=1e-12)
    new = other.replace("G2", "NEW").assign(sgrna=lambda x: "N" + x["sgrna"])
    with pytest.raises(VihierError, match=r"^column 'rna_expr': gene 'NEW' was not in the fit"):
        prepared.of(read_screen(new))


def test_missing_values_are_marked_or_dropped_or_refused_and_never_zero_by_accident() -> None:
    table = frame()
    hole = (table["hugo_symbol"] == "G2") & (table["depmap_id"] == "ACH-1")
    table.loc[hole, "rna_expr"] = np.nan
    screen = read_screen(table)
    marked = prepared_screen(screen, {"rna_expr": fitted("zscore(0.1)", screen)}).to_frame()
    of_hole = (marked["hugo_symbol"] == "G2") & (marked["depmap_id"] == "ACH-1")
    np.testing.assert_array_equal(marked["rna_expr_missing"], of_hole.astype(float))
    assert (marked.loc[of_hole, "rna_expr"] == 0).all()
    dropped = prepared_screen(screen, {"rna_expr": fitted("zscore(0.1) | missing(drop)", screen)})
    assert dropped.n_rows == screen.n_rows - hole.sum() and "rna_expr_missing" not in dropped.covariates
    # A fit without missing values has no place for one.
    whole = fitted("zscore(0.1)", read_screen(frame()))
    assert whole.preparation.missing == "refuse"
    with pytest.raises(
        VihierError, match=r"^column 'rna_expr': missing in gene 'G2', line 'ACH-1', and the fit saw no"
    ):
        prepared_screen(screen, {"rna_expr": whole})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zscore", "zscore() is not understood"),
        ("zscore(0)", "zscore(0) is not understood"),
        ("zscore(nan)", "zscore(nan) is not understood"),
        ("clip(3, -3)", "clip(3, -3) is not understood"),
        ("centre(1)", "centre(1) is not understood"),
        ("sqrt", "sqrt() is not understood"),
        ("centre || clip(0,1)", "'' is not understood"),
        ("missing(zero)", "missing(zero): give one of indicator, drop, refuse"),
        ("__import__('os')", "is not understood"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(VihierError) as caught:
        Preparation.parse("rna_expr", text)
    assert str(caught.value).startswith("covariate 'rna_expr': ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_hold_no_numbers_are_refused() -> None:
    screen = read_screen(frame().assign(p_dna_batch="a", empty=np.nan, low=-2.0))
    for column, text, said in (
        ("p_dna_batch", "centre", "holds labels"),
        ("purity", "centre", "no such column"),
        ("low", "log2p1", "log2p1 of -2"),
    ):
        with pytest.raises(VihierError, match=f"^covariate {column!r}: .*{said}"):
            fitted(text, screen, column)
