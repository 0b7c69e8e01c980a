"""Chains side by side, each in a Python of its own; what they draw depends on their plans only.

They are plain child processes: nothing of the caller's is run again in them, so that scripts and notebooks need no
`if __name__ == "__main__"`. The plan goes in as a file, the draws come out as one, and lines on standard output say how
far it is.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vihier.errors import FitError
from vihier.inference.progress import Progress
from vihier.inference.threads import one_thread
from vihier.refinement.chain import ChainDraws, ChainPlan, run_chain

TOLD_EVERY = 25


def run_chains(plans: Sequence[ChainPlan], processes: int, progress: Progress) -> list[ChainDraws]:
    """Run chains, as many at once as there are processes.

    Raises
    ------
    FitError
        A chain's process ended before it was done.
    """
    done = _Done([0] * len(plans), progress)
    progress.start("nuts", sum(plan.warmup + plan.draws for plan in plans))
    if processes == 1:
        with one_thread():
            return [run_chain(plan, partial(done.tell, i)) for i, plan in enumerate(plans)]
    with tempfile.TemporaryDirectory(prefix="vihier-") as folder, ThreadPoolExecutor(processes) as pool:
        running: list[subprocess.Popen[str]] = []
        futures = [pool.submit(_child, Path(folder), i, plan, done, running) for i, plan in enumerate(plans)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in running:
                child.terminate()
            raise


class _Done:
    """How far each chain is, told to one display."""

    def __init__(self, iterations: list[int], progress: Progress) -> None:
        self.iterations, self.progress = iterations, progress
        self._lock = threading.Lock()

    def tell(self, chain: int, done: int) -> None:
        with self._lock:
            self.iterations[chain] = done
            self.progress.update(sum(self.iterations))


def _child(folder: Path, number: int, plan: ChainPlan, done: _Done, running: list[subprocess.Popen[str]]) -> ChainDraws:
    given, got = folder / f"{number}.plan", folder / f"{number}.npz"
    given.write_bytes(pickle.dumps(plan))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vihier.refinement.processes", str(given), str(got)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as child:
        running.append(child)
        assert child.stdout is not None and child.stderr is not None
        for line in child.stdout:
            done.tell(number, int(line))
        said = child.stderr.read().strip().splitlines()
    if child.returncode != 0 or not got.exists():
        why = said[-1] if said else f"exit status {child.returncode}"
        raise FitError(f"chain {number}: its process ended early ({why}); try --processes 1")
    with np.load(got, allow_pickle=False) as stored:
        found = {name: stored[name] for name in stored.files}
    scalars = {name: found.pop(name).item() for name in ("step_size", "warmup_steps")}
    return ChainDraws(**found, **scalars)


def _main(given: str, got: str) -> None:
    torch.set_num_threads(1)
    # Written by the parent process a moment ago, into a folder that only its user can write to.
    plan = pickle.loads(Path(given).read_bytes())  # noqa: S301

    def tell(n: int) -> None:
        if n % TOLD_EVERY == 0:
            print(n, flush=True)  # noqa: T201

    np.savez(got, **asdict(run_chain(plan, tell)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
