"""Run what a page of the documentation shows: its commands and programs, in the order in which a reader meets them."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vihier.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """How much of a page was run."""

    n_commands: int
    n_programs: int


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the page's blocks of `bash` and `python`; one fenced as `sh` or `text` is not for running."""
    yield from _BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text: str) -> Iterator[list[str]]:
    """Yield what the lines of a `bash` block type after ``vihier``; other lines are for the reader's own shell."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["vihier"]:
            yield words[1:]


def run_page(page: Path) -> Shown:
    """Run a page in the current folder, which has the files that it names; each command must end with status 0."""
    n_commands = n_programs = 0
    for language, text in blocks(page):
        if language == "python":
            n_programs += 1
            program = Path(f"{page.stem}_{n_programs}.py")
            program.write_text(text, encoding="utf-8")
            runpy.run_path(str(program))
            continue
        for arguments in commands(text):
            status = main(arguments)
            assert status == 0, f"{page.name}: vihier {shlex.join(arguments)}: status {status}"
            n_commands += 1
    return Shown(n_commands, n_programs)
