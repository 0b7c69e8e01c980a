"""A table read in chunks of two rows into a store: the same screen, the same report and the same refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_faults_tables import COLUMNS, DAMAGE, FRAME_ONLY, parquet
from test_faults_text import FAULTS, MAPPINGS, TABLE
from test_read import SAME

from vihier.errors import VihierError
from vihier.screen import Screen, read_screen
from vihier.store import chunks, rows, sorting, tables
from vihier.store.pack import pack

Save = Callable[[str, str | bytes], Path]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chunks, tables):
        monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    monkeypatch.setattr(sorting, "GROUP_ROWS", 3)
    monkeypatch.setattr(rows, "PIECE_ROWS", 3)


def outcome(read: Callable[[], Screen]) -> Screen | str:
    """The screen that reading ends in, or the refusal; warnings are in the screen's report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except VihierError as error:
            return str(error)


def packed(path: Path, **options: Any) -> Screen:
    out = path.parent / "store.h5"
    with pack(path, out, **options) as store:
        store.verify()
        return store.to_screen()


def check_same(path: Path, **options: Any) -> None:
    expected = outcome(lambda: read_screen(path, **options))
    streamed = outcome(lambda: packed(path, **options))
    if isinstance(expected, str) or isinstance(streamed, str):
        assert streamed == expected
        assert sorted(each.name for each in path.parent.iterdir() if each.suffix in (".h5", ".partial")) == []
        return
    assert streamed.report == expected.report
    assert streamed.hash == expected.hash
    for name in ("sgrna", "line", "replicate", "lfc", "gene", "gene_starts"):
        left, right = getattr(streamed, name), getattr(expected, name)
        assert left.dtype == right.dtype and left.tobytes() == right.tobytes(), name
    assert list(streamed.covariates) == list(expected.covariates)
    for name, values in expected.covariates.items():
        assert streamed.covariates[name].dtype == values.dtype
        assert streamed.covariates[name].tobytes() == values.tobytes(), name
    check_same_fields(vars(streamed.index), vars(expected.index))


def check_same_fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    assert list(left) == list(right)
    for name, values in right.items():
        if isinstance(values, dict):
            check_same_fields(left[name], values)
        elif values is None:
            assert left[name] is None
        else:
            assert left[name].dtype == values.dtype, name
            np.testing.assert_array_equal(left[name], values)


@pytest.mark.parametrize("name", SAME)
def test_dresses_of_a_table(name: str, text: str, save: Save) -> None:
    file, dress = SAME[name]
    check_same(save(file, dress(text)))


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_text(name: str, save: Save) -> None:
    file, content, _ = FAULTS[name]
    check_same(save(file, content))


