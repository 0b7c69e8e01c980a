"""A wide table is not held in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# In its own process: the peak of a process is never given back.
PEAK = """
import resource, sys
from pathlib import Path
from vihier.screen.importing import Centring, MappedFiles, import_depmap
folder = Path(sys.argv[1])
import_depmap(MappedFiles((folder / "BigLogfoldChange.csv",)), folder / "out.parquet", centring=Centring("median"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
N_SAMPLES = 400


def write_wide(folder: Path, n_sgrnas: int) -> None:
    folder.mkdir()
    samples = [f"LINE-{number // 2}_Rep{'AB'[number % 2]}" for number in range(N_SAMPLES)]
    values = np.random.default_rng(0).normal(size=(100, N_SAMPLES)).round(6)
    texts = [",".join(map(str, row)) for row in values.tolist()]
    with (folder / "BigLogfoldChange.csv").open("w") as file:
        file.write("," + ",".join(samples) + "\n")
        file.writelines(f"SG{number:06d},{texts[number % 100]}\n" for number in range(n_sgrnas))
    genes = "".join(f"SG{number:06d},G{number // 4} ({number // 4})\n" for number in range(n_sgrnas))
    (folder / "BigGuideMap.csv").write_text("sgRNA,Gene\n" + genes)
    lines = "".join(f"{sample},ACH-{number // 2:06d}\n" for number, sample in enumerate(samples))
    (folder / "ScreenSequenceMap.csv").write_text("SequenceID,ModelID\n" + lines)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    peaks = []
    for n_sgrnas in (20_000, 60_000):
        folder = tmp_path / str(n_sgrnas)
        write_wide(folder, n_sgrnas)
        command = [sys.executable, "-c", PEAK, str(folder)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        (folder / "BigLogfoldChange.csv").unlink()
    # 16 million more values are 128 MB as floats, 700 MB as rows; labels of 40,000 more sgRNAs take some.
    assert peaks[1] - peaks[0] < 60 * 1024
