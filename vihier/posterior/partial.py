"""A file that is written under a temporary name and given its own only when it is whole.

HDF5 is not safe against crashes, and does not need to be here: what a killed run leaves behind has another name and
says ``complete = 0``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vihier.atomic import partial_beside
from vihier.errors import VihierError
from vihier.posterior.layout import FORMAT_VERSION, LIBVER
from vihier.posterior.stream import UnfailingStream

# For each open dataset: 256 chunks of 64 KB that are being filled side by side.
_CACHE_BYTES = 16 * 1024 * 1024
_COPIED_AT_ONCE = 8 * 1024 * 1024


class PartialFile:
    """An HDF5 file in the making, in the directory of `path`, until `publish` or `abandon`.

    Parameters
    ----------
    path : Path
        The name it will have.
    copy_of : Path, optional
        A file that it starts as a copy of; nothing when None.

    Raises
    ------
    VihierError
        `path` cannot be a file: see `vihier.atomic.check_writable`.
    """

    def __init__(self, path: Path, copy_of: Path | None = None) -> None:
        self.path = path
        self._partial = partial_beside(path)
        with self._in_one_line():
            self._stream = UnfailingStream(self._partial)
        try:
            with self.speaking_plainly():
                if copy_of is not None:
                    with copy_of.open("rb") as source:
                        shutil.copyfileobj(source, self._stream, _COPIED_AT_ONCE)
                    self._stream.check()
                mode = "w" if copy_of is None else "r+"
                self.file = h5py.File(
                    self._stream, mode, libver=LIBVER, rdcc_nbytes=_CACHE_BYTES, rdcc_nslots=10_007, rdcc_w0=1.0
                )
                set_attrs(self.file, {"format_version": FORMAT_VERSION, "complete": False})
        except BaseException:
            self._stream.close()
            self._partial.unlink(missing_ok=True)
            raise

    def publish(self) -> None:
        """Mark the file complete, put it on disk and give it its name."""
        with self.speaking_plainly():
            self.file.flush()
            self._stream.check()
            set_attrs(self.file, {"complete": True})
            self.file.close()
            self._stream.sync()
            self._stream.close()
            self._partial.replace(self.path)
            _sync_directory(self.path.parent)

    def abandon(self) -> None:
        """Remove what was written; a file that already had the name stays as it was."""
        try:
            self.file.close()
        finally:
            self._stream.close()
            self._partial.unlink(missing_ok=True)

    @contextmanager
    def speaking_plainly(self) -> Iterator[None]:
        """Turn what h5py and the system raise while writing into one line that names the file."""
        with self._in_one_line():
            yield
            self._stream.check()

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            number = error.errno if isinstance(error, OSError) else None
            reason = os.strerror(number) if number else " ".join(str(error).split())
            raise VihierError(f"{self.path}: cannot be written: {reason}") from error


def set_attrs(target: h5py.Group, attrs: Mapping[str, Any]) -> None:
    """Set attributes as they are stored: numbers, text, and JSON for anything else.

    Text has variable length: it then lives in HDF5's heap, where the 64 KB that an attribute may hold in place do not
    count, so that a long configuration is no special case. Booleans become 0 and 1, because netCDF has none.
    """
    for name, value in attrs.items():
        target.attrs[name] = _attribute(name, value)


def _attribute(name: str, value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return np.int8(value)
    if isinstance(value, int | np.integer):
        return np.int64(value)
    if isinstance(value, float | np.floating):
        return np.float64(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\0" in text:
        raise VihierError(f"attribute {name!r} holds a NUL, which no file can keep")
    return text


def installed_version(package: str) -> str:
    """Version of an installed package, read from its metadata without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _sync_directory(path: Path) -> None:
    """Have the system remember the new name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
