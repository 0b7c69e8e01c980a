"""A screen that is made so that what is wrong with it is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.diagnostics.control_genes import ControlGenes
from vihier.screen import read_screen
from vihier.screen.screen import Screen

N_GENES, N_SGRNAS, N_LINES = 60, 4, 8
GENES = [f"GENE{number:02d}" for number in range(N_GENES)]
ESSENTIAL, NONESSENTIAL = GENES[:20], GENES[20:40]
CONTROLS = ControlGenes(frozenset(ESSENTIAL), frozenset(NONESSENTIAL))
LINES = [f"ACH-{number:02d}" for number in range(N_LINES)]


def made_table(seed: int = 0) -> pd.DataFrame:
    """Lines with two replicates in two batches; essential genes at -2, what is a line's own of sd 0.5, noise 0.3."""
    rng = np.random.default_rng(seed)
    gene, k, line, replicate = (
        axis.ravel() for axis in np.meshgrid(range(N_GENES), range(N_SGRNAS), range(N_LINES), range(2), indexing="ij")
    )
    effect = np.where(np.arange(N_GENES) < 20, -2.0, 0.0)
    own = rng.normal(0, 0.5, (N_GENES, N_LINES))
    of_sgrna = rng.normal(0, 0.2, (N_GENES, N_SGRNAS))
    copies = np.exp2(rng.normal(0, 0.3, (N_GENES, N_LINES)))
    return pd.DataFrame(
        {
            "sgrna": [f"{GENES[g]}-{i}" for g, i in zip(gene, k, strict=True)],
            "hugo_symbol": np.array(GENES)[gene],
            "depmap_id": np.array(LINES)[line],
            "lineage": np.where(line % 2, "lung", "skin"),
            "replicate_id": np.where(replicate, "B", "A"),
            "p_dna_batch": np.where(line < 4, "first", "second"),
            "copy_number": copies[gene, line],
            "lfc": effect[gene] + own[gene, line] + of_sgrna[gene, k] + rng.normal(0, 0.3, len(gene)),
        }
    )


def screen_of(table: pd.DataFrame) -> Screen:
    return read_screen(table)
