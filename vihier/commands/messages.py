"""What commands say beside their output: one line each, on standard error."""

from __future__ import annotations

import os

import typer


def worker() -> int:
    """Return the number of this process among those that a launcher such as torchrun started; 0 where it is alone."""
    return int(os.environ.get("RANK", "0")) if "WORLD_SIZE" in os.environ else 0


def say(text: str) -> None:
    """Write one line to standard error: labels and file names are data, so nothing in them may break the line."""
    line = " ".join(text.split())
    if worker():
        line = f"worker {worker()}: {line}"
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line)
    typer.echo(f"vihier: {shown}", err=True)
