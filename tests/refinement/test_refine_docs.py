"""The commands and the program of docs/refine.md run on a small fit of the name that it uses."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from refined_fit import Refined

from vihier.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "refine.md"
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_its_commands_and_its_program_run(refined: Refined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(refined.fit, "fit.h5")
    shutil.copy(refined.table, "screen.parquet")
    n_commands = 0
    for language, text in BLOCKS:
        if language == "python":
            Path("program.py").write_text(text, encoding="utf-8")
            runpy.run_path("program.py")
            continue
        for line in text.splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
            n_commands += 1
    assert n_commands == 4
    assert Path("compared.png").stat().st_size > 10_000 and Path("sbc.png").stat().st_size > 10_000
    assert len(Path("sbc.jsonl").read_text().splitlines()) == 4
