"""What each case holds out, its scores by hand, and coverage on a part of the real screens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import prediction_cases
from prediction_cases import PROB, cases, score, study

import vihier

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "avana_ky.parquet"


def made_table() -> pd.DataFrame:
    """Ten genes of two to four sgRNAs in nine lines of three lineages, two replicates each."""
    random = np.random.default_rng(0)
    rows = [
        (f"s{g}-{k}", f"G{g}", f"ACH-{c}", f"lineage {c % 3}", f"{r}", random.normal())
        for g in range(10)
        for k in range(2 + g % 3)
        for c in range(9)
        for r in range(2)
    ]
    return pd.DataFrame(rows, columns=["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc"])


def test_what_is_held_out_in_each_case() -> None:
    table = made_table()
    times = {name: masks for name, masks, _ in cases(table, seed=1)}
    held = {name: (table[masks[0]], table[~masks[0]]) for name, masks in times.items()}
    assert list(held) == ["rows", "replicate", "sgrna", "line", "lineage", "gene"]
    assert len(held["rows"][0]) == round(0.1 * len(table))
    test, train = held["replicate"]
    assert len(test[["depmap_id", "replicate_id"]].drop_duplicates()) == 9 == train["depmap_id"].nunique()
    test, train = held["sgrna"]
    # One of each gene of three or four.
    assert test["sgrna"].nunique() == 6 == test["hugo_symbol"].nunique() and train["hugo_symbol"].nunique() == 10
    assert not set(test["sgrna"]) & set(train["sgrna"])
    test, train = held["line"]
    assert not set(test["depmap_id"]) & set(train["depmap_id"]) and train["lineage"].nunique() == 3
    # Every line, and every lineage, has its turn once: three lines of a lineage in three turns, three lineages in four.
    for name, n_elements in (("line", [3, 3, 3]), ("lineage", [1, 1, 1, 0])):
        column = "depmap_id" if name == "line" else "lineage"
        assert sorted((table.loc[mask, column].nunique() for mask in times[name]), reverse=True) == n_elements
        assert (np.sum(times[name], axis=0) == 1).all()
    test, train = held["gene"]
    assert not set(test["hugo_symbol"]) & set(train["hugo_symbol"]) and test["hugo_symbol"].nunique() == 2


def test_scores_by_hand() -> None:
    predicted = pd.DataFrame(
        {"lfc": [0.0, 2, 0, 0], "eti_5%": -1.0, "eti_95%": 1.0, "log_density": [-1.0, -3, -1, -1], "new": "line"}
    ).assign(depmap_id=list("aabb"))
    found = score(predicted, ["depmap_id"])
    # Lines a and b have one and two of two inside: sums of deviations from 3/4 are -1/2 and 1/2.
    assert found["coverage"] == 0.75 and found["log_density"] == -1.5 and found["held_out_elements"] == 2
    assert found["se"] == pytest.approx(0.5**0.5 / 4, abs=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/avana_ky.parquet is not beside the checkout")
def test_intervals_of_new_elements_cover_real_rows() -> None:
    table = vihier.read_screen(REAL).subset(n_genes=40, seed=0).to_frame()
    # The likelihood of whole screens; so few genes would have Normal rows.
    likelihood = {"likelihood": "student_t", "noise": "replicate"}
    found = study(table, ["rows", "replicate", "sgrna"], 0, model="additive", draws=300, **likelihood)
    for name, case in found.items():
        # 87 to 93 %, and twice the standard error of so few elements.
        assert abs(case["coverage"] - PROB) < 0.03 + 2 * case["se"], (name, case)


def test_an_unknown_place_of_the_data_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["prediction_cases.py", str(tmp_path / "nowhere.parquet")])
    with pytest.raises(SystemExit) as ended:
        prediction_cases.main()
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1
