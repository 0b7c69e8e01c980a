"""Faults of Parquet files and pandas frames: refused in one line; rows are positions, counted from 0."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vihier.errors import VihierError
from vihier.screen import read_screen

Save = Callable[[str, str | bytes], Path]
WHEN = datetime.date(2023, 3, 1)


def refusal(source: object, **options: object) -> str:
    """The message of the one-line refusal that reading ends in."""
    with pytest.raises(VihierError) as caught:
        read_screen(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable(), message
    assert "; " in message, message
    return message


# id: column, its four values, what the message says
COLUMNS: dict[str, tuple[str, list[object], list[str]]] = {
    "text in lfc": ("lfc", [0.5, "high", 1.0, 2.0], ["'lfc', row 1 (counted from 0)", "'high'", "not a number"]),
    "decimal comma": ("lfc", ["0,5", "1", "1", "1"], ["'lfc', row 0", "with a point"]),
    "infinite lfc": ("lfc", [0.5, 1.0, 1.0, -np.inf], ["'lfc', row 3", "-inf"]),
    "absurd lfc": ("lfc", [0.5, 1.0, 25.0, 0.0], ["'lfc', row 2", "25", "[-20, 20]"]),
    "truth values in lfc": ("lfc", [True, False, True, True], ["'lfc'", "truth values"]),
    "dates in lfc": ("lfc", [WHEN] * 4, ["'lfc'", "dates", "numbers"]),
    "lists in lfc": ("lfc", [[0.5], [1.0], [2.0], [3.0]], ["'lfc'", "lists or records"]),
    "complex lfc": ("lfc", [1j, 2j, 3j, 4j], ["'lfc'", "'1j'", "not a number"]),
    "no lfc at all": ("lfc", [None] * 4, ["'lfc'", "every value is missing"]),
    "missing gene": ("hugo_symbol", ["KRAS", None, "KRAS", "BRAF"], ["'hugo_symbol', row 1", "name the gene"]),
    "NaN for an sgRNA": ("sgrna", ["AAA", "AAA", np.nan, "GGG"], ["'sgrna', row 2", "missing"]),
    "genes that are dates": ("hugo_symbol", [WHEN] * 4, ["'hugo_symbol'", "dates", "column of text"]),
    "genes that are truth values": ("hugo_symbol", [True] * 4, ["'hugo_symbol'", "truth values"]),
    "genes that are lists": ("hugo_symbol", [["KRAS"], ["KRAS"], ["KRAS"], ["BRAF"]], ["'hugo_symbol'", "lists"]),
    "genes that are records": ("hugo_symbol", [{"a": 1}] * 4, ["'hugo_symbol'", "lists or records"]),
    "line break in a label": ("depmap_id", ["A\nB", "A\nB", "A\nB", "C"], ["'depmap_id', row 0", r"'A\nB'"]),
    "negative flag": ("is_mutated", [0, 1, -1, None], ["'is_mutated', row 2", "-1"]),
    "number that is text": ("rna_expr", ["1", "2", "3", "many"], ["'rna_expr', row 3", "'many'"]),
}
# Arrow has no complex numbers, so no Parquet file does.
FRAME_ONLY = {"complex lfc"}


def with_column(frame: pd.DataFrame, name: str, values: list[object]) -> pd.DataFrame:
    return frame.assign(**{name: pd.Series(values, dtype=None if name != "hugo_symbol" else object)})


@pytest.mark.parametrize("name", COLUMNS)
def test_faulty_column_of_a_frame_is_named_in_one_line(name: str, frame: pd.DataFrame) -> None:
    column, values, words = COLUMNS[name]
    message = refusal(with_column(frame, column, values))
    assert message.startswith("DataFrame: ")
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize("name", sorted(COLUMNS.keys() - FRAME_ONLY))
def test_faulty_column_of_a_parquet_file_is_named_in_one_line(name: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    column, values, words = COLUMNS[name]
    if len({isinstance(value, str) for value in values if value is not None}) > 1:
        values = [None if value is None else str(value) for value in values]  # one type a column in Parquet
    table = pa.Table.from_pandas(frame.drop(columns=column, errors="ignore")).append_column(column, pa.array(values))
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert [word for word in words if word not in message] == [], message


def parquet(frame: pd.DataFrame, tmp_path: Path) -> bytes:
    frame.to_parquet(tmp_path / "whole.parquet")
    return (tmp_path / "whole.parquet").read_bytes()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-100],
    "cut after the head": lambda content: content[:40],
    "damaged data": lambda content: content[:4] + b"\x55" * 200 + content[204:],
    "damaged footer": lambda content: content[:-400] + b"\x55" * 300 + content[-100:],
    "empty": lambda content: b"",
    "text": lambda content: b"sgrna,hugo_symbol,depmap_id,lfc\nAAA,KRAS,ACH-1,0.5\n",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_parquet_file_is_refused(name: str, frame: pd.DataFrame, tmp_path: Path, save: Save) -> None:
    path = save("a.parquet", DAMAGE[name](parquet(frame, tmp_path)))
    message = refusal(path)
    assert message.startswith(f"{path}: not a readable Parquet file")
    assert "write or download it again" in message


def test_parquet_file_without_rows_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.iloc[:0].to_parquet(tmp_path / "a.parquet")
    assert "header and no rows" in refusal(tmp_path / "a.parquet")


def test_parquet_file_with_two_columns_of_one_name_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(frame)
    pq.write_table(table.append_column("lfc", table.column("lfc")), tmp_path / "a.parquet")
    assert "'lfc' is there twice" in refusal(tmp_path / "a.parquet")


def test_frame_without_rows_is_refused(frame: pd.DataFrame) -> None:
    assert "header and no rows" in refusal(frame.iloc[:0])


def test_frame_without_columns_is_refused() -> None:
    assert "'sgrna' and 'hugo_symbol' and 'depmap_id' and 'lfc' are missing" in refusal(pd.DataFrame())


def test_frame_with_two_columns_of_one_name_is_refused(frame: pd.DataFrame) -> None:
    twice = pd.concat([frame, frame[["lfc"]]], axis=1)
    assert "'lfc' is there twice, as columns 6 and 7" in refusal(twice)


def test_frame_with_several_levels_of_columns_is_refused(frame: pd.DataFrame) -> None:
    frame.columns = pd.MultiIndex.from_product([["screen"], frame.columns])
    assert "several levels; flatten" in refusal(frame)


def test_frame_in_wide_layout_is_refused() -> None:
    wide = pd.DataFrame(np.zeros((2, 3)), index=["ACH-1", "ACH-2"], columns=["KRAS (1)", "BRAF (2)", "TP53 (3)"])
    assert "missing; the table has 'KRAS (1)', 'BRAF (2)', 'TP53 (3)'" in refusal(wide)


def test_row_of_a_frame_with_an_index_of_its_own_is_named_both_ways(frame: pd.DataFrame) -> None:
    frame.index = pd.Index(["w", "x", "y", "z"])
    frame.loc["y", "lfc"] = np.inf
    assert "row 2 (counted from 0, index 'y')" in refusal(frame)


def test_duplicate_named_is_the_first_in_the_tables_own_order(frame: pd.DataFrame) -> None:
    # Sorted by label the duplicate of AAA comes first, in the table that of GGG does.
    table = pd.concat([frame.iloc[[3, 3]], frame.iloc[[0, 0, 1, 2]]], ignore_index=True)
    message = refusal(table)
    assert "row 1 (counted from 0): a duplicate of row 0 (counted from 0) (sgRNA 'GGG'" in message
    assert "2 duplicates in all" in message


def test_rows_are_counted_before_rows_without_lfc_are_dropped(frame: pd.DataFrame) -> None:
    table = pd.concat([frame.assign(lfc=np.nan), frame, frame.iloc[[3]]], ignore_index=True)
    assert "row 8 (counted from 0): a duplicate of row 7" in refusal(table)
