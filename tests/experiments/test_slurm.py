"""The batch scripts, run with a `srun` and a `scontrol` that only do what is asked: stopped, queued again, done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vihier
from vihier.guides import structured_fit
from vihier.store.pack import pack

SLURM = Path(__file__).resolve().parents[2] / "experiments" / "slurm"
# The fit of a small screen, streamed as that of a large one is, whose passes take long enough to be stopped in.
VIHIER = """#!{python}
import sys, time
from vihier.cli import main
from vihier.guides import streamed_chains, structured_fit
structured_fit.SWEPT_UP_TO = 0
sweep = streamed_chains.StreamedChains.sweep
def slow(self, *given, **named):
    time.sleep(0.1)
    return sweep(self, *given, **named)
streamed_chains.StreamedChains.sweep = slow
sys.exit(main())
"""
TORCHRUN = """#!/bin/bash
exec {python} -m torch.distributed.run "${{@:1:8}}" --monitor-interval 0.1 "${{@:9:2}}" {vihier} "${{@:13}}"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file beside its store."""
    folder = tmp_path_factory.mktemp("run")
    made = vihier.simulate(folder / "screen.parquet", genes=8, lines=12, lineages=3, seed=5, model="additive")
    pack(made.table, folder / "screen.h5").close()
    path = folder / "run.toml"
    path.write_text(
        f'screen = "{folder / "screen.h5"}"\nout = "{folder / "fit.h5"}"\ndraws = 100\nmax_steps = 10\n'
        "batch_size = 3\ndraws_disk_gb = 0\ncheckpoint_every = 0\nquiet = true\n"
    )
    return path


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Slurm's variables, and its commands in front of the PATH."""
    commands = {
        "srun": '#!/bin/sh\nexec "$@"\n',
        "scontrol": f'#!/bin/sh\n[ "$1" != show ] || exec echo localhost\necho "$@" >> {folder / "asked"}\n',
        "vihier": VIHIER.format(python=sys.executable),
        # The program in the place of `-m vihier`.
        "torchrun": TORCHRUN.format(python=sys.executable, vihier=folder / "vihier"),
    }
    for name, text in commands.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_JOB_ID": "71", "SLURM_SUBMIT_DIR": str(SLURM.parents[1]), **more}


def same(one: Path, other: Path) -> None:
    """Hold the draws of two fits to each other, bit by bit."""
    with vihier.open_posterior(one) as a, vihier.open_posterior(other) as b:
        assert a.attrs["config"] == b.attrs["config"]
        for name in ("sigma", "effect", "alpha_dev"):
            np.testing.assert_array_equal(a.draws(name).values, b.draws(name).values)


@pytest.mark.filterwarnings("ignore:the fit did not converge")
@pytest.mark.parametrize(
    ("script", "model", "seed", "more"),
    [
        ("one_gpu.sh", "additive", 0, {}),
        (
            "several_gpus.sh",
            "additive",
            0,
            {"SLURM_GPUS_ON_NODE": "2", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "node", "OMP_NUM_THREADS": "1"},
        ),
        pytest.param("array.sh", "crossed", 1, {"SLURM_ARRAY_TASK_ID": "5"}, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_is_stopped_goes_on_to_the_same_posterior(
    script: str, model: str, seed: int, more: dict[str, str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGUSR1 in mid-fit: a checkpoint, the job queued again, and what one fit without a stop writes."""
    out = tmp_path / f"{model}-{seed}.h5"
    arguments = [str(tmp_path)] if script == "array.sh" else ["--out", str(out)]
    command = ["bash", str(SLURM / script), str(run), *arguments]
    slurm = environment(tmp_path, **more)
    job = subprocess.Popen(command, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoint = out.with_name(f"{out.name}.checkpoint") / "about.json"
    while job.poll() is None and not checkpoint.exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert "stopped by SIGUSR1" in said
    assert (tmp_path / "asked").read_text() == "requeue 71\n"
    assert checkpoint.exists() and not out.exists()
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text() == "requeue 71\n"
    assert not checkpoint.exists()
    monkeypatch.setattr(structured_fit, "SWEPT_UP_TO", 0)
    options = {"draws": 100, "max_steps": 10, "batch_size": 3, "draws_disk_gb": 0, "quiet": True}
    vihier.fit(run.with_name("screen.h5"), model, seed=seed, out=tmp_path / "whole.h5", **options).close()
    same(out, tmp_path / "whole.h5")


def test_a_fit_that_fails_fails_the_job(run: Path, tmp_path: Path) -> None:
    """With its own status, and nothing is queued again."""
    command = ["bash", str(SLURM / "one_gpu.sh"), str(run), "--model", "none"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none" in done.stderr
    assert not (tmp_path / "asked").exists()
