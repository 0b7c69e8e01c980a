"""Control genes as their authors' files list them, and their separation against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.diagnostics.control_genes import ControlGenes, precision_recall, read_control_genes, separation
from vihier.errors import VihierError

GENE_SETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "gene_sets"
SHARED = pytest.mark.skipif(not GENE_SETS.exists(), reason="no ../shared/data/gene_sets beside the repository")


def test_separation_by_hand() -> None:
    effect = pd.DataFrame(
        [[-2.0, -1.0, 0.0, 1.0, 3.0], [0.0, 2.0, 0.0, np.nan, 1.0]],
        index=["line 1", "line 2"],
        columns=["e1", "e2", "n1", "n2", "n3"],
    )
    got = separation(effect, ControlGenes({"e1", "e2", "absent"}, {"n1", "n2", "n3"}))
    # Line 1: all essential below all others; medians -1.5 and 1, MAD of (0, 1, 3) is 1.
    # Line 2: of the four pairs e1 ties with n1 and is below n3, e2 is above both: 1.5 / 4; (1 - 0.5) / 0.5.
    np.testing.assert_allclose(got["auroc"], [1.0, 0.375])
    np.testing.assert_allclose(got["nnmd"], [-2.5, 1.0])
    assert list(got.index) == ["line 1", "line 2"]


@SHARED
def test_the_reference_sets_are_read_whole() -> None:
    hart = read_control_genes(GENE_SETS / "CEGv2.txt", GENE_SETS / "NEGv1.txt")
    # 927 rows, SLC34A1 twice.
    assert (len(hart.essential), len(hart.nonessential)) == (684, 926)
    names = ("AchillesCommonEssentialControls.csv", "AchillesNonessentialControls.csv")
    achilles = read_control_genes(*(GENE_SETS / name for name in names))
    assert "AAMP" in achilles.essential and "ABCG8" in achilles.nonessential


def refusal(essential: str | bytes, nonessential: str, folder: Path) -> str:
    """Write two lists that must be refused, read them, and return the one line that is said."""
    for name, text in (("essential.txt", essential), ("nonessential.txt", nonessential)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VihierError) as caught:
        read_control_genes(folder / "essential.txt", folder / "nonessential.txt").among(["KRAS", "TP53"])
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("essential", "nonessential", "named"),
    [
        ("RPL3\nKRAS\n", "KRAS\nOR1A1\n", "'KRAS' is in both"),
        ("RPL3\nRPL4\n", "KRAS\nTP53\n", "essential genes: none of the 2 listed"),
        ("gene\nKRAS (3845)\n", "gene\nOR1A1\n", "non-essential genes: none of the 1 listed"),
        ("", "KRAS\nOR1A1\n", "essential.txt"),
        (b"\x80\x04\x95\x00\x00pickle\n", "KRAS\nOR1A1\n", "pickle"),
        ("<html>\n<body>\n", "KRAS\nOR1A1\n", "web page"),
    ],
)
def test_bad_lists_are_refused_in_one_line(
    essential: str | bytes, nonessential: str, named: str, tmp_path: Path
) -> None:
    assert named in refusal(essential, nonessential, tmp_path)


def test_a_missing_list_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VihierError, match=r"absent\.txt"):
        read_control_genes(tmp_path / "absent.txt", tmp_path / "absent.txt")


def test_precision_and_recall_by_hand() -> None:
    effect = pd.DataFrame(
        [[-3.0, -1.0, 2.0, -2.0, 0.0], [0.0, 5.0, np.nan, 0.0, 6.0]],
        columns=["e1", "e2", "e3", "n1", "n2"],
    )
    got = precision_recall(effect, ControlGenes({"e1", "e2", "e3"}, {"n1", "n2"}))
    # First: e1, n1, e2, n2, e3: precisions 1, 2/3 and 3/5 at the essential ones; all were essential up to e1.
    # Second: n1 before e1, with which it ties, then e2, n2; e3 is missing: 1/2 and 2/3, and never all essential.
    np.testing.assert_allclose(got["average_precision"], [(1 + 2 / 3 + 3 / 5) / 3, (1 / 2 + 2 / 3) / 2])
    np.testing.assert_allclose(got["recall"], [1 / 3, 0.0])


def test_recall_lets_in_five_in_a_hundred() -> None:
    # 19 essential genes, a non-essential one, then 20 more essential ones and another 5 that are not.
    kinds = [*"e" * 19, "n", *"e" * 20, *"n" * 5]
    names = [f"{kind}{place}" for place, kind in enumerate(kinds)]
    effect = pd.DataFrame([np.arange(len(kinds), dtype=float)], columns=names)
    controls = ControlGenes({n for n in names if n[0] == "e"}, {n for n in names if n[0] == "n"})
    # 19 of 20 are 95 %, and 39 of 40 more.
    assert precision_recall(effect, controls)["recall"][0] == 1.0


def test_a_line_without_one_kind_of_gene_or_without_spread_has_no_number() -> None:
    nan = np.nan
    effect = pd.DataFrame(
        [[nan, nan, 0.0, 1.0], [-1.0, 0.0, nan, nan], [-1.0, 0.0, 2.0, 2.0]], columns=["e1", "e2", "n1", "n2"]
    )
    controls = ControlGenes({"e1", "e2"}, {"n1", "n2"})
    got = separation(effect, controls)
    np.testing.assert_array_equal(got["auroc"], [nan, nan, 1.0])
    np.testing.assert_array_equal(got["nnmd"], [nan, nan, nan])
    assert np.isnan(precision_recall(effect, controls)["average_precision"][0])
