"""The experiment on whole screens, on a part of one: it prints what it took, and intervals cover the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "genome_scale.py"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [("normal", "global"), ("student_t", "replicate")])
def test_a_five_hundredth_of_a_whole_screen(rows: tuple[str, str]) -> None:
    """36 genes, in 200 of its 1,000 lines."""
    command = [sys.executable, str(SCRIPT), "--scale", "0.002", "--lines", "200", "--draws", "200"]
    command += ["--likelihood", rows[0], "--noise", rows[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["size"]["genes"] == 36 and record["size"]["rows"] > 50_000
    assert record["fit"]["converged"] == 1.0
    assert record["stages"]["fit"]["cpu_s"] > record["stages"]["floor"]["cpu_s"] > 0
    assert record["bytes_gb"]["fit"] > record["bytes_gb"]["moments"] > 0
    # Of 7,200 intervals, whose errors lines and genes share in part: four times the error of so many independent ones.
    for name in ("effect_dev", "gamma_dev"):
        assert abs(record["coverage"][name]["in_90"] - 0.9) < 0.015, name
    # Of 36 scales of each kind 1.8 lie outside; 8 or more by chance once in 3,000 times.
    for name in ("sigma_alpha", "sigma_gamma"):
        assert record["coverage"][name]["n"] == 36
        assert record["coverage"][name]["in_95"] > 0.78, name
