"""What mkdocs does not do by itself: formulas as MathML, which no script has to draw, and the help of every command."""

from __future__ import annotations

import html
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', flags=re.DOTALL
)
_COMMANDS = "<!-- commands -->"
_NAMES = re.compile(r"<!-- names of (vihier[\w.]*) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the help of all commands, and the public names of packages, where a page asks for them."""
    markdown = _NAMES.sub(lambda match: _public_names(match[1]), markdown)
    return markdown.replace(_COMMANDS, _help_of_commands()) if _COMMANDS in markdown else markdown


def on_page_content(content: str, **_: Any) -> str:
    """Turn the formulas of a page into MathML, which browsers draw themselves."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    tex = html.unescape(match["tex"]).strip()
    # The converter takes \\sim for a letter that is an ASCII tilde, and environments that it does not know for letters.
    made = convert(tex, display="block" if match["open"] == "[" else "inline").replace(
        "<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"
    )
    if "<mi>&</mi>" in made or "<mi>\\" in made:
        raise ValueError(
            f"formula {tex!r}: not understood by latex2mathml; write it in another way, such as with align*"
        )
    return made


def _public_names(package: str) -> str:
    """Ask mkdocstrings for what a package exports, functions and classes, in alphabetical order."""
    module = importlib.import_module(package)
    parts = []
    for name in sorted(module.__all__, key=str.casefold):
        # By its own module: a function may have the name of the module that it is in.
        home = package if package == "vihier" else getattr(getattr(module, name), "__module__", "")
        if home.startswith("vihier"):
            parts.append(f"::: {home}.{name}\n")
    return "\n".join(parts)


def _help_of_commands() -> str:
    # Set before rich is imported: it reads them once.
    os.environ.update(COLUMNS="80", NO_COLOR="1", TERM="dumb")
    import typer

    from vihier.cli import app, main

    parts = []
    for name in _names(typer.main.get_command(app)):
        said = StringIO()
        with redirect_stdout(said):
            main([*name.split(), "--help"])
        text = "\n".join(line.rstrip() for line in said.getvalue().strip("\n").splitlines())
        parts.append(f"## vihier {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _names(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, inner in command.commands.items():
        if getattr(inner, "commands", None):
            yield from _names(inner, (*path, name))
        else:
            yield " ".join((*path, name))
