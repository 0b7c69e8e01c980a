"""The small tables beside a matrix: which line a sample is, which gene an sgRNA cuts, which lineage a line is of.

Names of columns differ between releases and tools only in case and underscores, or are listed here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vihier.errors import VihierError
from vihier.screen.columns import STRAY
from vihier.screen.faults import fault, nearest, no_rows, shown
from vihier.screen.importing.symbols import symbol_of
from vihier.screen.read import open_source, refuse_no_file
from vihier.screen.sources import Source
from vihier.screen.values import Column, Labels, carried, flags, labels, numbers

Names = Mapping[str, tuple[str, ...]]
SEQUENCE_MAP: Names = {
    "sample": ("sequence_ID", "replicate_ID", "sample"),
    "depmap_id": ("ModelID", "DepMap_ID", "cell_line_name"),
    "p_dna_batch": ("pDNA_batch",),
    "days": ("days",),
    "type": ("ScreenType",),
    "passes_qc": ("PassesQC",),
}
SAMPLE_SHEET: Names = {
    "sample": ("sample",),
    "depmap_id": ("depmap_id", "ModelID", "cell_line", "line"),
    "role": ("role",),
    "p_dna_batch": ("p_dna_batch",),
    "replicate_id": ("replicate_id",),
    "lineage": ("lineage", "OncotreeLineage"),
}
GUIDE_MAP: Names = {
    "sgrna": ("sgrna",),
    "hugo_symbol": ("gene", "hugo_symbol"),
    "genome_alignment": ("genome_alignment",),
    "n_alignments": ("n_alignments",),
    "used": ("UsedByChronos",),
}
LINE_MAP: Names = {"depmap_id": ("ModelID", "DepMap_ID"), "lineage": ("OncotreeLineage", "lineage")}
GENE_COLUMNS = ("gene", "hugo_symbol", "symbol")


@dataclass(frozen=True, eq=False)
class MapTable:
    """Columns of a small table under our names.

    Attributes
    ----------
    source
        The file, for messages.
    columns
        Our name to the column.
    others
        Names and columns that are not asked for.
    n_rows
        Number of rows.
    """

    source: str
    columns: dict[str, Column]
    others: dict[str, Column]
    n_rows: int

    def labels(self, name: str) -> np.ndarray:
        """Return a column's labels, object [rows], None where one is missing or the column is not there."""
        if name not in self.columns:
            return np.full(self.n_rows, None, dtype=object)
        return _label_values(labels(self.columns[name], key=True))

    def numbers(self, name: str) -> np.ndarray | None:
        """Return a column of numbers, float64 [rows], or None where the column is not there."""
        return numbers(self.columns[name]) if name in self.columns else None

    def flags(self, name: str) -> np.ndarray:
        """Return which rows do not say FALSE, bool [rows]; all where the column is not there."""
        return flags(self.columns[name]) != 0 if name in self.columns else np.ones(self.n_rows, dtype=bool)

    def row_name(self, row: int) -> str:
        """Return what the user calls this row (from 0)."""
        return next(iter(self.columns.values())).row_name(row)


def read_map(path: Path, names: Names, required: Collection[str]) -> MapTable:
    """Read a small table: CSV, TSV (also gzipped) or Parquet; see ``map_of``."""
    try:
        return map_of(open_source(path), names, required)
    except OSError as error:
        raise fault(str(path), f"cannot be read ({error.strerror or error})", cure="check the file") from error


def map_of(table: Source, names: Names, required: Collection[str]) -> MapTable:
    """Find the columns of a small table that are asked for.

    Parameters
    ----------
    table
        A file or a frame.
    names
        Our name to the names it may have in the table, the first that is there is taken.
    required
        Our names without which the table is refused.

    Raises
    ------
    VihierError
        Not a table, or a required column that is missing.
    """
    header = [name.strip().lstrip("\ufeff") for name in table.column_names()]
    place_of: dict[str, int] = {}
    for place, name in enumerate(header):
        if not STRAY.fullmatch(name) and place_of.setdefault(_plain(name), place) != place:
            where = f"columns {shown(header[place_of[_plain(name)]])} and {shown(name)}"
            raise fault(table.name, where, "have the same name", cure="rename or remove one")
    chosen: dict[str, int] = {}
    for ours, theirs in names.items():
        found = next((place_of[_plain(name)] for name in theirs if _plain(name) in place_of), None)
        if found is not None:
            chosen[ours] = found
        elif ours in required:
            raise _missing_column(table.name, theirs, header)
    data = table.read(list(place_of.values()), ())
    n_rows = len(next(iter(data.values())))
    if not n_rows:
        raise no_rows(table.name)

    def column(name: str, place: int) -> Column:
        return Column(table.name, name, header[place], data[place], table.row_name)

    known = {name: column(name, place) for name, place in chosen.items()}
    others = {header[p]: column(header[p], p) for p in place_of.values() if p not in chosen.values()}
    return MapTable(table.name, known, others, n_rows)


