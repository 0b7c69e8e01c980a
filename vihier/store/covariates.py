"""Covariates of rows that arrive in chunks: numbers, true/false or labels, whichever all values of a column are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.types as pt

from vihier.screen.columns import KINDS, MAYBE_STRAY, Kind
from vihier.screen.validate import Findings, infinite_value, warn_of_infinity
from vihier.screen.values import Column, flags, is_text, kind_name, numbers, what_text_holds
from vihier.store.growing import GrowingLabels
from vihier.store.tables import Chunk, Tables


class ReadAgain(Exception):
    """A column that was read as numbers or true/false is none; the tables are to be read from their beginning.

    Attributes
    ----------
    name
        The column.
    nothing
        Why it is not carried at all; None where it is to be read as labels.
    """

    def __init__(self, name: str, nothing: str | None = None) -> None:
        super().__init__(name)
        self.name = name
        self.nothing = nothing


@dataclass(frozen=True, eq=False)
class Covariate:
    """One covariate as all chunks left it.

    Attributes
    ----------
    labels
        Sorted labels, object [n], or None for values.
    rank
        int32 code into the labels of each provisional code.
    used
        Whether a row that is kept has the label, bool by provisional code.
    exact_in_float32
        Whether all values are float32 numbers.
    """

    name: str
    labels: np.ndarray | None
    rank: np.ndarray
    used: np.ndarray
    exact_in_float32: bool


class CovariateStream:
    """Reads one covariate chunk by chunk.

    Parameters
    ----------
    name
        What the screen calls it.
    tables
        Where the chunks are from.
    as_labels
        Whether an earlier attempt has shown that it holds labels.
    """

    def __init__(self, name: str, tables: Tables, as_labels: bool) -> None:
        self.name = name
        self.tables = tables
        self.kind = KINDS.get(name, Kind.CARRIED)
        self.exact_in_float32 = True
        self._book = GrowingLabels(key=False) if as_labels or self.kind is Kind.CATEGORY else None
        self._used = np.zeros(0, dtype=bool)
        self._all_numbers = self._all_flags = True
        self._row_numbers = RowNumbers() if name in MAYBE_STRAY and self._book is None else None
        self._n_infinite = 0
        self._first_infinite = -1

    @property
    def dtype(self) -> np.dtype:
        """Of what `read` returns."""
        return np.dtype(np.float64 if self._book is None else np.int32)

    def read(self, chunk: Chunk, rows: np.ndarray) -> np.ndarray:
        """Return values, float64 [n], or provisional codes of labels, int32 [n], of the rows of a chunk.

        Raises
        ------
        VihierError
            A value that cannot be what the column holds.
        ReadAgain
            The column is to be read in another way, from the beginning.
        """
        column = chunk.columns[self.name]
        if self._book is not None:
            codes = self._book.encode(column)[rows]
            self._used = _grown(self._used, len(self._book.names))
            self._used[codes[codes >= 0]] = True
            return codes
        every = self._values(column)
        if self._row_numbers is not None:
            self._row_numbers.add(every, chunk.table)
        values = every if len(rows) == len(every) else every[rows]
        self._look_at(values, column, rows, chunk.first_row)
        return values

    def finish(self, findings: Findings) -> Covariate | None:
        """Return what was read; None, and a note, where it only counts the rows."""
        if self._row_numbers is not None and self._row_numbers.do_count():
            findings.ignored[self.tables.plan.header[self.name]] = "row numbers, not data"
            return None
        if self._n_infinite:
            warn_of_infinity(self.tables.column(self.name), self._n_infinite, self._first_infinite, findings)
        labels, rank = (None, np.zeros(0, dtype=np.int32)) if self._book is None else self._book.ranks()
        return Covariate(self.name, labels, rank, self._used, self.exact_in_float32)

    def _values(self, column: Column) -> np.ndarray:
        if self.kind is Kind.NUMBER:
            return numbers(column)
        if self.kind is Kind.FLAG:
            return flags(column)
        all_numbers, all_flags = self._what_holds(column)
        self._all_numbers &= all_numbers
        self._all_flags &= all_flags
        # What is both a number and a word for true or false is the same value either way.
        if not (self._all_numbers or self._all_flags):
            raise ReadAgain(self.name)
        return numbers(column) if all_numbers else flags(column)

    def _what_holds(self, column: Column) -> tuple[bool, bool]:
        kind = column.data.type
        if is_text(column.data):
            return what_text_holds(column)
        if pt.is_null(kind):
            return True, True
        if pt.is_temporal(kind) or pt.is_dictionary(kind):
            return False, False
        if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind):
            return not pt.is_boolean(kind), pt.is_boolean(kind)
        raise ReadAgain(self.name, f"it holds {kind_name(kind)}")

    def _look_at(self, values: np.ndarray, column: Column, rows: np.ndarray, first_row: int) -> None:
        """Look for infinite values, and whether float32 would do."""
        infinite = np.isinf(values)
        if infinite.any():
            first = int(np.argmax(infinite))
            if self.kind is Kind.NUMBER:
                raise infinite_value(column, values[first], int(rows[first]))
            if not self._n_infinite:
                self._first_infinite = first_row + int(rows[first])
            self._n_infinite += int(infinite.sum())
        self.exact_in_float32 = self.exact_in_float32 and is_exact_in_float32(values)


def is_exact_in_float32(values: np.ndarray) -> bool:
    """Whether float64 values [n], NaN among them, are the same numbers in float32."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float32), values, equal_nan=True))


class RowNumbers:
    """Whether a column counts the rows of every table, 0 to n - 1 or 1 to n, in any order.

    That the numbers are those is told by the sum of a hash of each, so that memory does not grow with the rows.
    """

    def __init__(self) -> None:
        self._possible = True
        self._table = -1
        self._n, self._least, self._sum = 0, np.inf, 0

    def add(self, values: np.ndarray, table: int) -> None:
        """Take note of the values, float64 [n], of rows of a table."""
        if table != self._table:
            self._end_table()
            self._table, self._n, self._least, self._sum = table, 0, np.inf, 0
        if not self._possible or not len(values):
            return
        if np.isnan(values).any() or values.min() < 0 or values.max() >= 2.0**53 or (values % 1).any():
            self._possible = False
            return
        self._n += len(values)
        self._least = min(self._least, values.min())
        self._sum = (self._sum + _hash_sum(values.astype(np.uint64))) % 2**64

    def do_count(self) -> bool:
        """Whether they do, all tables having been read."""
        self._end_table()
        return self._possible

    def _end_table(self) -> None:
        if not self._possible or not self._n:
            return
        expected = 0
        first = int(self._least)
        for start in range(first, first + self._n, 1 << 20):
            expected += _hash_sum(np.arange(start, min(start + (1 << 20), first + self._n), dtype=np.uint64))
        self._possible = first in (0, 1) and expected % 2**64 == self._sum


def _hash_sum(numbers: np.ndarray) -> int:
    # The mixing steps of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA); sums wrap around.
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(np.sum(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64))


def _grown(used: np.ndarray, length: int) -> np.ndarray:
    return used if len(used) == length else np.append(used, np.zeros(length - len(used), dtype=bool))
