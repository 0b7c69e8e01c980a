"""Stores that are kept, so that a table is packed once and not for every fit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from vihier.errors import VihierError
from vihier.inference.progress import Progress
from vihier.screen.faults import fault
from vihier.store.layout import FORMAT_VERSION
from vihier.store.pack import pack
from vihier.store.store import ScreenStore, open_store
from vihier.store.tables import PathLikes, table_paths


def default_cache() -> Path:
    """Return the user's folder for stores that can be made again: ``$XDG_CACHE_HOME/vihier``, or ``~/.cache/vihier``.

    A relative ``XDG_CACHE_HOME`` does not count, as its specification says.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "vihier"


def cached_store(
    sources: PathLikes,
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
    sgrna_per_screen: bool = True,
    covariates: Iterable[str] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    no_cache: bool = False,
    progress: Progress | None = None,
) -> ScreenStore:
    """Return the store of some tables: one that is kept from before, or packed now.

    Found by the tables' paths, sizes, times of change and the options; trusted only if the hash of its rows is the one
    written with it. Where a table has changed, its earlier store is removed.

    Parameters
    ----------
    sources, columns, single_lineage, on_conflict, sgrna_per_screen, covariates, progress
        As in `vihier.store.pack.pack`.
    cache_dir
        Where stores are kept; `default_cache` when None.
    no_cache
        Pack anew, into a temporary directory that lives as long as the store returned.

    Raises
    ------
    VihierError
        As `vihier.store.pack.pack`; or a table that changes while it is read.

    Examples
    --------
    >>> import vihier
    >>> folder = Path(tempfile.mkdtemp())
    >>> table = vihier.simulate(folder / "screen.parquet", genes=3, lines=5, seed=1).table
    >>> first, again = (cached_store(table, cache_dir=folder / "cache") for _ in range(2))
    >>> first.path == again.path, cached_store(table, no_cache=True).hash == first.hash
    (True, True)
    """
    paths = table_paths(sources)
    options: dict[str, Any] = {"columns": dict(columns or {}), "single_lineage": single_lineage}
    options |= {"on_conflict": on_conflict, "sgrna_per_screen": sgrna_per_screen}
    options["covariates"] = None if covariates is None else sorted(covariates)
    if no_cache:
        return _temporary(paths, options, progress)
    folder = default_cache() if cache_dir is None else Path(fspath(cache_dir))
    tables = _digest([[str(path.resolve()) for path in paths], options, FORMAT_VERSION])
    path = folder / f"{paths[0].stem[:40]}-{tables}-{_digest(_states(paths))}.h5"
    store = _kept(path)
    if store is None:
        _make(folder)
        store = _packed(paths, path, options, progress)
        for earlier in folder.glob(f"*-{tables}-*.h5"):
            if earlier != path:
                earlier.unlink(missing_ok=True)
    return store


def _temporary(paths: Sequence[Path], options: Mapping[str, Any], progress: Progress | None) -> ScreenStore:
    folder = Path(tempfile.mkdtemp(prefix="vihier-store-"))
    try:
        store = _packed(paths, folder / "screen.h5", options, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
    return store


def _packed(paths: Sequence[Path], out: Path, options: Mapping[str, Any], progress: Progress | None) -> ScreenStore:
    before = _states(paths)
    store = pack(paths, out, **options, progress=progress)
    for path, then, now in zip(paths, before, _states(paths), strict=True):
        if then != now:
            store.close()
            out.unlink(missing_ok=True)
            raise fault(str(path), "the table changed while it was read", cure="run again when it is whole")
    return store


def _states(paths: Sequence[Path]) -> list[list[int]]:
    try:
        return [[path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    except OSError as error:
        raise fault(str(error.filename), "no such file", cure="check the name and the folder") from error


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _kept(path: Path) -> ScreenStore | None:
    """Return the store if it is there and whole; what is not is packed again."""
    if not path.exists():
        return None
    try:
        store = open_store(path)
    except VihierError:
        return None
    try:
        store.verify()
    except VihierError:
        store.close()
        return None
    return store


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        cure = "name another with cache_dir (--cache-dir), or go without (--no-cache)"
        raise fault(str(folder), f"the folder for stores cannot be made ({reason})", cure=cure) from error
