"""Measured fold changes beside a fit: the mean over replicates of every sgRNA in every line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vihier.errors import VihierError
from vihier.screen.cells import cell_statistics
from vihier.screen.faults import shown

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen
    from vihier.store.store import ScreenStore


def check_same_labels(post: Posterior, screen: Screen | ScreenStore) -> str:
    """Return what the screen lacks of the fit, as a sentence; nothing where it lacks nothing.

    Raises
    ------
    VihierError
        They have no gene, or no line, in common.
    """
    lacks = []
    for dim, there in (("hugo_symbol", screen.index.genes), ("depmap_id", screen.index.lines)):
        wanted = post.labels(dim)
        missing = sorted({*wanted} - {*there})
        if len(missing) == len(wanted):
            raise VihierError(
                f"--screen: none of the fit's {len(wanted):,} {dim}s is in it (such as {shown(missing[0])}); give the "
                "screen that was fitted"
            )
        if missing:
            lacks.append(f"{len(missing):,} of the fit's {len(wanted):,} {dim}s, such as {shown(missing[0])}")
    return f"The screen given lacks {' and '.join(lacks)}: it is not the one that was fitted." if lacks else ""


def measured_means(
    screen: Screen | ScreenStore, genes: Sequence[str], lines: Sequence[str]
) -> list[tuple[list[str], np.ndarray]]:
    """Return for each gene its sgRNAs and their mean log2 fold changes.

    Parameters
    ----------
    screen
        A screen; of a store, only the rows of these genes are read.
    genes, lines
        Labels wanted; those that the screen does not have yield no sgRNAs, or no values.

    Returns
    -------
    list
        Labels of K sgRNAs and float64 [K, lines], NaN where an sgRNA has no row in a line.
    """
    index = screen.index
    gene_code = {gene: code for code, gene in enumerate(index.genes.tolist())}
    line_place = {line: place for place, line in enumerate(lines)}
    place_of_line = np.array([line_place.get(line, -1) for line in index.lines.tolist()])
    found: list[tuple[list[str], np.ndarray]] = []
    for gene in genes:
        code = gene_code.get(gene)
        if code is None:
            found.append(([], np.empty((0, len(lines)))))
            continue
        cells = cell_statistics(screen.rows_of(slice(code, code + 1)))
        sgrnas, of_cell = np.unique(cells.sgrna, return_inverse=True)
        places = place_of_line[cells.line]
        values = np.full((len(sgrnas), len(lines)), np.nan)
        values[of_cell[places >= 0], places[places >= 0]] = cells.mean[places >= 0]
        found.append((index.sgrnas[sgrnas].tolist(), values))
    return found
