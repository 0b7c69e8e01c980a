"""The labels that a screen gives the dims of a posterior file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vihier.screen import Screen
    from vihier.screen.screen import ScreenIndex
    from vihier.store.store import ScreenStore


def labels_of_dims(screen: Screen | ScreenStore) -> dict[str, np.ndarray]:
    """Return the labels of every dim: sgRNAs, genes, lines, lineages, replicates, lines in screens, and categories."""
    index = screen.index
    labels = {**index.categories, "sgrna": index.sgrnas, "hugo_symbol": index.genes, "depmap_id": index.lines}
    labels |= {"replicate": index.replicates, "line_screen": line_screens(index)[0]}
    return labels if index.lineages is None else {**labels, "lineage": index.lineages}


def line_screens(index: ScreenIndex) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines as each screen has them, and which of these each replicate is of.

    Returns
    -------
    labels : ndarray
        `LINE|SCREEN`, or `LINE` where replicates are named without a screen; sorted.
    codes : ndarray
        int64 [R].
    """
    lines = index.lines[index.line_of_replicate].tolist()
    # A replicate is LINE|REPLICATE or, with a column `screen`, LINE|REPLICATE|SCREEN; names may have strokes in them.
    screens = sorted(index.categories.get("screen", []), key=len, reverse=True)
    names = []
    for line, replicate in zip(lines, index.replicates.tolist(), strict=True):
        suffix = next((f"|{screen}" for screen in screens if replicate.endswith(f"|{screen}")), "")
        names.append(line + suffix)
    labels = np.array(sorted(set(names)), dtype=object)
    place = {label: i for i, label in enumerate(labels.tolist())}
    return labels, np.array([place[name] for name in names], dtype=np.int64)
