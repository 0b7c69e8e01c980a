"""The labels that a screen gives the dims of a posterior file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vihier.screen import Screen
    from vihier.store.store import ScreenStore


def labels_of_dims(screen: Screen | ScreenStore) -> dict[str, np.ndarray]:
    """Return the labels of every dim: sgRNAs, genes, lines, lineages, replicates, and categorical covariates."""
    index = screen.index
    labels = {**index.categories, "sgrna": index.sgrnas, "hugo_symbol": index.genes, "depmap_id": index.lines}
    labels["replicate"] = index.replicates
    return labels if index.lineages is None else {**labels, "lineage": index.lineages}
