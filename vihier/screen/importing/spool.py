"""A matrix of sgRNAs by samples in a temporary file, so that a wide table of any size is turned with bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

BLOCK_BYTES = 1 << 25


class Spool:
    """Float64 values [rows, columns], appended block by block, read by rows or by columns.

    It is read and written, not mapped: mapped pages would count as this process's memory. The file has no name (or is
    removed) from the start, so nothing is left behind by a process that is killed.

    Parameters
    ----------
    folder
        Where the temporary file is made: where the result goes, which has room for such amounts.
    n_columns
        Length of a row.

    Examples
    --------
    >>> with Spool(Path(tempfile.gettempdir()), 2) as spool:
    ...     spool.append(np.array([[1.0, 2.0], [3.0, 4.0]]))
    ...     spool.append(np.array([[5.0, 6.0]]))
    ...     spool.rows(np.array([2, 0])).tolist(), spool.columns(1, 2).ravel().tolist()
    ([[5.0, 6.0], [1.0, 2.0]], [2.0, 4.0, 6.0])
    """

    def __init__(self, folder: Path, n_columns: int) -> None:
        self.folder = folder
        self.n_rows = 0
        self.n_columns = n_columns
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".vihier-import-", buffering=0)  # noqa: SIM115

    def append(self, block: np.ndarray) -> None:
        """Append rows [n, columns]."""
        self._file.seek(self.n_rows * self.n_columns * 8)
        unwritten = memoryview(np.ascontiguousarray(block, dtype=np.float64).data).cast("B")
        while len(unwritten):  # an unbuffered file may take a part only
            unwritten = unwritten[self._file.write(unwritten) :]
        self.n_rows += len(block)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Return these rows, [len(index), columns]."""
        values = np.empty((len(index), self.n_columns))
        # Neighbours are read at once.
        starts = np.flatnonzero(np.diff(index, prepend=-2) != 1)
        for start, stop in zip(starts, [*starts[1:], len(index)], strict=True):
            self._read_into(values[start:stop], int(index[start]) * self.n_columns)
        return values

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Return these columns, [rows, stop - start]."""
        values = np.empty((self.n_rows, stop - start))
        if (start, stop) == (0, self.n_columns):
            self._read_into(values, 0)
            return values
        for row in range(self.n_rows):
            self._read_into(values[row], row * self.n_columns + start)
        return values

    def column_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the columns in blocks of bounded size, each with its first column."""
        width = max(1, BLOCK_BYTES // (8 * max(1, self.n_rows)))
        for start in range(0, self.n_columns, width):
            yield start, self.columns(start, min(start + width, self.n_columns))

    def row_blocks(self, order: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield the positions of the rows, in file order or in ``order``, in blocks of bounded size."""
        order = np.arange(self.n_rows) if order is None else order
        height = max(1, BLOCK_BYTES // (8 * max(1, self.n_columns)))
        for start in range(0, len(order), height):
            yield order[start : start + height]

    def transposed(self) -> Spool:
        """Return a spool of the columns as rows, and close this one."""
        turned = Spool(self.folder, self.n_rows)
        for _, block in self.column_blocks():
            turned.append(block.T)
        self.close()
        return turned

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_into(self, values: np.ndarray, position: int) -> None:
        self._file.seek(position * 8)
        unread = memoryview(values.data).cast("B")
        while len(unread):
            n_read = self._file.readinto(unread)
            if not n_read:
                raise OSError("the temporary file ended early")
            unread = unread[n_read:]
