"""`hits`, `contrast` and `export` as a newcomer, a script and a stranger's file meet them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.answers import contrast, control_scaling, effect_matrix, hits
from vihier.cli import main
from vihier.diagnostics.control_genes import ControlGenes
from vihier.posterior.reader import Posterior, open_posterior

sys.path.insert(0, str(Path(__file__).resolve().parent / "answers"))

from known_effects import ESSENTIAL, LINES, NONESSENTIAL, known_draws, write_known

CONTROLS = ControlGenes(frozenset(ESSENTIAL), frozenset(NONESSENTIAL))
UNIT = ["--essential", "essential.txt", "--nonessential", "nonessential.txt"]
SKIN = [LINES[0], LINES[2], LINES[5]]


@pytest.fixture
def post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Posterior]:
    """A fit in the working folder, with lists of control genes beside it."""
    monkeypatch.chdir(tmp_path)
    for name, genes in {"essential.txt": ESSENTIAL, "nonessential.txt": NONESSENTIAL}.items():
        Path(name).write_text("\n".join(genes) + "\n")
    with open_posterior(write_known(tmp_path / "fit.h5", known_draws())) as opened:
        yield opened


@pytest.mark.parametrize("command", ["hits", "contrast", "export"])
def test_help_has_an_example_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"vihier {command} fit.h5" in capsys.readouterr().out.split("Example")[1]


def test_hits_are_those_of_the_function(post: Posterior, capsys: pytest.CaptureFixture[str]) -> None:
    expected = hits(post, "lineage", selective=True, fdr=0.1, controls=CONTROLS)
    asked = ["hits", "fit.h5", "--by", "lineage", "--selective", "--fdr", "0.1", *UNIT]
    assert main([*asked, "--out", "hits.parquet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_hits"], said["n_tested"]) == (len(expected.table), 36) and said["out"] == "hits.parquet"
    assert "rows" not in said
    pd.testing.assert_frame_equal(pd.read_parquet("hits.parquet"), expected.table, check_dtype=False)
    assert main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["hugo_symbol"] for row in rows] == expected.table["hugo_symbol"].tolist()
    assert main([*asked, "--out", "-"]) == 0
    printed = pd.read_csv(io.StringIO(capsys.readouterr().out))
    np.testing.assert_allclose(printed["mean"], expected.table["mean"], rtol=1e-6)


def test_a_person_is_told_how_many_and_the_first_of_them(post: Posterior, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hits", "fit.h5", "--by", "line", *UNIT]) == 0
    said = capsys.readouterr()
    heading, _, first = said.out.splitlines()[:3]
    assert heading.startswith("84 genes in lines: ") and "expected to have the wrong sign" in heading
    assert first.split()[0] in ESSENTIAL
    assert "--out" in said.err


def test_without_a_unit_it_is_said_that_nearly_everything_is_a_hit(
    post: Posterior, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hits", "fit.h5", "--by", "line", "--fdr", "0.4"]) == 0
    assert "--essential" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["--lineage", "skin"], []),
        (["--lineage", "skin"], ["--against", "rest"]),
        (["--line", ",".join(SKIN)], ["--against", "bone,lung"]),
        (["--line", "@skin.csv"], ["--against", "@others.txt"]),
        (["--lineage", "skin", "--line", SKIN[0]], ["--against", "bone", "--against", f"{LINES[3]},{LINES[6]}"]),
    ],
)
def test_sets_of_lines_are_named_in_any_way(
    first: list[str], second: list[str], post: Posterior, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [line for line in LINES if line not in SKIN]
    Path("skin.csv").write_text("\n".join(["ModelID,drug", *(f"{line},x" for line in SKIN)]))
    Path("others.txt").write_text("\n".join(others))
    assert main(["contrast", "fit.h5", *first, *second, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (set(said["lines"]), set(said["against"])) == (set(SKIN), set(others))
    expected = contrast(post, SKIN).table
    got = pd.DataFrame(said["rows"])
    assert got["hugo_symbol"].tolist() == expected["hugo_symbol"].tolist()
    np.testing.assert_allclose(got["difference"], expected["difference"], rtol=1e-5)  # JSON has ten digits of float32


def test_exported_effects_have_the_unit_asked_for(post: Posterior, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "fit.h5", "--out", "effect.csv", *UNIT, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n_rows"], said["n_essential"], said["n_nonessential"]) == (7, 4, 4)
    got = pd.read_csv("effect.csv")
    assert got.columns[0] == "ModelID"
    expected = effect_matrix(post, scaling=control_scaling(post, CONTROLS))
    pd.testing.assert_frame_equal(got.set_index("ModelID").astype(np.float32), expected, check_exact=True)
    assert main(["export", "fit.h5", "--out", "plain.csv"]) == 0
    plain = pd.read_csv("plain.csv", index_col=0).astype(np.float32)
    pd.testing.assert_frame_equal(plain, effect_matrix(post), check_exact=True)


@pytest.mark.parametrize("table", ["sd", "dependency", "long", "sgrnas", "lines"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".parquet"])
def test_every_table_is_written_in_every_form(table: str, suffix: str, post: Posterior) -> None:
    assert main(["export", "fit.h5", "--table", table, "--out", f"t{suffix}", *UNIT]) == 0
    if suffix == ".parquet":
        got = pd.read_parquet("t.parquet")
    else:
        got = pd.read_csv(f"t{suffix}", sep="\t" if "tsv" in suffix else ",")
    assert len(got) == {"long": 84, "sgrnas": 30}.get(table, 7)


def test_a_fit_that_did_not_converge_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_known(tmp_path / "short.h5", known_draws(), converged=False)
    assert main(["contrast", str(path), "--lineage", "skin"]) == 0
    assert "did not converge" in capsys.readouterr().err


REFUSED = {
    "hits of no fit": (["hits", "absent.h5"], "absent.h5"),
    "one list alone": (["hits", "fit.h5", "--essential", "essential.txt"], "--nonessential"),
    "a list that is absent": (["hits", "fit.h5", "--essential", "no.txt", "--nonessential", "no.txt"], "no.txt"),
    "a list that is a fit": (["hits", "fit.h5", "--essential", "fit.h5", "--nonessential", "essential.txt"], "fit.h5"),
    "the same list twice": (
        ["hits", "fit.h5", "--essential", "essential.txt", "--nonessential", "essential.txt"],
        "both",
    ),
    "lists of others": (
        ["hits", "fit.h5", "--essential", "stranger.txt", "--nonessential", "essential.txt"],
        "none of",
    ),
    "lists turned round": (
        ["export", "fit.h5", "--essential", "nonessential.txt", "--nonessential", "essential.txt", "--out", "t.csv"],
        "is not below",
    ),
    "a rate of 5 per cent": (["hits", "fit.h5", "--fdr", "5"], "0.05"),
    "selective genes": (["hits", "fit.h5", "--selective"], "lineage"),
    "an unknown level": (["hits", "fit.h5", "--by", "cell"], "lineage"),
    "no set": (["contrast", "fit.h5"], "--lineage skin"),
    "an unknown lineage": (["contrast", "fit.h5", "--lineage", "sking"], "'skin'"),
    "an unknown line": (["contrast", "fit.h5", "--line", "ACH-1"], "ACH-1"),
    "an unknown file": (["contrast", "fit.h5", "--line", "@no.csv"], "no.csv"),
    "a line in both sets": (["contrast", "fit.h5", "--lineage", "skin", "--against", LINES[0]], LINES[0]),
    "the rest and more": (["contrast", "fit.h5", "--lineage", "skin", "--against", "rest,lung"], "alone"),
    "json and csv at once": (["contrast", "fit.h5", "--lineage", "skin", "--json", "--out", "-"], "--json"),
    "an unknown suffix": (["export", "fit.h5", "--out", "t.xlsx"], ".csv"),
    "no such folder": (["export", "fit.h5", "--out", "nowhere/t.csv"], "nowhere"),
    "dependency on nothing": (["export", "fit.h5", "--table", "dependency", "--out", "t.csv"], "--essential"),
    "a matrix to the terminal": (["export", "fit.h5", "--out", "-"], "name a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_in_one_line(
    case: str, post: Posterior, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("stranger.txt").write_text("gene\n<script>alert(1)</script>\nXYZ\n")
    before = sorted(tmp_path.iterdir())
    arguments, named = REFUSED[case]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and named in said.err
    assert "Traceback" not in said.err
    assert sorted(tmp_path.iterdir()) == before
