"""`vihier qc` as a newcomer, a script and a stranger's file meet it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from vihier.cli import main

sys.path.insert(0, str(Path(__file__).resolve().parent / "answers"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "quality"))

import known_effects
import made_screen

UNIT = ["--essential", "essential.txt", "--nonessential", "nonessential.txt"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen with one bad sgRNA, and lists of control genes, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, genes in {"essential.txt": made_screen.ESSENTIAL, "nonessential.txt": made_screen.NONESSENTIAL}.items():
        Path(name).write_text("\n".join(genes) + "\n")
    table = made_screen.made_table()
    table.loc[table["sgrna"] == "GENE30-1", "lfc"] -= 3
    table.to_parquet("screen.parquet")


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qc", "--help"]) == 0
    assert "vihier qc screen.parquet" in capsys.readouterr().out.split("Example")[1]


def test_a_person_is_told_what_is_flagged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qc", "screen.parquet", *UNIT]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("3,840 rows, 60 genes, 240 sgRNAs, 8 lines, 16 replicates, 1 flag\n")
    assert "sgRNA GENE30-1 of GENE30 has a mean lfc of" in said.out and "line auroc" in said.out
    assert said.err == ""
    assert main(["qc", "screen.parquet"]) == 0
    assert "without --essential and --nonessential" in capsys.readouterr().err


def test_a_script_gets_json_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qc", "screen.parquet", *UNIT, "--out", "quality", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["n_flags"] == 1 and said["flags"][0]["label"] == "GENE30-1"
    assert {each["measure"] for each in said["measured"]} > {"auroc", "correlation", "copy_number_correlation"}
    assert {Path(path).stem: rows for path, rows in said["out"].items()} == {
        "replicates": 16,
        "lines": 8,
        "sgrnas": 240,
        "genes": 60,
        "batches": 2,
        "copy_number": 10,
        "flags": 1,
    }
    assert len(pd.read_csv("quality/lines.csv")) == 8


def test_flags_alone_are_one_table() -> None:
    assert main(["qc", "screen.parquet", "--out", "flags.csv"]) == 0
    assert pd.read_csv("flags.csv")["label"].tolist() == ["GENE30-1"]


def test_a_store_is_judged_as_its_table_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "screen.parquet", "store.h5", "--quiet"]) == 0
    capsys.readouterr()
    for source in ("screen.parquet", "store.h5"):
        assert main(["qc", source, *UNIT]) == 0
    said = capsys.readouterr().out
    assert said[: len(said) // 2] == said[len(said) // 2 :]


def test_a_fit_is_judged_by_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    draws = known_effects.known_draws()
    draws["beta_dev"][..., 6] -= 7
    known_effects.write_known(Path("fit.h5"), draws)
    assert main(["qc", "fit.h5", "--out", "of_fit"]) == 0
    assert f"line {known_effects.LINES[6]}: beta_dev is" in capsys.readouterr().out
    assert sorted(path.name for path in Path("of_fit").iterdir()) == ["flags.csv", "lines.csv", "sgrnas.csv"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.parquet"], "no such file"),
        (["screen.parquet", "--out", "-"], "name a folder or a table"),
        (["screen.parquet", "--out", "essential.txt"], "is a file, and no table"),
        (["screen.parquet", "--out", "no/such/folder"], "make it first"),
        (["screen.parquet", "--essential", "essential.txt"], "give both"),
        (["screen.parquet", "--essential", "other.txt", "--nonessential", "nonessential.txt"], "none of the 2 listed"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.txt").write_text("SOME\nWHERE\n")
    assert main(["qc", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not Path("no").exists()
