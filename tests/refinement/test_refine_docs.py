"""The commands and the program of docs/refine.md run on a small fit of the name that it uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from documented import DOCS, Shown, run_page
from refined_fit import Refined


def test_its_commands_and_its_program_run(refined: Refined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(refined.fit, "fit.h5")
    shutil.copy(refined.table, "screen.parquet")
    assert run_page(DOCS / "refine.md") == Shown(n_commands=4, n_programs=1)
    assert Path("compared.png").stat().st_size > 10_000 and Path("sbc.png").stat().st_size > 10_000
    assert len(Path("sbc.jsonl").read_text().splitlines()) == 3
