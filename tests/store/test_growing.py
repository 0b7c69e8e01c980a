"""Codes that grow, rows that are numbered, and keys that are put in order, against plain Python."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vihier.errors import VihierError
from vihier.screen.values import Column
from vihier.store import growing, sorting
from vihier.store.covariates import RowNumbers, is_exact_in_float32
from vihier.store.growing import GrowingLabels, GrowingPairs
from vihier.store.spill import Spill


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_numbered_as_they_are_met(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = GrowingPairs()
    known: dict[tuple[int, int], int] = {}
    first_rows = []
    row = 0
    for length in (0, 1, 50, 300, 7, 1000):
        first = random.integers(0, 5 + row // 40, length).astype(np.int32)
        second = np.where(random.random(length) < 0.2, random.integers(-1, 9, length), first % 4).astype(np.int32)
        rows = row + np.cumsum(random.integers(1, 3, length))
        for pair, place in zip(zip(first.tolist(), second.tolist(), strict=True), rows.tolist(), strict=True):
            if pair not in known:
                known[pair] = len(known)
                first_rows.append(place)
        expected = [known[pair] for pair in zip(first.tolist(), second.tolist(), strict=True)]
        assert pairs.encode(first, second, rows).tolist() == expected
        row = int(rows[-1]) + 1 if length else row
    assert list(zip(*(part.tolist() for part in pairs.table()), strict=True)) == list(known)
    assert pairs.first_rows.tolist() == first_rows


def column(values: list[object], type_: pa.DataType | None = None) -> Column:
    return Column("a.csv", "note", "note", pa.chunked_array([pa.array(values, type_)]), lambda row: f"row {row}")


def test_a_label_has_one_code_in_all_chunks_and_types() -> None:
    book = GrowingLabels(key=False)
    assert book.encode(column(["b", " a", None, "NA"])).tolist() == [0, 1, -1, -1]
    assert book.encode(column([2.0, float("nan"), 2.5])).tolist() == [2, -1, 3]
    assert book.encode(column([2.5, float("nan"), 7.0])).tolist() == [3, -1, 4]
    assert book.encode(column(["2", "a", "7.0"], pa.large_string())).tolist() == [2, 1, 4]
    assert book.encode(column([None, None])).tolist() == [-1, -1]
    assert book.encode(column([], pa.string())).tolist() == []
    assert (book.names, book.n_trimmed) == (["b", "a", "2", "2.5", "7"], 1)
    labels, place = book.ranks()
    assert labels.tolist() == ["2", "2.5", "7", "a", "b"] and place.tolist() == [4, 3, 0, 1, 2]


def test_a_category_cannot_have_more_labels_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "MOST_CATEGORIES", 3)
    book = GrowingLabels(key=False)
    book.encode(column(["a", "b", "c"]))
    with pytest.raises(VihierError, match="more than 3 different labels, such as 'd'; leave the column out"):
        book.encode(column(["d"]))
    GrowingLabels(key=True).encode(column(["a", "b", "c", "d"]))  # keys are needed, however many


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([[0, 1, 2, 3]], True),
        ([[3, 1, 4, 2]], True),
        ([[0, 1, 2], [2, 1, 3]], True),
        ([[0], [1]], True),
        ([[2, 3, 4]], False),
        ([[0, 1, 1, 3]], False),
        ([[0, 0, 3, 3]], False),
        ([[0, 1, 2], [0, 2]], False),
        ([[0.5, 1.5]], False),
        ([[0, np.nan]], False),
        ([[0, np.inf]], False),
        ([[-1, 0, 1]], False),
    ],
)
def test_row_numbers_are_told_from_data(tables: list[list[float]], expected: bool) -> None:
    numbers = RowNumbers()
    for number, values in enumerate(tables):
        for start in range(0, len(values), 2):  # in chunks of two
            numbers.add(np.array(values[start : start + 2], dtype=float), number)
    assert numbers.do_count() is expected


def test_float32_is_exact_where_nothing_is_lost() -> None:
    assert is_exact_in_float32(np.array([0.5, np.nan, -3.25, 1e10, np.inf]))
    for value in (0.1, 1e-310, 1e300, 2.0**24 + 1):
        assert not is_exact_in_float32(np.array([value, 1.0]))


@pytest.mark.parametrize("spare", [0, 1 << 20])  # by sorting, and by place
def test_different_keys_are_put_in_order_and_equal_ones_noticed(spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "SPARE", spare)
    random = np.random.default_rng(0)
    for span in (100, 100_000):
        key = random.permutation(span)[:100]
        order = sorting._order_of_different(key)
        assert order is not None and (key[order] == np.sort(key)).all()
        assert sorting._order_of_different(np.append(key, key[17])) is None


def test_a_spill_gives_back_every_row_once_with_its_place(tmp_path) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(1)
    whole: list[tuple[int, float, int]] = []
    with Spill(tmp_path, {"x": np.dtype(np.float64)}) as spill:
        assert list(tmp_path.iterdir()) == []  # it has no name
        first = 0
        for length in (5, 0, 700, 40):
            group, x = random.integers(0, 999, length), random.normal(size=length)
            rows = np.sort(random.choice(length + 3, length, replace=False))
            spill.append(group, {"x": x}, rows, first)
            whole += zip((group % 256).tolist(), x.tolist(), (first + rows).tolist(), strict=True)
            first += length + 3
        for buckets in ([0, 1, 2], [255], list(range(256))):
            expected = [row[1:] for bucket in buckets for row in whole if row[0] == bucket]
            found = zip(spill.read("x", buckets).tolist(), spill.rows(buckets).tolist(), strict=True)
            assert list(found) == expected
        assert spill.bucket_rows.sum() == len(whole)
