"""Rows on their way from the order of the tables to the order of genes: a file of buckets, each with whole genes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

N_BUCKETS = 256
"""At 144 million rows a bucket has half a million. A bucket's number fits a byte, which is sorted fastest."""

ROW = "row"


class Spill:
    """Columns of rows, chunk by chunk, the rows of a chunk by bucket.

    The file has no name, so that nothing is left of it however the process ends.

    Parameters
    ----------
    folder
        Where the file is.
    dtypes
        Name of each column and its type.
    """

    def __init__(self, folder: Path, dtypes: Mapping[str, np.dtype]) -> None:
        self.dtypes = {**dtypes, ROW: np.dtype(np.int32)}
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with this object
        self._end = 0
        self._places: dict[str, list[int]] = {name: [] for name in self.dtypes}
        self._first_rows: list[int] = []
        self._starts: list[np.ndarray] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def bucket_rows(self) -> np.ndarray:
        """Rows in each bucket, int64 [N_BUCKETS]."""
        return np.diff(np.sum(self._starts, axis=0))

    def append(self, group: np.ndarray, columns: Mapping[str, np.ndarray], rows: np.ndarray, first_row: int) -> None:
        """Add the rows of a chunk; those of one group, a code [n], go to one bucket, in their order.

        Parameters
        ----------
        group
            Codes [n].
        columns
            Name to values [n].
        rows, first_row
            Places [n] of the rows in the chunk, and of the chunk among all rows.
        """
        columns = {**columns, ROW: rows}
        self._first_rows.append(first_row)
        bucket = (group % N_BUCKETS).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        self._starts.append(np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=N_BUCKETS))]))
        for name, dtype in self.dtypes.items():
            self._places[name].append(self._end)
            self._write(np.ascontiguousarray(columns[name][order], dtype=dtype))

    def read(self, name: str, buckets: Sequence[int]) -> np.ndarray:
        """Return a column of some buckets, bucket after bucket, each in the order of the tables' rows."""
        dtype = self.dtypes[name]
        counted = [
            (starts[bucket], starts[bucket + 1] - starts[bucket]) for bucket in buckets for starts in self._starts
        ]
        values = np.empty(sum(int(count) for _, count in counted), dtype=dtype)
        done = 0
        for place, (start, count) in zip(self._places[name] * len(buckets), counted, strict=True):
            if count:
                self._read(place + int(start) * dtype.itemsize, values[done : done + count])
                done += count
        return values

    def rows(self, buckets: Sequence[int]) -> np.ndarray:
        """Return the places of rows among all rows of the tables, int64 [n], in the order of `read`."""
        counts = [[int(starts[bucket + 1] - starts[bucket]) for starts in self._starts] for bucket in buckets]
        first_rows = np.repeat(np.tile(self._first_rows, len(buckets)), np.ravel(counts))
        return self.read(ROW, buckets).astype(np.int64) + first_rows

    def _write(self, values: np.ndarray) -> None:
        view = values.view(np.uint8).data
        while view:
            written = os.pwrite(self._file.fileno(), view, self._end)
            self._end += written
            view = view[written:]

    def _read(self, place: int, values: np.ndarray) -> None:
        view = values.view(np.uint8).data
        while view:
            count = os.preadv(self._file.fileno(), [view], place)
            if not count:
                raise OSError("the file of rows to be sorted ended early")
            place += count
            view = view[count:]
