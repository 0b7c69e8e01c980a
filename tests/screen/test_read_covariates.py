"""Covariates: known ones by their kind, others by their values."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.errors import ScreenWarning
from vihier.screen import Screen, read_screen

Save = Callable[[str, str | bytes], Path]


def by_sgrna_and_replicate(screen: Screen, name: str) -> list[object]:
    """The covariate's values or labels, rows in the order of the small table (which is not the canonical one)."""
    values = screen.to_frame().set_index(["sgrna", "replicate_id"])[name]
    return [values[key] for key in [("AAA", "A"), ("AAA", "B"), ("CCC", "A"), ("GGG", "A")]]


@pytest.mark.parametrize(
    "values",
    [
        ["TRUE", "FALSE", "NA", "TRUE"],
        ["True", "false", "", "true"],
        ["T", "F", "NaN", "t"],
        ["1", "0", "NA", "1"],
        ["1.0", "0.0", "", "1.0"],
        ["yes", "no", "NULL", "Yes"],
        ["TRUE;FALSE", "FALSE;FALSE", "NA", "TRUE"],
    ],
)
def test_truth_values_in_text(values: list[str], text: str, save: Save) -> None:
    lines = [f"{line},{value}" for line, value in zip(text.splitlines(), ["is_mutated", *values], strict=True)]
    screen = read_screen(save("a.csv", "\n".join(lines)))
    np.testing.assert_array_equal(by_sgrna_and_replicate(screen, "is_mutated"), [1.0, 0.0, np.nan, 1.0])


@pytest.mark.parametrize("values", [[True, False, None, True], [1, 0, None, 1], [1.0, 0.0, np.nan, 1.0]])
def test_truth_values_in_frames(values: list[object], frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(is_mutated=pd.Series(values, dtype=object)))
    np.testing.assert_array_equal(by_sgrna_and_replicate(screen, "is_mutated"), [1.0, 0.0, np.nan, 1.0])


@pytest.mark.parametrize("name", ["copy_number", "rna_expr", "counts_final", "counts_initial"])
def test_known_numbers_are_float64_with_nan_for_missing(name: str, frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(**{name: [1, 2, None, 4]}))
    assert screen.covariates[name].dtype == np.float64
    np.testing.assert_array_equal(by_sgrna_and_replicate(screen, name), [1.0, 2.0, np.nan, 4.0])


def test_missing_is_never_zero(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(rna_expr=[np.nan, np.nan, 0.0, 0.0]))
    np.testing.assert_array_equal(by_sgrna_and_replicate(screen, "rna_expr"), [np.nan, np.nan, 0.0, 0.0])


def test_other_columns_are_carried_by_what_they_hold(frame: pd.DataFrame) -> None:
    screen = read_screen(
        frame.assign(
            days=[14, 14, 21, 21],
            purity=["0.5", "NA", "1", "2e-1"],
            passed=["TRUE", "FALSE", "NA", "TRUE"],
            note=["b", None, "a", "b"],
            plate=["1", "x", "1", "2"],
            empty=[None] * 4,
            when=[datetime.date(2020, 1, day) for day in (1, 2, 1, 2)],
        )
    )
    assert by_sgrna_and_replicate(screen, "days") == [14.0, 14.0, 21.0, 21.0]
    np.testing.assert_array_equal(by_sgrna_and_replicate(screen, "purity"), [0.5, np.nan, 1.0, 0.2])
    np.testing.assert_array_equal(by_sgrna_and_replicate(screen, "passed"), [1.0, 0.0, np.nan, 1.0])
    assert by_sgrna_and_replicate(screen, "note")[0] == "b"
    assert list(screen.index.categories["note"]) == ["a", "b"]
    assert sorted(screen.covariates["note"].tolist()) == [-1, 0, 1, 1]
    assert screen.covariates["note"].dtype == np.int32
    assert list(screen.index.categories["plate"]) == ["1", "2", "x"]
    assert np.isnan(screen.covariates["empty"]).all()
    assert list(screen.index.categories["when"]) == ["2020-01-01", "2020-01-02"]


def test_values_joined_by_semicolons_are_labels(frame: pd.DataFrame) -> None:
    joined = ["missense_mutation;silent", "TRUE;FALSE", "silent", None]
    screen = read_screen(frame.assign(variant_classification=joined, positions=["10;20", "30", "40", "50"]))
    assert list(screen.index.categories["variant_classification"]) == ["TRUE;FALSE", joined[0], "silent"]
    assert list(screen.index.categories["positions"]) == ["10;20", "30", "40", "50"]


def test_chromosomes_are_labels_even_where_all_are_numbers(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(chromosome=[3, 3, 10, 7], sgrna_target_chr=["1", "1", "2", "2"]))
    assert list(screen.index.categories["chromosome"]) == ["10", "3", "7"]
    assert list(screen.index.categories["sgrna_target_chr"]) == ["1", "2"]


def test_nested_columns_are_left_out_and_reported(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(hits=[[1], [2], [3], [4]], extra=[{"a": 1}, {}, {}, {}]))
    assert screen.covariates == {}
    assert screen.report.ignored == {"hits": "it holds lists or records", "extra": "it holds lists or records"}
    assert "hits" not in screen.report.columns


def test_infinite_value_of_an_unknown_column_is_carried_with_a_warning(frame: pd.DataFrame) -> None:
    with pytest.warns(ScreenWarning, match="'score' has 1 infinite value, the first at row 2"):
        screen = read_screen(frame.assign(score=[1.0, 2.0, np.inf, 3.0]))
    assert np.isinf(screen.covariates["score"]).sum() == 1


def test_a_column_called_index_that_is_data_is_carried(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(index=[5, 5, 7, 7]))
    assert by_sgrna_and_replicate(screen, "index") == [5.0, 5.0, 7.0, 7.0]
