"""What an experiment says of its own run: time by stage, peak memory, machine; and where its data are."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


class Stages:
    """Wall time of the stages of a run, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def machine() -> dict[str, str | int | None]:
    """Return what the times depend on."""
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def existing(path: Path, what: str) -> Path:
    """Return the path, or end the script in one line where there is nothing."""
    if not path.exists():
        print(f"{path}: there are no {what} here; give their place (see --help)", file=sys.stderr)
        raise SystemExit(2)
    return path.resolve()
