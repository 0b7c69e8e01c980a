"""What several workers need to share a fit: a screen that all have open, and one that has enough to share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vihier.errors import VihierError
from vihier.inference.workers import Workers
from vihier.screen import Screen

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore


def open_by_all(workers: Workers, opened: Callable[[], Screen | ScreenStore]) -> Screen | ScreenStore:
    """Have the first worker open a screen, which may pack a table, and the others the same table or the store of it."""
    if workers.count == 1:
        return opened()
    from vihier.store.store import open_store

    own: list[Screen | ScreenStore] = []

    def path_of_store() -> Path | None:
        own.append(opened())
        return None if isinstance(own[0], Screen) else own[0].path

    path = workers.by_first(path_of_store)
    if own:
        return own[0]
    return opened() if path is None else open_store(path)


def check_workers(
    workers: Workers,
    screen: Screen | ScreenStore,
    batch_size: int | None,
    streamed: bool,
    out: Path | None,
    is_plain: bool = True,
) -> None:
    """Refuse several workers where they could not share the work.

    Raises
    ------
    VihierError
        A fit that is not streamed, one without a file to write to, or more workers than there are parts.
    """
    from vihier.guides.pass_sums import PARTS
    from vihier.guides.structured_fit import SWEPT_UP_TO
    from vihier.inference.streamed_run import genes_per_block

    if not streamed:
        raise VihierError(
            f"{workers.count} workers: they share the structured guide's fits of more than {SWEPT_UP_TO:,} gene-line "
            "pairs whose rows are fold changes without covariates; others are of one process: leave out torchrun"
        )
    if out is None:
        raise VihierError(f"{workers.count} workers: they need a file to write to; give out=")
    size = genes_per_block(screen, batch_size, is_plain)
    blocks = math.ceil(screen.n_genes / size)
    if workers.count > min(PARTS, blocks):
        raise VihierError(
            f"{workers.count} workers: {screen.n_genes:,} genes in blocks of {size} are shared by {min(PARTS, blocks)} "
            "at most; start fewer" + (", or give a smaller --batch-size" if blocks < PARTS else "")
        )
