"""Memory and import cost of simulation."""

import subprocess
import sys
from pathlib import Path

import pytest

# In its own process: the peak of a process is never given back.
PEAK = """
import resource, sys
from vihier.screen.simulate import simulate
simulate(sys.argv[1], genes=int(sys.argv[2]), lines=1000, lineages=20, sgrnas=4, replicates=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(out: Path, genes: int) -> int:
    run = subprocess.run([sys.executable, "-c", PEAK, str(out), str(genes)], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    small = peak_kib(tmp_path / "small.parquet", 250)  # 2 million rows: more than the two row groups held at once
    large = peak_kib(tmp_path / "large.parquet", 1000)  # 8 million; 6 million more rows of 60 bytes would be 360 MB
    # The allocator may keep some pages; 40 MB is a ninth of what the rows themselves would take.
    assert large - small < 40 * 1024


def test_the_realistic_screen_does_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from vihier.screen.simulate import simulate; "
        f"simulate({str(tmp_path / 's.parquet')!r}, genes=2, lines=2, lineages=1); "
        "assert not {'torch', 'pyro'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
