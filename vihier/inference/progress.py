"""Progress on standard error: a bar on a terminal, plain lines in a batch log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

# In a log that nobody watches, a line for every tenth of the work and no more than one in five seconds is enough.
LINES_PER_STAGE = 10
SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    """What a fit tells of itself while it runs."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps; the one before is over."""

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Say how many steps of the stage are done, and figures worth seeing."""


class Silent:
    """Says nothing."""

    def start(self, stage: str, total: int) -> None:
        """Begin a stage, silently."""

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Take note of nothing."""


@dataclass
class PlainLines:
    """One line now and then, for logs.

    Attributes
    ----------
    stream
        Where the lines go.
    """

    stream: TextIO
    _stage: str = ""
    _total: int = 0
    _began: float = 0.0
    _last_time: float = 0.0
    _last_done: int = 0

    def start(self, stage: str, total: int) -> None:
        """Begin a stage and say so."""
        self._stage, self._total, self._last_done = stage, total, 0
        self._began = self._last_time = time.monotonic()
        self._say(f"vihier: {stage}")

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Say how far the stage is, unless it was said a moment ago."""
        now = time.monotonic()
        over = done >= self._total and self._last_done < self._total
        if not over and (
            now - self._last_time < SECONDS_BETWEEN_LINES or done - self._last_done < self._total / LINES_PER_STAGE
        ):
            return
        self._last_time, self._last_done = now, done
        told = "".join(f", {_described(name, value)}" for name, value in (figures or {}).items())
        self._say(f"vihier: {self._stage} {done}/{self._total}, {now - self._began:.0f} s{told}")

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


class Bar:
    """A bar that rich draws on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        figures = TextColumn("{task.fields[figures]}")
        self.rich = RichProgress(*columns, figures, console=Console(stderr=True), transient=True)
        self._task = self.rich.add_task("starting", total=None, figures="")

    def start(self, stage: str, total: int) -> None:
        """Begin a stage with an empty bar."""
        self.rich.reset(self._task, description=stage, total=total, figures="")

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        told = ", ".join(_described(name, value) for name, value in (figures or {}).items())
        self.rich.update(self._task, completed=done, figures=told)


@contextmanager
def open_progress(quiet: bool) -> Iterator[Progress]:
    """Give the progress display that suits where standard error goes."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        bar = Bar()
        with bar.rich:
            yield bar
    else:
        yield PlainLines(sys.stderr)


def _described(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {value:.4g}"
