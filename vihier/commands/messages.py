"""What commands say beside their output: one line each, on standard error."""

from __future__ import annotations

import typer


def say(text: str) -> None:
    """Write one line to standard error: labels and file names are data, so nothing in them may break the line."""
    line = " ".join(text.split())
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line)
    typer.echo(f"vihier: {shown}", err=True)
