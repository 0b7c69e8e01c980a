"""The commands and the program of docs/import.md run on small files of the names that it uses."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pandas as pd
import pytest

from vihier.cli import main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "import.md"
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_its_commands_and_its_program_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for library in ("Avana", "KY"):
        for name in ("Readcounts.hdf5", "SequenceMap.csv", "GuideMap.csv"):
            Path(f"{library}{name}").write_bytes((folder / f"chronos/Tiny{name}").read_bytes())
    for name in ("depmap/AvanaLogfoldChange.csv", "depmap/ScreenSequenceMap.csv", "depmap/Model.csv"):
        (folder / name).rename(Path(name).name)
    for name in ("mageck/counts.txt", "mageck/samples.csv", "bagel/HCT116.foldchange", "chronos/lines.csv"):
        (folder / name).rename(Path(name).name)
    Path("replicates.csv").write_text("sample,depmap_id\nT18_A,HCT116\nT18_B,HCT116\n")
    Path("OmicsCNGene.csv").write_text(",BRAF (673)\nACH-000004,1.5\n")
    n_commands = 0
    for language, text in BLOCKS:
        if language == "python":
            Path("program.py").write_text(text, encoding="utf-8")
            runpy.run_path("program.py")
            continue
        for line in text.splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
            n_commands += 1
    assert n_commands == 8
    assert set(pd.read_parquet("both.parquet")["screen"]) == {"broad", "sanger"}
