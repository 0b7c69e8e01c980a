"""Options that the commands share which answer from a fit, and how they hand over a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands.messages import say
from vihier.errors import VihierError

if TYPE_CHECKING:
    import pandas as pd

    from vihier.diagnostics.control_genes import ControlGenes
    from vihier.posterior.reader import Posterior

ROWS_SHOWN = 20
_CONTROLS = "Unit of effects"

Fit = Annotated[Path, typer.Argument(metavar="FIT.h5", help="Posterior file.")]
Essential = Annotated[
    Path | None,
    typer.Option(
        metavar="GENES",
        help="Essential genes, one a line or a column 'gene'; with --nonessential, they are at -1 in each line.",
        rich_help_panel=_CONTROLS,
    ),
]
Nonessential = Annotated[
    Path | None,
    typer.Option(
        metavar="GENES",
        help="Non-essential genes; with --essential, their median is at 0 in each line.",
        rich_help_panel=_CONTROLS,
    ),
]
Fdr = Annotated[
    float, typer.Option(metavar="X", help="Bayesian false discovery rate: mean local false sign rate of the hits.")
]
Beyond = Annotated[float, typer.Option(metavar="X", help="Call what is beyond X in size, not merely of a sure sign.")]
TableOut = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="TABLE", help="Table to write: .csv, .tsv (also .gz) or .parquet; '-' is CSV on stdout."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: the rows too, unless --out takes them.")]


def control_genes(essential: Path | None, nonessential: Path | None) -> ControlGenes | None:
    """Read the two lists; None where neither is given.

    Raises
    ------
    VihierError
        Only one is given, or one cannot be read.
    """
    if essential is None and nonessential is None:
        return None
    if essential is None or nonessential is None:
        raise VihierError("the unit of effects needs two lists of genes; give both --essential and --nonessential")
    from vihier.diagnostics.control_genes import read_control_genes

    return read_control_genes(essential, nonessential)


def check_out(out: Path | None) -> None:
    """Refuse a table that could not be written, before anything is computed for it."""
    if out is not None and str(out) != "-":
        from vihier.atomic import check_writable
        from vihier.screen.simulate_table import table_suffix

        table_suffix(out)
        check_writable(out)


def say_unconverged(post: Posterior) -> None:
    """Say that the fit did not converge, where it did not."""
    if not post.converged:
        say(f"warning: {post.path}: the fit did not converge; its answers may change when it does")


def say_of_fit(post: Posterior) -> None:
    """Say what a reader of any answer from effects must know of the fit."""
    say_unconverged(post)
    note = post.not_identified.get("effect")
    if note is not None:
        say(f"warning: effect is not identified: {note}")


def hand_over(table: pd.DataFrame, about: Mapping[str, Any], heading: str, out: Path | None, as_json: bool) -> None:
    """Write a table, print it as JSON, or show its first rows to a person.

    Parameters
    ----------
    table
        The rows.
    about
        What JSON says beside them.
    heading
        What a person is told first.
    out
        Where to write; None for nowhere.
    as_json
        Print JSON.
    """
    if out is not None and str(out) == "-":
        if as_json:
            raise VihierError("--json and --out -: both go to standard output; give one")
        typer.echo(table.to_csv(index=False), nl=False)
        return
    account = dict(about)
    if out is not None:
        from vihier.answers.tables import write_frame

        account |= {"out": str(out), "n_rows": write_frame(table, out)}
    if as_json:
        if out is None:
            # pandas writes null for what is missing, and Python's json the NaN that is no JSON.
            account["rows"] = json.loads(table.to_json(orient="records"))
        typer.echo(json.dumps(account, indent=2, ensure_ascii=False))
        return
    typer.echo(heading)
    if out is not None:
        typer.echo(f"{out}: {len(table):,} rows")
    elif len(table):
        rates = dict.fromkeys(("lfsr", "fdr"), "{:.4f}".format)
        shown = table.head(ROWS_SHOWN).to_string(index=False, float_format="{:.3f}".format, formatters=rates)
        typer.echo(shown)
        if len(table) > ROWS_SHOWN:
            say(f"the first {ROWS_SHOWN} of {len(table):,} rows; --out TABLE.csv writes all")
