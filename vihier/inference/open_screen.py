"""What a fit is given, opened: a screen in memory, or a store where the rows stay on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vihier.errors import VihierError
from vihier.inference.progress import open_progress
from vihier.screen import Screen, read_screen

if TYPE_CHECKING:
    import pandas as pd

    from vihier.inference.request import FitRequest
    from vihier.models.likelihood import Likelihood
    from vihier.models.program import Program
    from vihier.store.store import ScreenStore

# Tables above these are packed: some 4 million rows, which take a GB in memory while they are read.
PARQUET_BYTES, TEXT_BYTES = 30_000_000, 200_000_000


def open_screen(
    source: Screen | ScreenStore | str | os.PathLike[str] | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
    no_cache: bool = False,
    quiet: bool = True,
) -> Screen | ScreenStore:
    """Open a screen, a store, or a table; a large table is packed, or found packed already.

    Parameters
    ----------
    source
        As `vihier.fit` takes it; also a folder of Parquet files.
    columns, single_lineage, on_conflict
        As in `vihier.read_screen`; a store was read with those of its own.
    no_cache
        Pack a large table into a temporary store.
    quiet
        No progress while a table is packed.

    Raises
    ------
    VihierError
        As `vihier.read_screen`, `vihier.store.store.open_store` and `vihier.store.cache.cached_store`.
    """
    if not isinstance(source, str | os.PathLike):
        from vihier.store.store import ScreenStore

        return source if isinstance(source, Screen | ScreenStore) else read_screen(source)
    from vihier.store.store import is_hdf5, open_store

    path = Path(source)
    if is_hdf5(path):
        if columns or single_lineage or on_conflict != "error":
            raise VihierError(f"{path}: a store is read as it was packed; give these options to `vihier pack`")
        return open_store(path)
    if not is_large(path):
        return read_screen(path, columns=columns, single_lineage=single_lineage, on_conflict=on_conflict)
    from vihier.store.cache import cached_store

    with open_progress(quiet) as progress:
        return cached_store(
            path,
            columns=columns,
            single_lineage=single_lineage,
            on_conflict=on_conflict,
            no_cache=no_cache,
            progress=progress,
        )


def is_large(path: Path) -> bool:
    """Whether a table is packed before it is fitted: by its size, or because it is a folder."""
    if path.is_dir():
        return True
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return size > (PARQUET_BYTES if path.suffix.lower() in (".parquet", ".pq") else TEXT_BYTES)


def is_streamed(screen: Screen | ScreenStore, request: FitRequest, program: Program) -> bool:
    """Whether a screen is so large that a fit of it passes over its blocks instead of holding them.

    Rows that are not Normal with one noise scale are held up to a larger size; those that are counts or have covariates
    are always.
    """
    from vihier.inference.covariates import has_row_design

    large = is_passed_over(screen.n_genes * screen.n_lines, request.draws, program.likelihood)
    return request.guide == "structured" and large and not has_row_design(program, screen)


def is_passed_over(pairs: int, draws: int, likelihood: Likelihood) -> bool:
    """Whether a screen of so many pairs of a gene and a line is, where its program has no covariates."""
    from vihier.guides import structured_fit, swept_fit

    if likelihood.is_plain:
        return pairs > structured_fit.SWEPT_UP_TO
    large = pairs > swept_fit.HELD_UP_TO or pairs * draws > swept_fit.MOST_HELD
    return large and not likelihood.is_of_counts
