"""Codes that grow with the chunks of a table: labels, and pairs of codes, numbered as they appear."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vihier.screen.faults import shown
from vihier.screen.report import counted
from vihier.screen.values import Column, cleaned, encode

# Labels are kept in memory. Keys need theirs; a covariate with so many is no category but a mistake.
MOST_CATEGORIES = 1_000_000
UNMET = -2


@dataclass
class _Known:
    """Raw values of one Arrow type met so far, the code of each (-1 is missing), and which had white space."""

    values: pa.Array
    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    trimmed: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))


class GrowingLabels:
    """The labels of one column, chunk by chunk, cleaned as `vihier.screen.values.labels` cleans a whole column.

    Only values that were not met before are cleaned, so that a chunk costs one look-up a distinct value.

    Parameters
    ----------
    key
        Whether the column is a key; see there.

    Attributes
    ----------
    names
        The labels; a label's code is its position.
    n_trimmed
        Rows whose label had white space around it.
    """

    def __init__(self, key: bool) -> None:
        self.key = key
        self.names: list[str] = []
        self.n_trimmed = 0
        self._code_of: dict[str, int] = {}
        self._known: dict[str, _Known] = {}

    def encode(self, column: Column) -> np.ndarray:
        """Return int32 codes [rows], -1 where the label is missing.

        Raises
        ------
        VihierError
            As `vihier.screen.values.labels`; or more labels than a category can have.
        """
        codes, values = encode(column)
        if pt.is_null(values.type) or not len(values):
            return np.full(len(codes), -1, dtype=np.int32)
        known = self._known.setdefault(str(values.type), _Known(values[:0]))
        place = pc.index_in(values, value_set=known.values)
        if place.null_count:
            self._learn(known, column, codes, values, place)
            place = pc.index_in(values, value_set=known.values)
        places = place.to_numpy(zero_copy_only=False)
        if known.trimmed.any():
            self.n_trimmed += int(np.append(known.trimmed[places], False)[codes].sum())
        return np.append(known.codes[places], np.int32(-1))[codes]

    def ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels sorted by code point, object [n], and the place of each code among them, int32 [n]."""
        names = np.array(self.names, dtype=object)
        order = np.argsort(names, kind="stable")
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        return names[order], place

    def _learn(self, known: _Known, column: Column, codes: np.ndarray, values: pa.Array, place: pa.Array) -> None:
        # All values of the chunk are cleaned, not only the new ones, so that a fault is found at its first row.
        text, trimmed = cleaned(column, codes, values, self.key)
        new = pc.is_null(place)
        fresh = [-1 if label is None else self._code(label) for label in text.filter(new).to_pylist()]
        known.values = pa.concat_arrays([known.values, values.filter(new)])
        known.codes = np.concatenate([known.codes, np.array(fresh, dtype=np.int32)])
        known.trimmed = np.concatenate([known.trimmed, trimmed[new.to_numpy(zero_copy_only=False)]])
        if not self.key and len(self.names) > MOST_CATEGORIES:
            problem = f"more than {counted(MOST_CATEGORIES, 'different label')}, such as {shown(self.names[-1])}"
            raise column.fault(problem, cure="leave the column out: name the covariates to keep (--covariates A,B)")

    def _code(self, label: str) -> int:
        code = self._code_of.setdefault(label, len(self.names))
        if code == len(self.names):
            self.names.append(label)
        return code


class GrowingPairs:
    """Pairs of codes, chunk by chunk; the second of a pair may be -1.

    Most often a first code is met with one second code only (an sgRNA with its gene), or with few (a line with its
    replicates). The second that each first was met with at the start is therefore looked up, and only other rows are
    searched for.

    Attributes
    ----------
    first_rows
        int64 [pairs], the row in which each pair was met first.
    """

    def __init__(self) -> None:
        self.first_rows = np.zeros(0, dtype=np.int64)
        self._keys = np.zeros(0, dtype=np.int64)  # of each pair
        self._order = np.zeros(0, dtype=np.int64)  # of pairs by key
        self._second = np.zeros(0, dtype=np.int32)  # of each first, the second it was met with at the start
        self._code = np.zeros(0, dtype=np.int32)  # and their code

    def encode(self, first: np.ndarray, second: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return int32 codes [n] of pairs, ascending as they are met; `rows` [n], ascending, is where they are."""
        missing = int(first.max(initial=-1)) + 1 - len(self._second)
        if missing > 0:
            self._second = np.append(self._second, np.full(missing, UNMET, dtype=np.int32))
            self._code = np.append(self._code, np.full(missing, -1, dtype=np.int32))
        codes = self._code[first]
        others = np.flatnonzero(self._second[first] != second)
        if len(others):
            codes[others] = self._search(first[others], second[others], rows[others])
        return codes

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and the second code of every pair, int32 [pairs] each."""
        return _parts(self._keys)

    def _search(self, first: np.ndarray, second: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = pa.array((first.astype(np.int64) << 32) + (second.astype(np.int64) + 1)).dictionary_encode()
        keys, places = found.dictionary.to_numpy(), found.indices.to_numpy()
        at = np.searchsorted(self._keys, keys, sorter=self._order)
        known = np.append(self._order, -1)[at]
        codes = np.where(np.append(self._keys, -1)[known] == keys, known, -1)
        new = np.flatnonzero(codes < 0)
        if len(new):
            where = np.empty(len(keys), dtype=np.int64)
            # The last assignment wins, so backwards the first row of a pair does.
            where[places[::-1]] = rows[::-1]
            codes[new] = np.arange(len(self._keys), len(self._keys) + len(new))
            self._add(keys[new], codes[new], where[new])
        return codes.astype(np.int32)[places]

    def _add(self, keys: np.ndarray, codes: np.ndarray, rows: np.ndarray) -> None:
        self._keys = np.concatenate([self._keys, keys])
        self._order = np.argsort(self._keys)
        self.first_rows = np.concatenate([self.first_rows, rows])
        first, second = (part[::-1] for part in _parts(keys))
        unmet = self._code[first] < 0
        self._second[first[unmet]] = second[unmet]
        self._code[first[unmet]] = codes[::-1][unmet]


def _parts(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (keys >> 32).astype(np.int32), ((keys & 0xFFFFFFFF) - 1).astype(np.int32)
