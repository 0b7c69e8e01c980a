"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vihier.errors import VihierError


@contextmanager
def renamed_when_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to: it becomes `path` on success and is removed on failure.

    Raises
    ------
    VihierError
        `path` cannot be a file: no such directory, no permission, something else than a file; or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> with renamed_when_whole(out) as partial:
    ...     characters = partial.write_text("42")
    >>> out.read_text()
    '42'
    """
    # A rename would replace a device or a pipe by a plain file.
    if path.exists() and not path.is_file():
        raise VihierError(f"{path}: is not a plain file; name one")
    if not path.parent.is_dir():
        raise VihierError(f"{path}: the directory {path.parent} does not exist; make it first")
    # Cut short: with what is added, the name must stay below the 255 bytes of most file systems.
    partial = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise VihierError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
