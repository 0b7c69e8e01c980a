"""Quality of whatever a file holds: a table of a screen, a store, or a fit."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path

from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.quality.fit_quality import FitQuality, fit_quality
from vihier.quality.screen_quality import ScreenQuality, screen_quality
from vihier.screen.screen import Screen
from vihier.store.store import ScreenStore


def judge(
    source: str | PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    controls: ControlGenes | None = None,
    screen: Screen | ScreenStore | None = None,
) -> ScreenQuality | FitQuality:
    """Judge a file: `screen_quality` of a table or a store, `fit_quality` of a posterior file.

    Parameters
    ----------
    source
        The file.
    columns
        Our name to the table's, as for `vihier.read_screen`; tables only.
    controls
        Reference genes.
    screen
        What a fit was fitted to; see `fit_quality`.

    Raises
    ------
    VihierError
        A file that is none of these, or as the function behind it says.

    Examples
    --------
    >>> import tempfile, vihier
    >>> table = vihier.simulate(Path(tempfile.mkdtemp()) / "screen.parquet", genes=3, lines=5, seed=1).table
    >>> len(judge(table).lines)
    5
    """
    from vihier.posterior.reader import open_posterior
    from vihier.screen.read import read_screen
    from vihier.store.store import is_hdf5, is_store, open_store

    path = Path(fspath(source))
    if screen is not None and (not is_hdf5(path) or is_store(path)):
        raise VihierError(f"{path}: is a screen itself; a screen beside it is for a fit")
    if not is_hdf5(path):
        return screen_quality(read_screen(path, columns=columns), controls)
    if columns:
        raise VihierError(f"{path}: columns are mapped in tables; a store or a posterior file is read as it is")
    if is_store(path):
        with open_store(path) as store:
            return screen_quality(store, controls)
    with open_posterior(path) as post:
        return fit_quality(post, controls, screen=screen)
