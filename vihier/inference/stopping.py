"""Signals that ask a fit to stop: it notes them, and stops at the next place from which it can go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

ASKING = ("SIGTERM", "SIGUSR1")


@dataclass
class Asked:
    """Whether a signal has asked, and which."""

    by: str = ""


@contextmanager
def noting_signals() -> Iterator[Asked]:
    """Note SIGTERM and SIGUSR1 instead of dying of them; in a thread other than the main one nothing is noted."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked.by = signal.Signals(number).name

    numbers = [getattr(signal, name) for name in ASKING if hasattr(signal, name)]
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