@pytest.mark.parametrize("name", sorted(COLUMNS.keys() - FRAME_ONLY))
def test_faults_of_columns(name: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    column, values, _ = COLUMNS[name]
    if len({isinstance(value, str) for value in values if value is not None}) > 1:
        values = [None if value is None else str(value) for value in values]
    table = pa.Table.from_pandas(frame.drop(columns=column, errors="ignore")).append_column(column, pa.array(values))
    pq.write_table(table, tmp_path / "a.parquet")
    check_same(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(name: str, frame: pd.DataFrame, tmp_path: Path, save: Save) -> None:
    check_same(save("a.parquet", DAMAGE[name](parquet(frame, tmp_path))))


@pytest.mark.parametrize("name", MAPPINGS)
def test_faulty_mappings(name: str, save: Save) -> None:
    check_same(save("a.csv", TABLE), columns=MAPPINGS[name][0])


def shuffled(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    return frame.sample(frac=1, random_state=seed, ignore_index=True)


def many_rows(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The small table eleven times over, lines and sgRNAs apart, in any order."""
    parts = [
        frame.assign(
            sgrna=frame["sgrna"] + f"{number % 3}",
            hugo_symbol=frame["hugo_symbol"] + f"{number % 3}",
            depmap_id=frame["depmap_id"] + f"-{number}",
            lfc=frame["lfc"] * (number - 5) / 7,
        )
        for number in range(11)
    ]
    return shuffled(pd.concat(parts), seed)


# What is done to the table of 44 rows, and how it is read.
TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, Any]]] = {
    "plain": (lambda t: t, {}),
    "no replicate_id": (lambda t: t.drop(columns="replicate_id"), {}),
    "no replicate_id, copies": (
        lambda t: shuffled(pd.concat([t, t.iloc[:9], t.iloc[:4].assign(lfc=1.0)]).drop(columns="replicate_id")),
        {},
    ),
    "copies that covariates tell apart": (
        lambda t: shuffled(
            pd.concat([t.assign(note=list("abcd") * 11), t.assign(note=list("dcba") * 11)]).drop(columns="replicate_id")
        ),
        {},
    ),
    "no lineage": (lambda t: t.drop(columns="lineage"), {}),
    "empty lineage and replicate": (lambda t: t.assign(lineage=None, replicate_id=None), {}),
    "empty screen": (lambda t: t.assign(screen=None), {}),
    "replicate missing late": (lambda t: t.assign(replicate_id=[*t["replicate_id"][:40], *[None] * 4]), {}),
    "replicate missing early": (lambda t: t.assign(replicate_id=[*[None] * 5, *t["replicate_id"][5:]]), {}),
    "single lineage": (lambda t: t, {"single_lineage": True}),
    "two screens": (lambda t: t.assign(screen=["broad", "sanger"] * 22), {}),
    "two screens, one reagent": (lambda t: t.assign(screen=["broad", "sanger"] * 22), {"sgrna_per_screen": False}),
    "gene of a sequence differs by screen": (
        lambda t: pd.concat([t.assign(screen="broad"), t.assign(screen="sanger", hugo_symbol="X" + t["hugo_symbol"])]),
        {},
    ),
    "the same, as one reagent": (
        lambda t: pd.concat([t.assign(screen="broad"), t.assign(screen="sanger", hugo_symbol="X" + t["hugo_symbol"])]),
        {"sgrna_per_screen": False},
    ),
    "two genes": (lambda t: pd.concat([t, t.iloc[[7]].assign(hugo_symbol="X", replicate_id="C")]), {}),
    "two genes dropped": (
        lambda t: pd.concat([t, t.iloc[[7]].assign(hugo_symbol="X", replicate_id="C")]).assign(
            note=lambda every: every["hugo_symbol"]
        ),
        {"on_conflict": "drop"},
    ),
    "two lineages": (lambda t: pd.concat([t, t.iloc[[3]].assign(lineage="eye", replicate_id="C")]), {}),
    "duplicates far apart": (lambda t: pd.concat([t, t.iloc[[9, 3, 3]]]), {}),
    "missing lfc": (lambda t: t.assign(lfc=t["lfc"].where(t["depmap_id"] != "ACH-1-3")), {}),
    "minus zero": (lambda t: t.assign(lfc=-0.0), {}),
    "float32": (lambda t: t.assign(lfc=t["lfc"].astype("float32")), {}),
    "tiny numbers": (lambda t: t.assign(lfc=t["lfc"] * 1e-310), {}),
    "white space": (lambda t: t.assign(hugo_symbol=t["hugo_symbol"] + " ", lineage=" " + t["lineage"]), {}),
    "integers for labels": (lambda t: t.assign(p_dna_batch=[3, 4, 5, 3] * 11, sgrna=t["sgrna"].map(hash) % 997), {}),
    "numbers for genes": (lambda t: t.assign(hugo_symbol=t["hugo_symbol"].map({"BRAF0": 673.0}).fillna(1.5)), {}),
    "covariates": (
        lambda t: t.assign(
            copy_number=[0.1, np.nan] * 22,
            is_mutated=["TRUE", None, "FALSE", "TRUE;FALSE"] * 11,
            p_dna_batch=["1", "2.0", None, "x"] * 11,
            rna_expr=np.arange(44) / 4,
            empty=None,
        ),
        {},
    ),
    "numbers, then words": (lambda t: t.assign(carried=["1"] * 30 + ["many"] * 14), {}),
    "flags, then numbers": (lambda t: t.assign(carried=["TRUE"] * 30 + ["3"] * 14), {}),
    "numbers, then flags": (lambda t: t.assign(carried=["1", "0"] * 15 + ["FALSE"] * 14), {}),
    "missing, then flags": (lambda t: t.assign(carried=[None] * 30 + ["FALSE", "TRUE"] * 7), {}),
    "infinite and carried": (lambda t: t.assign(carried=[1.0] * 30 + [np.inf, -np.inf] * 7), {}),
    "infinite and refused": (lambda t: t.assign(rna_expr=[1.0] * 30 + [np.inf, -np.inf] * 7), {}),
    "lists": (lambda t: t.assign(hits=[[1]] * 44), {}),
    "index that counts": (lambda t: t.assign(index=np.random.default_rng(0).permutation(44)), {}),
    "index that does not": (lambda t: t.assign(index=[*range(43), 42]), {}),
    "column names of a path": (lambda t: t.assign(**{"a/b": 1.0, ".": "x", "ä %": 2, "lfc/2": t["lfc"] / 2}), {}),
    "covariates with our names": (lambda t: t.assign(replicate=list("xy") * 22, line=3.0, reagent="r", row=7.5), {}),
}


# Text knows no types: what a column holds shows by and by, and rows are called by their lines.
IN_TEXT = (
    "replicate missing late",
    "two screens",
    "two genes",
    "duplicates far apart",
    "covariates",
    "numbers, then words",
    "flags, then numbers",
    "numbers, then flags",
    "index that counts",
)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "parquet") for name in TABLES), *((name, "csv") for name in IN_TEXT)]
)
def test_tables(name: str, kind: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    change, options = TABLES[name]
    table = change(many_rows(frame))
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False, row_group_size=7)
    check_same(path, **options)


def test_a_label_with_a_nul_is_refused_by_the_store_alone(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.assign(note=["a", "b\0c", "d", "e"]).to_parquet(tmp_path / "a.parquet")
    assert isinstance(outcome(lambda: read_screen(tmp_path / "a.parquet")), Screen)
    message = outcome(lambda: packed(tmp_path / "a.parquet"))
    wrong = "column 'note': label 'b\\x00c' holds a NUL, which no file can keep; take it out"
    assert message == f"{tmp_path / 'a.parquet'}: {wrong}"
