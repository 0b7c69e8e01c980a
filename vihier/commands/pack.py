"""`vihier pack`: tables go in, a store comes out that fits are run from."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer

from vihier.commands.arguments import AsJson, Columns, OnConflict, SingleLineage, labels, pairs
from vihier.commands.messages import say
from vihier.errors import ScreenWarning, VihierError


def pack(
    screens: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCREEN", help="Tables of one screen: CSV or TSV (also .gz), Parquet, or folders of Parquet."
        ),
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Store to write, e.g. screen.h5.")],
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    covariates: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B,...", help="Covariates to keep, or 'none'; all when not given."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No report and no progress.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a store that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of one or more tables to a store, by gene, in bounded memory.

    For screens of any size. The tables' rows may be in any order; all of them are one screen. `vihier validate STORE`
    tells what is in it.

    [b]Examples[/b]

    vihier pack screen.parquet screen.h5
    vihier pack avana.csv.gz ky.csv.gz both.h5 --covariates copy_number
    """
    mapping = pairs(column, "--column", "lfc=LFC")
    kept = labels(covariates, "--covariates")
    from vihier.inference.progress import open_progress
    from vihier.store.pack import pack as write_store

    _check_replaceable(store, force)
    with warnings.catch_warnings(), open_progress(quiet) as progress:
        # The report says the same.
        warnings.simplefilter("ignore", ScreenWarning)
        packed = write_store(
            screens,
            store,
            columns=mapping,
            single_lineage=single_lineage,
            on_conflict=on_conflict,
            covariates=[] if kept == ["none"] else kept,
            progress=progress,
        )
    with packed:
        for line in [f"warning: {text}" for text in packed.report.warnings] if quiet else packed.report.lines():
            say(line)
        if as_json:
            sizes = {"n_rows": packed.n_rows, "n_genes": packed.n_genes, "n_sgrnas": packed.n_sgrnas}
            sizes |= {"n_lines": packed.n_lines, "n_replicates": packed.n_replicates}
            account = {"out": str(store), **sizes, "hash": packed.hash}
            typer.echo(json.dumps(account, indent=2, ensure_ascii=False))
        else:
            typer.echo(store)


def _check_replaceable(store: Path, force: bool) -> None:
    from vihier.store.store import is_store

    if not store.exists():
        return
    if not is_store(store):
        raise VihierError(f"{store}: is there, and is no store; name the store last, after the tables")
    if not force:
        raise VihierError(f"{store}: is there already; give another name, or replace it with --force")
