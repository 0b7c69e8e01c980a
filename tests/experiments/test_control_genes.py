"""Separation of control genes against values worked out by hand, and against the project's independent check."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
GENE_SETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "gene_sets"
sys.path.insert(0, str(EXPERIMENTS))

from control_genes import read_gene_sets, separation  # noqa: E402


def test_by_hand() -> None:
    effect = pd.DataFrame(
        [[-2.0, -1.0, 0.0, 1.0, 3.0], [0.0, 2.0, 0.0, np.nan, 1.0]],
        index=["line 1", "line 2"],
        columns=["e1", "e2", "n1", "n2", "n3"],
    )
    got = separation(effect, {"e1", "e2", "absent"}, {"n1", "n2", "n3"})
    # Line 1: all essential below all others; medians -1.5 and 1, MAD of (0, 1, 3) is 1.
    # Line 2: of the four pairs e1 ties with n1 and is below n3, e2 is above both: 1.5 / 4; (1 - 0.5) / 0.5.
    np.testing.assert_allclose(got["auroc"], [1.0, 0.375])
    np.testing.assert_allclose(got["nnmd"], [-2.5, 1.0])
    assert list(got.index) == ["line 1", "line 2"]


@pytest.mark.skipif(not GENE_SETS.exists(), reason="no ../shared/data/gene_sets beside the repository")
def test_the_reference_sets_are_read_whole() -> None:
    sets = read_gene_sets(GENE_SETS)
    # 927 rows, SLC34A1 twice.
    assert (len(sets["hart"][0]), len(sets["hart"][1])) == (684, 926)
    assert "AAMP" in sets["achilles"][0] and "ABCG8" in sets["achilles"][1]
    assert not sets["achilles"][0] & sets["achilles"][1]
