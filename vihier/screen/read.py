"""A table, in a file or a frame, -> a screen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from vihier.errors import ScreenWarning
from vihier.screen.columns import MAYBE_STRAY, ColumnPlan, Kind, plan_columns
from vihier.screen.faults import fault, no_rows
from vihier.screen.report import ReadReport
from vihier.screen.screen import Screen
from vihier.screen.sources import FrameSource, ParquetSource, Source
from vihier.screen.text_source import TextSource
from vihier.screen.validate import Findings, Options, validate
from vihier.screen.values import Column, carried

SEPARATOR_OF = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": None}
PARQUET = frozenset({".parquet", ".pq"})


def read_screen(
    source: str | PathLike[str] | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
    sgrna_per_screen: bool = True,
) -> Screen:
    """Read and validate a screen.

    Parameters
    ----------
    source
        A pandas frame, or a file: ``.csv``, ``.tsv``, ``.txt``, each also with ``.gz``, or ``.parquet``. Needs the
        columns ``sgrna``, ``hugo_symbol``, ``depmap_id`` and ``lfc`` (log2 fold change). Unknown columns are carried
        along as numbers, true/false or labels, whichever all their values are.
    columns
        Our name to the table's, where they differ: ``{"lfc": "LFC"}``.
    single_lineage
        Put all lines in one lineage called ``"all"``, whatever the table says.
    on_conflict
        An sgRNA with two genes: ``"error"`` refuses the table, ``"drop"`` drops such sgRNAs and counts them.
    sgrna_per_screen
        A sequence in two ``screen`` s is two sgRNAs, labelled ``SEQUENCE|screen`` (only such ones); False: one.

    Returns
    -------
    Screen
        Every replicate is kept. Rows whose ``lfc`` is missing are dropped and counted in ``report``.

    Raises
    ------
    VihierError
        For any fault: one line with the column, the row (in text the line, from 1, the header included; elsewhere
        the position, from 0), the value and the cure.

    Warns
    -----
    ScreenWarning
        For each of ``report.warnings``.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import read_screen
    >>> rows = {"guide": ["s1", "s2"], "hugo_symbol": "KRAS", "depmap_id": "ACH-1", "lfc": [0.5, None]}
    >>> print(read_screen(pd.DataFrame(rows), columns={"sgrna": "guide"}).report)
    DataFrame: 2 rows read, 1 kept
    dropped: 1 row, missing lfc
    columns: sgrna (from 'guide'), hugo_symbol, depmap_id, lfc
    """
    if on_conflict not in ("error", "drop"):
        raise fault(f"on_conflict={on_conflict!r}", "unknown choice", cure="use 'error' or 'drop'")
    with _readable(str(source)):
        table = open_source(source)
    screen = read_table(
        table,
        columns=columns,
        single_lineage=single_lineage,
        on_conflict=on_conflict,
        sgrna_per_screen=sgrna_per_screen,
    )
    for text in screen.report.warnings:
        warnings.warn(f"{screen.report.source}: {text}", ScreenWarning, stacklevel=2)
    return screen


def read_table(
    table: Source,
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
    sgrna_per_screen: bool = True,
) -> Screen:
    """Read and validate a table that is open, as `read_screen` does; what deserves a look is in the report only."""
    with _readable(table.name):
        plan, findings, read = _read_columns(table, columns)
    screen = validate(read, Options(single_lineage, on_conflict, sgrna_per_screen), findings)
    return replace(screen, report=full_report(screen.report, plan, findings))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cure = "check the file and its rights"
        raise fault(name, f"cannot be read ({error.strerror or error})", cure=cure) from error


def open_source(source: str | PathLike[str] | pd.DataFrame) -> Source:
    """Return the table behind a frame or a path, its header read.

    Raises
    ------
    VihierError
        Not a frame or a file, or a kind of file that vihier does not read.
    OSError
        A file that cannot be opened.
    """
    if isinstance(source, pd.DataFrame):
        return FrameSource(source)
    if not isinstance(source, (str, PathLike)):
        what = f"source is of type {type(source).__name__}"
        raise fault(what, "not a table", cure="give the path of a CSV, TSV or Parquet file, or a pandas DataFrame")
    path = Path(fspath(source))
    refuse_no_file(path)
    kind = path.suffix.lower()
    if kind in PARQUET:
        return ParquetSource(path)
    gzipped = kind == ".gz"
    if gzipped:
        kind = Path(path.stem).suffix.lower()
    if kind not in SEPARATOR_OF:
        known = "known kinds are .csv, .tsv, .txt (each also with .gz) and .parquet"
        raise fault(str(path), f"the name ends in {path.suffix!r}", cure=f"{known}: rename or convert it")
    return TextSource(path, SEPARATOR_OF[kind], gzipped)


def refuse_no_file(path: Path) -> None:
    """Raise a VihierError where there is no regular file of that name."""
    if path.is_dir():
        raise fault(str(path), "this is a directory", cure="name one file in it")
    if not path.exists():
        url = "://" in str(path) or ":/" in str(path)
        raise fault(str(path), "no such file", cure="download it first" if url else "check the name and the folder")
    if not path.is_file():
        raise fault(str(path), "not a regular file", cure="save the table to a file first")


def _read_columns(table: Source, mapping: Mapping[str, str] | None) -> tuple[ColumnPlan, Findings, dict[str, Column]]:
    plan = plan_columns(table.name, table.column_names(), mapping)
    findings = Findings(ignored=dict(plan.ignored))
    places = plan.position
    numeric = {place for name, place in places.items() if plan.kind(name) is Kind.NUMBER}
    data = table.read(list(places.values()), numeric)
    n_rows = len(data[places["lfc"]])
    if n_rows == 0:
        raise no_rows(table.name)
    columns: dict[str, Column] = {}
    for name, place in places.items():
        column = Column(table.name, name, plan.header[name], data[place], table.row_name)
        if name in MAYBE_STRAY and _is_row_number(column):
            findings.ignored[column.header] = "row numbers, not data"
        else:
            columns[name] = column
    return plan, findings, columns


def _is_row_number(column: Column) -> bool:
    """Whether the values are 0 to n - 1 or 1 to n, in any order (the rows may have been shuffled since)."""
    values = carried(column)
    if not isinstance(values, np.ndarray) or np.isnan(values).any():
        return False
    ranked = np.sort(values)
    return bool(ranked[0] in (0, 1) and (np.diff(ranked) == 1).all())


def full_report(report: ReadReport, plan: ColumnPlan, findings: Findings) -> ReadReport:
    """Return the report with what was found on the way."""
    return replace(
        report,
        dropped=findings.dropped,
        warnings=tuple(findings.warnings),
        columns={name: header for name, header in plan.header.items() if header not in findings.ignored},
        ignored=findings.ignored,
        layout=plan.layout,
        exact_copies=findings.exact_copies,
    )
