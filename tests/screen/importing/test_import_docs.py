"""The commands and the program of docs/import.md run on small files of the names that it uses."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from documented import DOCS, Shown, run_page


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
    assert run_page(DOCS / "import.md") == Shown(n_commands=9, n_programs=1)
    assert set(pd.read_parquet("both.parquet")["screen"]) == {"broad", "sanger"}
