"""Open a posterior file, or say in one line why it cannot be trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vihier.errors import VihierError
from vihier.posterior import layout

# What a reader relies on.
_NEEDED_ATTRS = ("model", "guide", "seed", "priors", "converged", "regenerated", "not_identified")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_JSON_ATTRS = ("priors", "regenerated", "not_identified", "not_identified_reasons")
_BOOLEAN_ATTRS = ("complete", "converged")


def open_file(path: Path, group: str = layout.POSTERIOR) -> h5py.File:
    """Open a complete file of ours that has `group`.

    Parameters
    ----------
    path : Path
        The file.
    group : str
        ``posterior`` or ``truth``.

    Raises
    ------
    VihierError
        No such file, a directory, an empty file, not HDF5, not ours, truncated, unfinished, from a newer format, or
        without that group.
    """
    _check_signature(path)
    try:
        # Nobody writes to a finished file, and some cluster file systems have no locks.
        file = h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError) as error:
        raise VihierError(f"{path}: {_why_not_opened(error)}") from error
    try:
        with reading(path):
            _check_contents(path, file, group)
    except VihierError:
        file.close()
        raise
    return file


def _check_signature(path: Path) -> None:
    if path.is_dir():
        raise VihierError(f"{path}: is a directory; name a posterior file")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_SIGNATURE))
    except FileNotFoundError as error:
        raise VihierError(f"{path}: no such file; `vihier fit SCREEN --out {path.name}` writes one") from error
    except OSError as error:
        raise VihierError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise VihierError(f"{path}: is empty; run the fit again")
    if head != _SIGNATURE:
        raise VihierError(f"{path}: is not a posterior file (not HDF5); name the file that `vihier fit --out` wrote")


def _why_not_opened(error: OSError | RuntimeError) -> str:
    text = " ".join(str(error).split())
    if "truncated file" in text:
        return "is truncated; copy it again or run the fit again"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read: {os.strerror(error.errno)}"
    return f"is damaged and cannot be opened ({text}); copy it again or run the fit again"


def _check_contents(path: Path, file: h5py.File, group: str) -> None:
    if "format_version" not in file.attrs or "complete" not in file.attrs:
        raise VihierError(f"{path}: is HDF5, but not a posterior file; name the file that `vihier fit --out` wrote")
    version = int(file.attrs["format_version"])
    if version > layout.FORMAT_VERSION:
        raise VihierError(
            f"{path}: has format {version}, and this vihier reads up to {layout.FORMAT_VERSION}; upgrade vihier"
        )
    if int(file.attrs["complete"]) != 1:
        raise VihierError(f"{path}: is unfinished (the run that wrote it did not end); run the fit again")
    if group not in file:
        other = next((name for name in (layout.POSTERIOR, layout.TRUTH) if name in file), None)
        raise VihierError(f"{path}: holds no group {group!r}" + (f" but {other!r}; name another file" if other else ""))
    missing = [name for name in _NEEDED_ATTRS if name not in file.attrs]
    if missing and group == layout.POSTERIOR:
        raise VihierError(f"{path}: lacks the root attribute {missing[0]!r}; write it with vihier's PosteriorWriter")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into one line that names the file."""
    try:
        yield
    except VihierError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        text = " ".join(str(error).split())
        raise VihierError(f"{path}: is damaged ({text}); copy it again or run the fit again") from error


def root_attrs(file: h5py.File) -> dict[str, Any]:
    """Root attributes as Python values; JSON is parsed, nothing is evaluated.

    Raises
    ------
    ValueError
        An attribute that should be JSON is not.
    """
    attrs: dict[str, Any] = {}
    for name, value in file.attrs.items():
        attrs[name] = value.item() if isinstance(value, np.generic) else value
        if name in _JSON_ATTRS and isinstance(value, str):
            try:
                attrs[name] = json.loads(value)
            except RecursionError as error:
                raise ValueError(f"attribute {name!r} is nested too deeply") from error
        elif name in _BOOLEAN_ATTRS:
            attrs[name] = bool(value)
    return attrs
