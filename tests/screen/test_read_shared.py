"""The real tables: both historic layouts, the reference screens, two libraries of 575,693 rows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.screen import read_screen

SHARED = Path(__file__).resolve().parents[3] / "shared"
pytestmark = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared data beside the repository")


def test_historic_layout_of_27_columns() -> None:
    screen = read_screen(SHARED / "data/speclet_rows_27.csv")
    assert screen.report.layout == "historic, 27 columns"
    assert (screen.n_rows, screen.n_genes, screen.n_lines, screen.n_lineages) == (5, 5, 5, 5)
    assert list(screen.index.categories["p_dna_batch"]) == ["3"]
    row = screen.to_frame().set_index("hugo_symbol").loc["BRAF"]
    assert row["lfc"] == -0.8632749647125966
    assert (row["chromosome"], row["lineage"], row["any_deleterious"], row["n_muts"]) == ("7", "thyroid", 0.0, 1.0)
    assert np.isnan(screen.to_frame().set_index("hugo_symbol").loc["SSX4B", "gene_cn"])
    assert len(screen.report.columns) == 27


def test_historic_layout_of_24_columns() -> None:
    screen = read_screen(SHARED / "data/speclet_rows_24.csv")
    assert screen.report.layout == "historic, 24 columns"
    assert (screen.n_rows, screen.n_genes, screen.n_sgrnas, screen.n_lines) == (7, 5, 5, 5)
    assert list(screen.index.categories["screen"]) == ["broad", "sanger"]
    assert list(screen.index.categories["p_dna_batch"]) == ["3", "4", "CRISPR_C6596666.sample"]
    rows = screen.to_frame().set_index(["hugo_symbol", "depmap_id"])
    assert np.isnan(rows.loc[("PRR11", "ACH-000341"), "counts_final"])
    assert rows.loc[("UBQLN2", "ACH-001517"), "is_mutated"] == 1.0
    # One line in both libraries has a replicate in each.
    assert [label for label in screen.index.replicates if label.startswith("ACH-001517")] == [
        "ACH-001517|HEC1-311cas9-RepA-p4_batch4|broad",
        "ACH-001517|HEC1_c907R1|sanger",
    ]
    assert len(screen.report.columns) == 24


@pytest.mark.parametrize(("case", "rows"), [("A.additive", 7_262), ("S.additive", 21_728)])
def test_reference_screens_have_the_labels_of_their_posteriors(case: str, rows: int) -> None:
    screen = read_screen(SHARED / f"reference/{case}/data.csv.gz")
    with np.load(SHARED / f"reference/{case}/reference.npz") as reference:
        for name in ("genes", "sgrnas", "lines", "lineages"):
            assert getattr(screen.index, name).tolist() == reference[name].tolist()
    assert screen.n_rows == rows


def test_two_libraries_are_read_whole_and_fast() -> None:
    path = SHARED / "data/avana_ky.parquet"
    started = time.perf_counter()
    screen = read_screen(path)
    taken = time.perf_counter() - started
    assert (screen.n_rows, screen.n_genes, screen.n_sgrnas, screen.n_lines) == (575_693, 887, 7_558, 58)
    assert (screen.n_lineages, screen.n_replicates) == (17, 155)
    assert np.isnan(screen.covariates["copy_number"]).sum() == 683
    # 0.4 s on two idle cores; the bound leaves room for a busy machine.
    assert taken < 5.0
    # Against pandas: the rows as a set, keyed by their labels.
    keys = ["sgrna", "depmap_id", "replicate_id", "screen"]
    theirs = pd.read_parquet(path).sort_values(keys, ignore_index=True)
    ours = screen.to_frame().sort_values(keys, ignore_index=True)
    for name in [*keys, "hugo_symbol", "lineage", "p_dna_batch"]:
        assert (ours[name].to_numpy() == theirs[name].to_numpy()).all(), name
    for name in ["lfc", "copy_number", "counts_final", "days"]:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_no_sequence_is_shared_by_the_two_libraries() -> None:
    # So the real data cannot show SEQUENCE|screen labels; a made table does.
    screen = read_screen(SHARED / "data/avana_ky.parquet")
    assert not any("|" in label for label in screen.index.sgrnas)
    assert screen.report.warnings == ()
