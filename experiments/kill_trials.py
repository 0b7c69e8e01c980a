"""Kill a run with SIGKILL at random moments of each of its phases, run the same commands again, compare the files.

A run packs a table and fits the store, with a checkpoint after every pass. Prints JSON: in which phase each kill came,
and whether the resumed run's file equals, dataset by dataset and bit by bit, that of the run that nothing killed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from run_record import machine

import vihier

PHASES = (
    "vihier: reading MB",
    "vihier: sorting",
    "vihier: reading",
    "vihier: passes",
    "vihier: drawing",
    "vihier: writing",
)
"""What a run says when a phase begins: two of pack, then four of fit."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--genes", type=int, default=102, help="of 1,000 lines: from 101 genes, fits are streamed")
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@dataclass(frozen=True)
class Run:
    """The commands of a run in a folder of its own."""

    folder: Path
    table: Path
    asked: argparse.Namespace

    @property
    def out(self) -> Path:
        """The posterior file."""
        return self.folder / "fit.h5"

    def commands(self) -> list[list[str]]:
        """Return what is left to run: a store that is there is whole."""
        store = self.folder / "screen.h5"
        options = ("--draws", self.asked.draws, "--max-steps", self.asked.passes, "--batch-size", 16)
        options += ("--draws-disk-gb", 0, "--checkpoint-every", 0, "--seed", self.asked.seed, "--resume")
        pack = ["pack", str(self.table), str(store)]
        return [*([] if store.exists() else [pack]), ["fit", str(store), "--out", str(self.out), *map(str, options)]]

    def go(self, kill_in: str = "", after: float = 0.0) -> tuple[bool, dict[str, float]]:
        """Run to the end, or until some seconds into a phase; say whether it was killed, and when phases began."""
        began: dict[str, float] = {}
        for command in self.commands():
            program = [sys.executable, "-m", "vihier", *command]
            process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            if self._watch(process.stderr, began, kill_in):
                time.sleep(after)
                if process.poll() is None:
                    process.kill()
                    process.communicate()
                    return True, began
            process.communicate()
            if process.returncode:
                raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
            began[f"end of {command[0]}"] = time.perf_counter()
        return False, began

    @staticmethod
    def _watch(lines: IO[str], began: dict[str, float], kill_in: str) -> bool:
        """Note when phases begin, and say when the one to be killed in does."""
        for line in lines:
            if line.strip() in PHASES:
                began[line.strip()] = time.perf_counter()
                if line.strip() == kill_in:
                    return True
        return False


def same_files(one: Path, other: Path) -> bool:
    """Whether two files have the same datasets, bit by bit."""
    with h5py.File(one) as a, h5py.File(other) as b:
        names: list[list[str]] = [[], []]
        for file, found in zip((a, b), names, strict=True):
            file.visititems(lambda name, node, found=found: found.append(name) if hasattr(node, "dtype") else None)
        return names[0] == names[1] and all(_same(a[name], b[name]) for name in names[0])


def _same(one: h5py.Dataset, other: h5py.Dataset) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject:  # labels: their bytes are elsewhere
        return bool(np.all(one[()] == other[()]))
    return bool(one[()].tobytes() == other[()].tobytes())


def main() -> None:
    """Run once, then kill and resume as often as asked."""
    asked = arguments()
    random = np.random.default_rng(asked.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill-trials-"))
    try:
        made = vihier.simulate(folder / "screen.parquet", genes=asked.genes, lines=1000, lineages=27, seed=asked.seed)
        whole = Run(folder / "whole", made.table, asked)
        whole.folder.mkdir()
        _, began = whole.go()
        moments = [*(began[phase] for phase in PHASES), began["end of fit"]]
        lasted = {phase: moments[i + 1] - moments[i] for i, phase in enumerate(PHASES)}
        lasted["vihier: sorting"] = began["end of pack"] - began["vihier: sorting"]
        trials = []
        while len(trials) < asked.trials:
            phase = PHASES[len(trials) % len(PHASES)]
            run = Run(folder / "trial", made.table, asked)
            run.folder.mkdir()
            after = float(random.uniform(0, lasted[phase]))
            killed, _ = run.go(phase, after)
            if killed:  # where it was faster than the run before, there is nothing to resume
                finished = run.out.exists()
                run.go()
                left = sorted(path.name for path in run.folder.iterdir())
                trial = {"phase": phase.removeprefix("vihier: "), "seconds_into_it": round(after, 3)}
                trial |= {"file_was_there": finished, "same": same_files(whole.out, run.out)}
                trials.append(trial | {"left_over": [name for name in left if name not in ("screen.h5", "fit.h5")]})
                print(f"{len(trials)}/{asked.trials}: {trial}", file=sys.stderr, flush=True)
            shutil.rmtree(run.folder)
        record = {
            "asked": vars(asked),
            "trials": len(trials),
            "same": sum(bool(trial["same"]) for trial in trials),
            "with_left_overs": sum(bool(trial["left_over"]) for trial in trials),
            "by_phase": Counter(str(trial["phase"]) for trial in trials),
            "phase_seconds": {phase.removeprefix("vihier: "): round(lasted[phase], 2) for phase in PHASES},
            "each": trials,
            "machine": machine(),
        }
        print(json.dumps(record, indent=2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
