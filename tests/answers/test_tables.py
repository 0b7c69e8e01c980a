"""Tables read back as they were, whatever the labels, and whole or not at all."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.answers.tables import write_frame, write_matrix, write_rows
from vihier.errors import VihierError

AWKWARD = ["A,B", 'C"D', "<script>alert(1)</script>", "tab\there"]


def matrix(genes: list[str]) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(5, len(genes))).astype(np.float32)
    return pd.DataFrame(values, index=pd.Index([f"ACH-{i}" for i in range(5)], name="ModelID"), columns=genes)


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep="\t" if ".tsv" in path.name else ",")


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.csv.gz", "m.parquet"])
@pytest.mark.parametrize("genes", [["BRAF", "NKX2-1"], AWKWARD])
def test_a_matrix_reads_back(name: str, genes: list[str], tmp_path: Path) -> None:
    expected = matrix(genes)
    assert write_matrix(expected, tmp_path / name) == 5
    got = read(tmp_path / name).set_index("ModelID").astype(np.float32)
    # Text holds the shortest digits that give the same float32 back.
    pd.testing.assert_frame_equal(got, expected, check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_matrix_is_written_some_lines_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_matrix(matrix(["BRAF", "KRAS"]), tmp_path / "whole.csv")
    monkeypatch.setattr("vihier.answers.tables._LINES_AT_ONCE", 2)
    assert write_matrix(matrix(["BRAF", "KRAS"]), tmp_path / "parts.csv") == 5
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "parts.csv").read_bytes()


def test_plain_labels_stand_without_quotation_marks(tmp_path: Path) -> None:
    write_matrix(matrix(["BRAF", "NKX2-1"]), tmp_path / "m.csv")
    header, first, *_ = (tmp_path / "m.csv").read_text().splitlines()
    assert header == "ModelID,BRAF,NKX2-1" and first.startswith("ACH-0,0.1257302")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.parquet"])
def test_a_table_with_awkward_labels_and_gaps_reads_back(name: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"hugo_symbol": AWKWARD, "mean": [0.5, np.nan, -1.0, 2.0], "hit": [True, False, True, True]})
    assert write_frame(table, tmp_path / name) == 4
    got = read(tmp_path / name)
    pd.testing.assert_frame_equal(got, table, check_dtype=False)
    if name == "t.tsv.gz":
        with gzip.open(tmp_path / name, "rt", newline="") as text:
            assert [row[0] for row in csv.reader(text, delimiter="\t")][1:] == AWKWARD


def test_a_failure_half_way_leaves_the_earlier_table(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    out.write_text("earlier\n")

    def blocks():  # type: ignore[no-untyped-def]
        yield pd.DataFrame({"hugo_symbol": ["A"]})
        raise VihierError("half way")

    with pytest.raises(VihierError, match="half way"):
        write_rows(blocks(), out)
    assert out.read_text() == "earlier\n" and list(tmp_path.iterdir()) == [out]
