"""Files that are there whole or not at all.

A writer works under a temporary name beside the file's, `.NAME.MACHINE-PROCESS-RANDOM.partial`, and renames at the end.
What a killed writer leaves is removed by the next one that writes the same name on the same machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vihier.errors import VihierError

# Characters kept of a name: with what is added, it must stay below the 255 bytes of most file systems.
LONGEST = 40


@contextmanager
def renamed_when_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to: it becomes `path` on success and is removed on failure.

    Raises
    ------
    VihierError
        `path` cannot be a file (see `check_writable`), or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "answer.txt"
    >>> with renamed_when_whole(out) as partial:
    ...     characters = partial.write_text("42")
    >>> out.read_text()
    '42'
    """
    partial = partial_beside(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise VihierError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a path at which no file can be made.

    Raises
    ------
    VihierError
        It is a directory or something else than a plain file, or its directory does not exist or is not writable.
    """
    if path.is_dir():
        raise VihierError(f"{path}: is a directory; name a file")
    # A rename would replace a device or a pipe by a plain file.
    if path.exists() and not path.is_file():
        raise VihierError(f"{path}: is not a plain file; name one")
    if not path.parent.is_dir():
        raise VihierError(f"{path}: the directory {path.parent} does not exist; make it first")
    # Tried, not asked: root, read-only disks and special folders all answer otherwise than they act.
    probe = _new_name(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise VihierError(f"{path}: cannot be written: {error.strerror or error}; name a file elsewhere") from error


def partial_beside(path: Path) -> Path:
    """Return a new temporary name for a file to be; what killed writers of the same file left is removed.

    Raises
    ------
    VihierError
        See `check_writable`.
    """
    check_writable(path)
    pattern = rf"\.{re.escape(path.name[:LONGEST])}\.{_machine()}-(\d+)-[0-9a-f]{{8}}\.partial"
    _remove_leftovers(path.parent, re.compile(pattern))
    return _new_name(path)


def _new_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:LONGEST]}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.partial")


def _machine() -> str:
    # Process numbers say nothing of other machines that write to the same shared folder.
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _remove_leftovers(directory: Path, pattern: re.Pattern[str]) -> None:
    # Elsewhere than on POSIX there is no asking after a process without disturbing it.
    if os.name != "posix":
        return
    with suppress(OSError):  # tidying up is no reason to fail
        for entry in directory.iterdir():
            found = pattern.fullmatch(entry.name)
            if found and not _is_running(int(found[1])):
                entry.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