def rows_of(table: MapTable, name: str, wanted: Sequence[str], cure: str) -> np.ndarray:
    """Return the row of each wanted label in a column, int64 [wanted].

    Raises
    ------
    VihierError
        A wanted label that is in no row, or in more than one.
    """
    found = table.labels(name)
    first: dict[str, int] = {}
    needed = set(wanted)
    for row, label in enumerate(found):
        if label in needed and first.setdefault(label, row) != row:
            where = f"column {shown(table.columns[name].header)}, {table.row_name(row)}"
            problem = f"{shown(label)} is there twice, first at {table.row_name(first[label])}"
            raise fault(table.source, where, problem, cure="give it one row")
    missing = [label for label in wanted if label not in first]
    if missing:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        near = nearest(missing[0], (label for label in found if label is not None))
        where = f"column {shown(table.columns[name].header)}"
        raise fault(table.source, where, f"{shown(missing[0])} is missing{more}{near}", cure=cure)
    return np.array([first[label] for label in wanted], dtype=np.int64)


def read_lineages(path: Path, lines: Sequence[str]) -> dict[str, str]:
    """Return the lineage of each of these lines.

    Raises
    ------
    VihierError
        A line that is not in the table, is there twice, or has no lineage.
    """
    table = read_map(path, LINE_MAP, ("depmap_id", "lineage"))
    cure = "add it, or leave the table of lines out and fit with --single-lineage"
    rows = rows_of(table, "depmap_id", lines, cure)
    lineages = table.labels("lineage")[rows]
    for row, line, lineage in zip(rows, lines, lineages, strict=True):
        if lineage is None:
            where = f"column {shown(table.columns['lineage'].header)}, {table.row_name(int(row))}"
            raise fault(table.source, where, f"line {shown(line)} has no lineage", cure="fill it in")
    return dict(zip(lines, lineages, strict=True))


def read_genes(path: Path) -> frozenset[str]:
    """Return the symbols in a list of genes: one a line, or the column 'gene' of a table, as SYMBOL or SYMBOL (ID).

    Raises
    ------
    VihierError
        Not a table.
    """
    return frozenset(map(symbol_of, read_list(path, GENE_COLUMNS)))


def read_list(path: Path, names: Collection[str]) -> list[str]:
    """Return what a list holds: one label a line, or the column of a table that has one of these names.

    Raises
    ------
    VihierError
        Not a table.
    """
    try:
        table = open_source(path)
        header = [name.strip().lstrip("\ufeff") for name in table.column_names()]
        known = [place for place, name in enumerate(header) if _plain(name) in map(_plain, names)]
        place = known[0] if known else 0
        data = table.read([place], ())[place]
    except OSError as error:
        raise fault(str(path), f"cannot be read ({error.strerror or error})", cure="check the file") from error
    found = _label_values(labels(Column(table.name, header[place], header[place], data, table.row_name), key=True))
    listed = found if known else [header[place], *found]  # a plain list has no header
    return [label for label in listed if label is not None]


def carried_values(column: Column) -> np.ndarray | None:
    """Return a column as numbers or flags, float64 [rows], or as labels, object [rows]; None for nested types."""
    read: np.ndarray | Labels | None = carried(column)
    return _label_values(read) if isinstance(read, Labels) else read


def find_beside(path: Path, kinds: Sequence[str], option: str) -> Path:
    """Return the map that lies beside a matrix and is named like it.

    Parameters
    ----------
    path
        The matrix: ``AvanaReadcounts.hdf5``, ``AvanaLogfoldChange.csv``.
    kinds
        Names to look for, ``{}`` standing for what the matrix's name begins with (``Avana``).
    option
        The option that names one, for the message.

    Raises
    ------
    VihierError
        There is none.
    """
    refuse_no_file(path)
    names = [kind.format(library_of(path)) for kind in kinds]
    for name in names:
        if (path.parent / name).is_file():
            return path.parent / name
    listed = " or ".join(shown(name) for name in names)
    raise fault(str(path), f"no {listed} beside it", cure=f"name the file with {option}")


def library_of(path: Path) -> str:
    """Return what a matrix's name begins with.

    Examples
    --------
    >>> [library_of(Path(name)) for name in ("AvanaReadcounts.hdf5", "KYLogfoldChange.csv.gz", "my_readcounts.csv")]
    ['Avana', 'KY', 'my_']
    """
    name = path.name.split(".")[0]
    for kind in ("RawReadcounts", "Readcounts", "LogfoldChange", "logfold_change"):
        if name.casefold().endswith(kind.casefold()):
            return name[: -len(kind)]
    return name


def role_of(table: MapTable, row: int, role: str | None, line: str | None) -> Literal["initial", "final"]:
    """Return whether a sample is an initial (plasmid) or a final one.

    Raises
    ------
    VihierError
        A role that is neither.
    """
    if role is None:
        return "initial" if (line or "").casefold() in ("pdna", "plasmid") else "final"
    if role.casefold() in ("initial", "plasmid", "pdna"):
        return "initial"
    if role.casefold() == "final":
        return "final"
    where = f"column {shown(table.columns['role'].header)}, {table.row_name(row)}"
    raise fault(table.source, where, f"role {shown(role)} is unknown", cure="write 'initial' or 'final'")


def _label_values(read: Labels) -> np.ndarray:
    return np.append(read.labels, np.array([None], dtype=object))[read.codes]


def _missing_column(source: str, theirs: Sequence[str], header: Sequence[str]) -> VihierError:
    also = f" (or {', '.join(theirs[1:])})" if len(theirs) > 1 else ""
    there = ", ".join(shown(name) for name in header[:8]) + (", ..." if len(header) > 8 else "")
    problem = f"column {theirs[0]!r}{also} is missing; the table has {there}"
    return fault(source, problem, cure="rename or add the column, or give another table")


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace(" ", "")
