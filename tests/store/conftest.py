"""Tables in several files, and chunks, groups and pieces so small that small tables have many."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vihier.store import chunks, rows, sorting, tables


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chunks, tables):
        monkeypatch.setattr(module, "CHUNK_ROWS", 50)
    monkeypatch.setattr(sorting, "GROUP_ROWS", 60)
    monkeypatch.setattr(rows, "PIECE_ROWS", 40)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Ragged genes of 1 to 5 sgRNAs, 9 lines in 3 lineages, two screens, and covariates of every kind; 388 rows."""
    random = np.random.default_rng(5)
    listed = []
    for gene in range(12):
        for sgrna in range(1 + gene % 5):
            for line in range(9):
                for replicate in "AB":
                    if random.random() < 0.6:
                        # Names against the order of the numbers, so that a map by order of appearance shows.
                        labels = (f"S{99 - gene}{sgrna}", f"G{(gene * 7) % 12:02d}", f"ACH-{8 - line}", f"l{line % 3}")
                        listed.append((*labels, replicate, "broad" if line % 2 else "sanger"))
    table = pd.DataFrame(listed, columns=["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "screen"])
    n = len(table)
    return table.assign(
        lfc=np.round(random.normal(size=n), 6),
        copy_number=np.where(random.random(n) < 0.1, np.nan, random.normal(size=n)),
        is_mutated=random.random(n) < 0.3,
        p_dna_batch=random.choice(["1", "2", "x"], n),
    ).sample(frac=1, random_state=3, ignore_index=True)
