"""The two pairs of reference sets that the experiments judge effects by, as their authors' files are named."""

from __future__ import annotations

from pathlib import Path

from vihier.diagnostics.control_genes import ControlGenes, read_control_genes

SETS = {
    "achilles": ("AchillesCommonEssentialControls.csv", "AchillesNonessentialControls.csv"),
    "hart": ("CEGv2.txt", "NEGv1.txt"),
}


def read_gene_sets(folder: Path) -> dict[str, ControlGenes]:
    """Read both pairs from a folder."""
    return {name: read_control_genes(folder / low, folder / high) for name, (low, high) in SETS.items()}
