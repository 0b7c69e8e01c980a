"""Arguments that several commands take, and how their texts are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vihier.errors import ScreenWarning, VihierError

if TYPE_CHECKING:
    from vihier.screen.screen import Screen

MODEL_PANEL = "The model"

# Both names everywhere: whoever knows one command guesses the other's.
GENES, LINES, LINEAGES = ("--genes", "--gene"), ("--lines", "--line"), ("--lineages", "--lineage")
LABELS = "A,B,..."

AsJson = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]

ScreenPath = Annotated[
    Path,
    typer.Argument(
        metavar="SCREEN", help="Table of the screen: CSV or TSV (also .gz), or Parquet; or a store of 'vihier pack'."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="NAME=COLUMN", help="Take NAME from a column of another name, e.g. lfc=LFC. Repeatable."
    ),
]
SingleLineage = Annotated[
    bool, typer.Option("--single-lineage", help="Put all lines in one lineage; for tables that have none.")
]
OnConflict = Annotated[
    Literal["error", "drop"],
    typer.Option(help="What to do with sgRNAs that are in two genes: refuse the table, or drop and count them."),
]
Priors = Annotated[
    list[str] | None,
    typer.Option(
        "--prior",
        metavar="SITE=PRIOR",
        help="Replace a prior, e.g. 'mu_gamma=Normal(0,2)'. Repeatable.",
        rich_help_panel=MODEL_PANEL,
    ),
]


def number_or_text(text: str) -> float | str:
    """Read a number; what is none stays as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def pairs(texts: Sequence[str] | None, option: str, example: str) -> dict[str, str]:
    """Read repeated ``NAME=VALUE`` texts.

    Raises
    ------
    VihierError
        A text without a name, a value or the sign between them, or a name given twice.

    Examples
    --------
    >>> pairs(["lfc=LFC", "sgrna=sgRNA id"], "--column", "lfc=LFC")
    {'lfc': 'LFC', 'sgrna': 'sgRNA id'}
    """
    read: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = (part.strip() for part in text.partition("="))
        if not (name and sign and value):
            raise VihierError(f"{option} {text!r}: not understood; write it like {example}")
        if name in read:
            raise VihierError(f"{option} {text!r}: {name!r} is given twice, first as {read[name]!r}; keep one")
        read[name] = value
    return read


def labels(texts: Sequence[str] | None, option: str) -> list[str] | None:
    """Read labels separated by commas, the option given once or several times; None where it is not given.

    Raises
    ------
    VihierError
        An empty label.

    Examples
    --------
    >>> labels(["KRAS, BRAF", "TP53"], "--genes")
    ['KRAS', 'BRAF', 'TP53']
    """
    if not texts:
        return None
    read = [label.strip() for text in texts for label in text.split(",")]
    if not all(read):
        raise VihierError(f"{option} {','.join(texts)!r}: an empty label; write it like {option} A,B")
    return list(dict.fromkeys(read))


def read(path: Path, columns: list[str] | None, single_lineage: bool, on_conflict: Literal["error", "drop"]) -> Screen:
    """Read the screen that the shared arguments describe; what deserves a second look is in its report."""
    from vihier.screen.read import read_screen

    with warnings.catch_warnings():
        # The commands show the report, which says the same.
        warnings.simplefilter("ignore", ScreenWarning)
        return read_screen(
            path,
            columns=pairs(columns, "--column", "lfc=LFC"),
            single_lineage=single_lineage,
            on_conflict=on_conflict,
        )
