"""Where a table comes from: a pandas frame or a Parquet file, read column by column into Arrow arrays."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from vihier.errors import VihierError
from vihier.screen.faults import fault, one_line, shown
from vihier.screen.values import label_of

SINGLE = (str, numbers.Number, np.generic, datetime.date, datetime.time)


class Source(Protocol):
    """A table that has names, columns and rows that can be pointed at."""

    name: str

    def column_names(self) -> list[str]:
        """Return the names in the table's order."""

    def read(self, places: Sequence[int], numeric: Collection[int]) -> dict[int, pa.ChunkedArray]:
        """Return the columns at these places (from 0); those in ``numeric`` should hold numbers."""

    def row_name(self, row: int) -> str:
        """Return what the user calls this row (from 0)."""


class FrameSource:
    """A pandas frame; its named index levels count as columns where the frame has no column of that name."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.name = "DataFrame"
        if isinstance(frame.columns, pd.MultiIndex):
            raise fault(self.name, "its columns have several levels", cure="flatten them to one name a column")
        levels = [name for name in frame.index.names if isinstance(name, str) and name not in frame.columns]
        self.frame = frame.reset_index(level=levels) if levels else frame

    def column_names(self) -> list[str]:
        """Return the names, as text, in the frame's order."""
        return [str(name) for name in self.frame.columns]

    def read(self, places: Sequence[int], numeric: Collection[int]) -> dict[int, pa.ChunkedArray]:
        """Return the columns at these places."""
        names = self.column_names()
        return {place: _arrow(self.frame.iloc[:, place], self.name, names[place]) for place in places}

    def row_name(self, row: int) -> str:
        """Return the position, and the index label where it differs."""
        label = self.frame.index[row]
        also = "" if isinstance(label, (int, np.integer)) and label == row else f", index {shown(label)}"
        return f"row {row} (counted from 0{also})"


class ParquetSource:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path
        try:
            self.schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.name, error) from error

    def column_names(self) -> list[str]:
        """Return the names in the file's order."""
        return list(self.schema.names)

    def read(self, places: Sequence[int], numeric: Collection[int]) -> dict[int, pa.ChunkedArray]:
        """Return the columns at these places, strings dictionary-encoded."""
        names = [self.schema.names[place] for place in places]
        fields = [self.schema.field(place) for place in places]
        text = [each.name for each in fields if pt.is_string(each.type) or pt.is_large_string(each.type)]
        try:
            table = pq.ParquetFile(self.path, read_dictionary=text).read(columns=names)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.name, error) from error
        return {place: table.column(name) for place, name in zip(places, names, strict=True)}

    def row_name(self, row: int) -> str:
        """Return the position in the file."""
        return f"row {row} (counted from 0)"


def unreadable(name: str, error: Exception) -> VihierError:
    """Return the error for a Parquet file that Arrow refuses."""
    detail = one_line(str(error))[:120]
    return fault(name, f"not a readable Parquet file ({detail})", cure="write or download it again")


def _arrow(values: pd.Series, source: str, name: str) -> pa.ChunkedArray:
    if isinstance(values.dtype, pd.SparseDtype):
        values = pd.Series(np.asarray(values))
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        # Strings and numbers in one column, most of all: each value stands for a label.
        array = _mixed(values, source, name)
    if isinstance(array.type, pa.BaseExtensionType):
        array = pa.array(values.astype(str), from_pandas=True)
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _mixed(values: pd.Series, source: str, name: str) -> pa.Array:
    # What is no single value is of a nested type for Arrow, which the readers of the columns know.
    nested = pa.nulls(len(values), pa.list_(pa.string()))
    try:
        codes, found = pd.factorize(values.astype(object))
    except TypeError:  # not hashable
        return nested
    if not all(isinstance(value, SINGLE) for value in found):
        return nested
    texts = [label_of(value) for value in found]
    try:
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(texts, pa.string()))
    except UnicodeEncodeError as error:
        problem = f"column {shown(name)} holds text that is not valid Unicode"
        raise fault(source, problem, cure="read the file with its own encoding") from error
