"""The README's commands and programs run, in the order in which a newcomer meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documented import ROOT, blocks, run_page

README = ROOT / "README.md"


def test_the_readme_shows_what_it_must() -> None:
    commands = "".join(text for language, text in blocks(README) if language == "bash")
    for command in ("make demo", "make test", "vihier simulate", "vihier fit", "vihier summary"):
        assert command in commands
    for path in re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / path).is_file()


def test_its_folders_are_there() -> None:
    listed = re.findall(r"^  (\w+)/  ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    package = README.parent / "vihier"
    assert sorted(listed) == sorted(path.parent.name for path in package.glob("*/__init__.py"))


@pytest.mark.slow
def test_its_commands_and_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(README).n_programs == 2
    assert (tmp_path / "fit.h5").is_file()
    assert (tmp_path / "effect.csv").read_text().startswith("variable,hugo_symbol,depmap_id,mean,sd,")
