"""`vihier qc`: quality of a screen before a fit, or of the lines and sgRNAs of a fit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands import answer_options as options
from vihier.commands.arguments import Columns, pairs
from vihier.commands.messages import say
from vihier.errors import ScreenWarning, VihierError

if TYPE_CHECKING:
    import pandas as pd

    from vihier.quality import FitQuality, ScreenQuality

WORST_SHOWN = 3


def qc(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SCREEN|FIT.h5", help="Table of a screen, a store of `vihier pack`, or a fit's posterior file."
        ),
    ],
    essential: options.Essential = None,
    nonessential: options.Nonessential = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|TABLE", help="Folder for all tables as CSV; or one table, of the flags alone."),
    ] = None,
    screen: Annotated[
        Path | None, typer.Option(metavar="SCREEN", help="Of a fit: what was fitted, for the noise of lines.")
    ] = None,
    column: Columns = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: what was measured, limits, and all flags.")
    ] = False,
) -> None:
    """Judge the quality of a screen before a fit, or of the lines and sgRNAs of a fit.

    Of a screen: whether replicates agree and are labelled right, how each line tells control genes apart, whether a
    gene's sgRNAs agree, coverage, batches, and how lfc falls with copy number. Nothing is removed: flags are for you to
    judge.

    [b]Examples[/b]

    vihier qc screen.parquet
    vihier qc screen.parquet --essential CEGv2.txt --nonessential NEGv1.txt --out quality
    vihier qc fit.h5 --essential CEGv2.txt --nonessential NEGv1.txt --json
    """
    _check_out(out)
    mapping = pairs(column, "--column", "lfc=LFC")
    controls = options.control_genes(essential, nonessential)
    from vihier.quality.judge import judge
    from vihier.store.either import screen_or_store

    beside = None if screen is None else screen_or_store(screen)
    with warnings.catch_warnings():
        # What deserves a second look in the table is for `vihier validate` to say.
        warnings.simplefilter("ignore", ScreenWarning)
        quality = judge(source, columns=mapping, controls=controls, screen=beside)
    if quality.overview.get("converged") is False:
        say(f"warning: {source}: the fit did not converge; what it says may change when it does")
    account: dict[str, Any] = {"source": str(source), **quality.overview}
    if out is not None:
        account["out"] = _write(quality.tables(), quality.flags, out)
    if as_json:
        account["flags"] = json.loads(quality.flags.to_json(orient="records"))
        typer.echo(json.dumps(account, indent=2, ensure_ascii=False))
        return
    _show(quality)
    for path, n_rows in account.get("out", {}).items():
        typer.echo(f"{path}: {n_rows:,} rows")
    if controls is None:
        say("without --essential and --nonessential it is not known how well lines tell control genes apart")


def _is_table(out: Path) -> bool:
    return out.suffix in (".csv", ".tsv", ".gz", ".parquet", ".pq")


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if str(out) == "-":
        raise VihierError("--out -: name a folder or a table; --json prints the flags")
    if _is_table(out):
        options.check_out(out)
    elif out.exists() and not out.is_dir():
        raise VihierError(f"{out}: is a file, and no table; name a folder, or a table such as flags.csv")
    elif not out.absolute().parent.is_dir():
        raise VihierError(f"{out}: there is no folder {out.absolute().parent}; make it first")


def _write(tables: Mapping[str, pd.DataFrame], flags: pd.DataFrame, out: Path) -> dict[str, int]:
    """Write the flags, or all tables into a folder; return the number of rows of each file."""
    from vihier.answers.tables import write_frame

    if _is_table(out):
        return {str(out): write_frame(flags, out)}
    out.mkdir(exist_ok=True)
    # The flags always, so that a script finds the file where there is none.
    return {
        str(out / f"{name}.csv"): write_frame(table, out / f"{name}.csv")
        for name, table in {**tables, "flags": flags}.items()
    }


def _show(quality: ScreenQuality | FitQuality) -> None:
    """Print for a person: sizes, the median of each measure, and of each kind of flag how many and the worst."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    sizes = {name: value for name, value in quality.overview.items() if name.startswith("n_") and value is not None}
    console.print(", ".join(_counted(name, value) for name, value in sizes.items()), markup=False)
    table = Table(box=box.SIMPLE, header_style="bold")
    for name in ("measure", "median", "worst", "flagged", ""):
        table.add_column(name, justify="left" if name in ("measure", "flagged") else "right")
    for each in quality.overview["measured"]:
        numbers = (f"{round(each[name], 6) + 0.0:.3g}" for name in ("median", "worst"))
        bound = f"{each['flagged']} {each['limit']:g}"
        table.add_row(f"{each['about']} {each['measure']}", *numbers, bound, f"{each['n_flagged']:,}")
    console.print(table)
    for (about, measure), rows in quality.flags.groupby(["about", "measure"], sort=False):
        for text in rows["text"].head(WORST_SHOWN):
            console.print(text, markup=False)
        if len(rows) > WORST_SHOWN:
            console.print(f"  ... and {len(rows) - WORST_SHOWN:,} more by {about} {measure}", markup=False)


def _counted(name: str, count: int) -> str:
    noun = name.removeprefix("n_").replace("sgrnas", "sgRNAs")
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}"
