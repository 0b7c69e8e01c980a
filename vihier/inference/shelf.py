"""Tables that are filled row by row, in any order and by any process, and know which blocks are in: plain files.

HDF5 does not survive a killed writer; a file of numbers, and a list of what is in it, does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

JOURNAL = "blocks"
SLAB_BYTES = 8 << 20


@dataclass(frozen=True)
class Table:
    """Rows of one shape and type."""

    n_rows: int
    row: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.row)) * self.dtype.itemsize


class Shelf:
    """A folder of tables.

    Parameters
    ----------
    folder : Path
        Made where it is not there. Tables that are there, of the same sizes, are gone on with.
    tables : mapping of str to Table
    worker : int
        Number of the process among those that fill the tables; each notes its blocks in a journal of its own.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with Shelf(folder, {"x": Table(3, (2,), np.dtype("f4"))}) as shelf:
    ...     shelf.put("x", np.array([2, 0]), np.array([[5.0, 6.0], [1.0, 2.0]]))
    ...     shelf.done(0)
    ...     shelf.commit()
    ...     shelf.rows("x", np.array([0, 2])).tolist(), shelf.finished
    ([[1.0, 2.0], [5.0, 6.0]], {0})
    """

    def __init__(self, folder: Path, tables: Mapping[str, Table], worker: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tables = folder, dict(tables)
        self._files = {name: os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666) for name in tables}
        self._journal = folder / (f"{JOURNAL}.{worker}" if worker else JOURNAL)
        # A line that was cut short by a kill has no end, and does not count.
        lines = [line for journal in folder.glob(f"{JOURNAL}*") for line in journal.read_text().split("\n")[:-1]]
        self.finished = {int(line) for line in lines}
        self._waiting: list[int] = []

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; they stay."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def put(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Write rows."""
        table = self.tables[name]
        block = np.ascontiguousarray(values, dtype=table.dtype).reshape(len(rows), -1)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1, [len(rows)]]).tolist()
        for start, stop in pairwise(starts):
            _write(self._files[name], block[start:stop].tobytes(), int(rows[start]) * table.row_bytes)

    def done(self, block: int) -> None:
        """Say that all rows of a block are written; it counts once `commit` was called."""
        self._waiting.append(block)

    def commit(self) -> None:
        """Have the disk hold everything, then note which blocks are in."""
        if not self._waiting:
            return
        for descriptor in self._files.values():
            os.fsync(descriptor)
        with self._journal.open("a") as journal:
            journal.write("".join(f"{block}\n" for block in self._waiting))
            journal.flush()
            os.fsync(journal.fileno())
        self.finished |= set(self._waiting)
        self._waiting = []

    def read(self, name: str, first: int, last: int) -> np.ndarray:
        """Return rows `first` to `last` (excluded)."""
        table = self.tables[name]
        content = os.pread(self._files[name], (last - first) * table.row_bytes, first * table.row_bytes)
        return np.frombuffer(content, dtype=table.dtype).reshape(last - first, *table.row)

    def rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows."""
        return np.stack([self.read(name, row, row + 1)[0] for row in rows.tolist()])

    def slabs(self, name: str, multiple: int = 16) -> Iterator[slice]:
        """Yield ranges of rows of some megabytes that cover a table, of so many rows or multiples of that."""
        table = self.tables[name]
        step = max(multiple, SLAB_BYTES // table.row_bytes // multiple * multiple)
        for first in range(0, table.n_rows, step):
            yield slice(first, min(first + step, table.n_rows))


def _write(descriptor: int, content: bytes, place: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written
