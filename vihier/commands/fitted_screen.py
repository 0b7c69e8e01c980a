"""The screen of a fit: the one named, or the file that the fit says it read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vihier.commands.arguments import read

if TYPE_CHECKING:
    from vihier.commands.fit import Part
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen


def fitted_screen(
    screen: Path | None,
    post: Posterior,
    part: Part,
    column: list[str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
) -> Screen | None:
    """Read a screen, table or store, and cut the part that was fitted; None where none is named and none is there.

    Parameters
    ----------
    screen
        What is named on the command line.
    post
        The fit, whose file may name its screen.
    part
        The part that was fitted.
    column, single_lineage, on_conflict
        How a table is read.

    Raises
    ------
    VihierError
        As `vihier.read_screen` and `vihier.store.store.open_store`.
    """
    from vihier.store.store import is_hdf5, open_store

    path = screen if screen is not None else source_of(post)
    if path is None:
        return None
    if is_hdf5(path):
        with open_store(path) as store:
            return part.cut(store.to_screen())
    return part.cut(read(path, column, single_lineage, on_conflict))


def source_of(post: Posterior) -> Path | None:
    """Return the file that a fit's screen was read from, where the fit names it and it is still there."""
    name = post.attrs.get("screen_source")
    return Path(name) if isinstance(name, str) and name and Path(name).is_file() else None
