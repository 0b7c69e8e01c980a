"""The README's commands and programs run, in the order in which a newcomer meets them."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from vihier.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_the_readme_shows_what_it_must() -> None:
    commands = "".join(text for language, text in BLOCKS if language == "bash")
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
    n_programs = 0
    for language, text in BLOCKS:
        if language == "python":
            n_programs += 1
            program = tmp_path / f"readme_{n_programs}.py"
            program.write_text(text, encoding="utf-8")
            runpy.run_path(str(program))
            continue
        for line in text.splitlines():
            command = shlex.split(line, comments=True)
            if command[:1] == ["vihier"]:
                assert main(command[1:]) == 0
    assert n_programs == 3
    assert (tmp_path / "fit.h5").is_file()
    assert (tmp_path / "effect.csv").read_text().startswith("variable,hugo_symbol,depmap_id,mean,sd,")
