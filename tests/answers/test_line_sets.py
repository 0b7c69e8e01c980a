"""Sets of lines by lineage, name and file; what names none is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_effects import LINES, KnownEffects

from vihier.answers.line_sets import lines_of, lines_of_lineages, other_lines
from vihier.errors import VihierError


def test_names_are_lineages_or_lines(fit: KnownEffects) -> None:
    assert lines_of(fit.post, ["skin"]) == lines_of_lineages(fit.post, ["skin"]) == [LINES[0], LINES[2], LINES[5]]
    assert lines_of(fit.post, [LINES[6], "bone", LINES[1]]) == [LINES[1], LINES[4], LINES[6]]
    assert other_lines(fit.post, LINES[1:]) == LINES[:1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.txt", f"{LINES[2]}\n{LINES[0]}\nACH-999999\n"),
        ("table.csv", f"ModelID,drug\nACH-999999,x\n{LINES[2]},y\n{LINES[0]},y\n"),
        ("table.tsv", f"lineage\tdepmap_id\nskin\t{LINES[2]}\nskin\t{LINES[0]}\n"),
    ],
)
def test_a_file_lists_lines_of_which_the_fit_has_some(name: str, text: str, fit: KnownEffects, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert lines_of(fit.post, [f"@{tmp_path / name}"]) == [LINES[0], LINES[2]]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("skinn", "'skin'"),
        ("ACH-00004", "the nearest is 'ACH-0000"),
        ("@absent.csv", "absent.csv"),
        ("@strangers.csv", "none of the 2 lines"),
        ("@empty.csv", "empty"),
        ("@pickle.csv", "pickle"),
        ("@folder", "folder"),
    ],
)
def test_what_names_no_line_is_refused(
    name: str, named: str, fit: KnownEffects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("strangers.csv").write_text("depmap_id\nACH-888888\nACH-999999\n")
    Path("empty.csv").touch()
    Path("pickle.csv").write_bytes(b"\x80\x04\x95.\n")
    Path("folder").mkdir()
    with pytest.raises(VihierError, match=named) as caught:
        lines_of(fit.post, [name])
    assert "\n" not in str(caught.value)


def test_an_unknown_lineage_is_refused_with_those_there_are(fit: KnownEffects) -> None:
    with pytest.raises(VihierError, match="bone, lung, skin"):
        lines_of_lineages(fit.post, ["pancreas"])
