"""`vihier import` as a newcomer meets it: each format is imported, validated and fitted."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from vihier.cli import main

GENES = ["AARS", "ABCG8", "BRAF", "KRAS"]
SGRNAS = [f"{gene}_{number}" for gene in GENES for number in (1, 2, 3)]
SAMPLES = ["HEL_A", "HEL_B", "KU_A", "KU_B"]
LINES = ["ACH-000004", "ACH-000004", "ACH-000074", "ACH-000074"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the same made screen in every format, and in it."""
    monkeypatch.chdir(tmp_path)
    depth = [100 + 7 * place for place in range(len(SGRNAS))]
    loss = [4 if sgrna.startswith("AARS") else 1 for sgrna in SGRNAS]
    final = {
        sample: [reads // fold + 3 * number for reads, fold in zip(depth, loss, strict=True)]
        for number, sample in enumerate(SAMPLES)
    }
    counts = pd.DataFrame({"pool": depth, **final}, index=SGRNAS)
    counts.T.to_csv("TinyReadcounts.csv")
    batches = pd.DataFrame({"sequence_ID": ["pool", *SAMPLES], "cell_line_name": ["pDNA", *LINES], "pDNA_batch": 1})
    batches.to_csv("TinySequenceMap.csv", index=False)
    pd.DataFrame({"sgrna": SGRNAS, "gene": [f"{s[:-2]} (1)" for s in SGRNAS]}).to_csv("TinyGuideMap.csv", index=False)
    Path("Model.csv").write_text("ModelID,OncotreeLineage\nACH-000004,Myeloid\nACH-000074,Lymphoid\n")
    genes = pd.Series([sgrna[:-2] for sgrna in SGRNAS], index=SGRNAS, name="Gene")
    pd.concat([genes, counts], axis=1).to_csv("counts.txt", sep="\t", index_label="sgRNA")
    roles = ["initial"] + ["final"] * 4
    sheet = pd.DataFrame({"sample": ["pool", *SAMPLES], "depmap_id": ["", *LINES], "role": roles})
    sheet.to_csv("samples.csv", index=False)
    lfc = counts[SAMPLES].apply(lambda column: (column + 1) / (counts["pool"] + 1)) - 1
    lfc.to_csv("TinyLogfoldChange.csv")
    pd.concat([genes, lfc], axis=1).to_csv("all.foldchange", sep="\t", index_label="REAGENT_ID")
    sheet.iloc[1:, :2].to_csv("replicates.csv", index=False)
    return tmp_path


COMMANDS = {
    "chronos": ["chronos", "TinyReadcounts.csv"],
    "depmap": ["depmap", "TinyLogfoldChange.csv"],
    "mageck": ["mageck", "counts.txt", "--samples", "samples.csv", "--line-map", "Model.csv"],
    "bagel": ["bagel", "all.foldchange", "--samples", "replicates.csv", "--line-map", "Model.csv"],
    "h5ad": ["h5ad", "screen.h5ad"],
}


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("out", ["screen.parquet", "screen.csv.gz"])
def test_import_validate_fit(kind: str, out: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "h5ad":
        pytest.importorskip("anndata", reason="the extra 'anndata' is not installed")
        assert main(["import", *COMMANDS["chronos"], "--out", "screen.h5ad"]) == 0
    assert main(["import", *COMMANDS[kind], "--out", out]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 48 rows, 4 genes, 12 sgRNAs, 2 lines, 4 replicates" in said
    assert said.endswith(f"next: vihier validate {out}\n")
    assert main(["validate", out, "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert (account["n_rows_kept"], account["n_lineages"], account["n_replicates"]) == (48, 2, 4)
    fit = ["--guide", "mean_field", "--max-steps", "3", "--draws", "5", "--quiet"]
    assert main(["fit", out, "--out", "fit.h5", *fit]) == 0
    assert (here / "fit.h5").is_file()


def test_the_report_as_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", *COMMANDS["chronos"], "--out", "screen.csv", "--no-rpm", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_rows"] == 48 and report["lfc"] == "log2(reads + 1) minus the mean of its plasmid batch"
    assert report["files"] == [
        "TinyReadcounts.csv, TinySequenceMap.csv, TinyGuideMap.csv",
        "Model.csv (lineages)",
    ]


def test_alone_it_shows_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import"]) == 0
    said = capsys.readouterr().out
    assert all(f"vihier import {kind} " in said for kind in COMMANDS)


@pytest.mark.parametrize("kind", COMMANDS)
def test_help_has_an_example_of_each_format(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", kind, "--help"]) == 0
    assert f"vihier import {kind} " in capsys.readouterr().out.split("Example")[1]


def test_an_unknown_format_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "excel", "book.xlsx", "--out", "screen.csv"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "excel" in said and "vihier import --help" in said
