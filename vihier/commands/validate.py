"""`vihier validate`: what is read of a table, what is dropped, and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands.arguments import Columns, OnConflict, ScreenPath, SingleLineage, read
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.screen.screen import Screen
    from vihier.store.store import ScreenStore


def validate(
    screen: ScreenPath,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Read a screen and report what was read, what was dropped, and why.

    Of a store that `vihier pack` wrote, the report is that of packing; all rows are read and their hash is compared.

    Exit status 2, and one line that names the column, the row and the cure, where the table is refused.

    [b]Example[/b]

    vihier validate screen.csv --column lfc=LFC
    """
    from vihier.store.store import is_hdf5

    table: Screen | ScreenStore
    if is_hdf5(screen):
        table = _verified(screen, bool(column) or single_lineage or on_conflict != "error")
    else:
        table = read(screen, column, single_lineage, on_conflict)
    if as_json:
        typer.echo(json.dumps(_account(table), indent=2, ensure_ascii=False))
        return
    sizes = ", ".join(f"{count:,} {noun}" for noun, count in _sizes(table).items())
    typer.echo("\n".join([*table.report.lines(), sizes, f"hash: {table.hash}"]))


def _verified(path: Path, with_options: bool) -> ScreenStore:
    from vihier.store.store import open_store

    store = open_store(path)
    if with_options:
        raise VihierError(f"{path}: a store is read as it was packed; give these options to `vihier pack`")
    store.verify()
    return store


def _sizes(table: Screen | ScreenStore) -> dict[str, int]:
    return {
        "genes": table.n_genes,
        "sgrnas": table.n_sgrnas,
        "lines": table.n_lines,
        "lineages": table.n_lineages,
        "replicates": table.n_replicates,
    }


def _account(table: Screen | ScreenStore) -> dict[str, Any]:
    return asdict(table.report) | {f"n_{noun}": count for noun, count in _sizes(table).items()} | {"hash": table.hash}
