"""The commands and the program of docs/answers.md run on a small fit of the names that it uses."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from known_effects import ESSENTIAL, LINES, NONESSENTIAL, KnownEffects

from vihier.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "answers.md"
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_its_commands_and_its_program_run(fit: KnownEffects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(fit.path, "fit.h5")
    for name, genes in {"CEGv2.txt": ESSENTIAL, "NEGv1.txt": NONESSENTIAL}.items():
        Path(name).write_text("\n".join(["GENE\tHGNC_ID", *(f"{gene}\t1" for gene in genes)]) + "\n")
    Path("mutant.csv").write_text("\n".join(["depmap_id", *LINES[:3]]))
    Path("wildtype.csv").write_text("\n".join(["ModelID,mutation", *(f"{line},none" for line in LINES[3:])]))
    n_commands = 0
    for language, text in BLOCKS:
        if language == "python":
            Path("program.py").write_text(text, encoding="utf-8")
            runpy.run_path("program.py")
            continue
        for line in text.splitlines():
            assert main(shlex.split(line)[1:]) == 0, line
            n_commands += 1
    assert n_commands == 12
    assert pd.read_csv("CRISPRGeneEffect.csv", index_col="ModelID").shape == (7, 12)
    assert pd.read_csv("skin.csv")["hugo_symbol"][0] == "BRAF"
