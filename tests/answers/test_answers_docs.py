"""The commands and the program of docs/answers.md run on a small fit of the names that it uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from documented import DOCS, Shown, run_page
from known_effects import ESSENTIAL, LINES, NONESSENTIAL, KnownEffects


def test_its_commands_and_its_program_run(fit: KnownEffects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(fit.path, "fit.h5")
    for name, genes in {"CEGv2.txt": ESSENTIAL, "NEGv1.txt": NONESSENTIAL}.items():
        Path(name).write_text("\n".join(["GENE\tHGNC_ID", *(f"{gene}\t1" for gene in genes)]) + "\n")
    Path("mutant.csv").write_text("\n".join(["depmap_id", *LINES[:3]]))
    Path("wildtype.csv").write_text("\n".join(["ModelID,mutation", *(f"{line},none" for line in LINES[3:])]))
    assert run_page(DOCS / "answers.md") == Shown(n_commands=12, n_programs=1)
    assert pd.read_csv("CRISPRGeneEffect.csv", index_col="ModelID").shape == (7, 12)
    assert pd.read_csv("skin.csv")["hugo_symbol"][0] == "BRAF"
