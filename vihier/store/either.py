"""A screen from whichever file holds it: a table, or a store."""

from __future__ import annotations

import warnings
from os import PathLike, fspath
from pathlib import Path

from vihier.errors import ScreenWarning
from vihier.screen.read import read_screen
from vihier.screen.screen import Screen
from vihier.store.store import ScreenStore, is_hdf5, open_store


def screen_or_store(path: str | PathLike[str], *, single_lineage: bool = False) -> Screen | ScreenStore:
    """Read a table, or open a store; warnings about a table are left to its report.

    Parameters
    ----------
    path
        The file.
    single_lineage
        Put all lines of a table in one lineage; a store is as it was packed.

    Raises
    ------
    VihierError
        As `vihier.read_screen` and `open_store`.
    """
    file = Path(fspath(path))
    if is_hdf5(file):
        return open_store(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScreenWarning)
        return read_screen(file, single_lineage=single_lineage)
