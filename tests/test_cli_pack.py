"""`vihier pack` on the command line: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vihier
from vihier.cli import main


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "screen.csv"
    assert main(["simulate", str(path), "--genes", "4", "--lines", "6", "--lineages", "2"]) == 0
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
    return said.err


def test_a_packed_table_is_validated_like_the_table(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "screen.h5"
    assert main(["pack", str(table), str(store)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{store}\n"
    assert "rows read" in said.err and "reading MB" in said.err and "sorting 4/4" in said.err
    accounts = []
    for path in (table, store):
        assert main(["validate", "--json", str(path)]) == 0
        accounts.append(json.loads(capsys.readouterr().out))
    assert accounts[0] == accounts[1]
    assert accounts[0]["hash"] == vihier.read_screen(table).hash
    assert main(["validate", str(store)]) == 0
    assert "4 genes, 16 sgrnas, 6 lines, 2 lineages" in capsys.readouterr().out


def test_quiet_says_the_name_alone(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["pack", "-q", str(table), str(tmp_path / "s.h5"), "--covariates", "none"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{tmp_path / 's.h5'}\n", "")


def test_what_is_there_is_not_replaced_unasked(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "screen.h5"
    assert main(["pack", "-q", str(table), str(store)]) == 0
    assert "--force" in refused(capsys, "pack", table, store)
    assert main(["pack", "-q", "--force", "--covariates", "copy_number,rna_expr", str(table), str(store)]) == 0
    capsys.readouterr()
    assert main(["validate", "--json", str(store)]) == 0
    assert json.loads(capsys.readouterr().out)["ignored"].keys() == {"p_dna_batch", "is_mutated"}
    other = tmp_path / "posterior.h5"
    other.write_bytes(table.with_name("screen.truth.h5").read_bytes())
    for force in ([], ["--force"]):
        assert "is no store; name the store last" in refused(capsys, "pack", table, other, *force)
    assert "is there, and is no store" in refused(capsys, "pack", table, table)


def test_refusals_are_one_line(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "screen.h5"
    assert "nearest is 'copy_number'" in refused(capsys, "pack", table, store, "--covariates", "copynumber")
    assert "no such file" in refused(capsys, "pack", tmp_path / "missing.csv", store)
    assert "vihier pack --help" in refused(capsys, "pack", table)
    bad = tmp_path / "bad.csv"
    bad.write_text(table.read_text() + "x,y,z\n")
    assert "3 fields" in refused(capsys, "pack", "-q", bad, store)
    assert list(tmp_path.iterdir()) == [bad]
    truth = table.with_name("screen.truth.h5")
    assert "not a store" in refused(capsys, "validate", truth)
    assert main(["pack", "-q", str(table), str(store)]) == 0
    assert "as it was packed" in refused(capsys, "validate", store, "--single-lineage")
