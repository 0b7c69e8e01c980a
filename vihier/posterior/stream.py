"""A stream to disk whose writes never fail under HDF5.

When a write fails (a full disk, a quota), HDF5 2.0 keeps what it could not write, fails to close the file, and takes
the process down with a segmentation fault when it ends. It is therefore given a stream that notes the failure, keeps
whatever comes after it in memory, and lets the writer raise the error once HDF5 is out of the way.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class UnfailingStream(io.RawIOBase):
    """A new file, open for reading and writing.

    Parameters
    ----------
    path : Path
        Must not exist.

    Raises
    ------
    OSError
        The file cannot be made; once it is there, only `check` raises.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._place = 0
        self._failure: OSError | None = None
        # What came after the failure, oldest first. The writer stops at once, so this holds HDF5's caches at most.
        self._unwritten: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    def sync(self) -> None:
        """Have the system put everything on disk."""
        self.check()
        os.fsync(self._descriptor)

    def write(self, data: Any, /) -> int:
        """Write all of `data`, or keep it in memory once the disk has refused."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self._failure is None:
                done += os.pwrite(self._descriptor, view[done:], self._place + done)
        except OSError as error:
            self._failure = error
        if done < len(view):
            self._unwritten.append((self._place + done, bytes(view[done:])))
        self._place += len(view)
        return len(view)

    def readinto(self, buffer: Any, /) -> int:
        """Read what was written, from disk or from memory."""
        view = memoryview(buffer).cast("B")
        done = os.preadv(self._descriptor, [view], self._place)
        for start, data in self._unwritten:
            low, high = max(start, self._place), min(start + len(data), self._place + len(view))
            if low < high:
                view[low - self._place : high - self._place] = data[low - start : high - start]
                done = max(done, high - self._place)
        self._place += done
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place counted from the start, the current place, or the end."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size()}[whence]
        return self._place

    def tell(self) -> int:
        """Return the current place."""
        return self._place

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length of the file."""
        length = self._place if size is None else size
        try:
            os.ftruncate(self._descriptor, length)
        except OSError as error:
            self._failure = self._failure or error
        return length

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _size(self) -> int:
        return max([os.fstat(self._descriptor).st_size, *(start + len(data) for start, data in self._unwritten)])
