"""The tables of one screen, one after another: their columns, their chunks, and what the user calls a row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import pyarrow as pa

from vihier.errors import VihierError
from vihier.screen.columns import ColumnPlan, Kind, plan_columns
from vihier.screen.faults import fault, no_rows, shown
from vihier.screen.read import PARQUET
from vihier.screen.report import counted
from vihier.screen.values import Column
from vihier.store.chunks import CHUNK_ROWS, ChunkedSource, chunked

PathLikes = str | PathLike[str] | Sequence[str | PathLike[str]]


def table_paths(given: PathLikes) -> list[Path]:
    """Return the files named, and in the place of a directory all Parquet files below it, by name.

    Raises
    ------
    VihierError
        No file at all, a directory without Parquet files or with columns in the names of its folders, or a file given
        twice.
    """
    listed = [given] if isinstance(given, str | PathLike) else list(given)
    if not listed:
        raise fault("no table was given", "there is nothing to read", cure="name at least one")
    paths: list[Path] = []
    for path in (Path(fspath(each)) for each in listed):
        paths += _in_directory(path) if path.is_dir() else [path]
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise fault(str(path), "this table is given twice", cure="name it once")
        seen.add(path.resolve())
    return paths


def _in_directory(folder: Path) -> list[Path]:
    # Hidden files and those that begin with "_" are what writers keep beside the data.
    parts = [path for path in folder.rglob("*") if path.suffix.lower() in PARQUET and path.name[0] not in "._"]
    if not parts:
        raise fault(str(folder), "no Parquet file in this directory", cure="name the tables themselves")
    for path in parts:
        outer = next((name for name in path.relative_to(folder).parts[:-1] if "=" in name), None)
        if outer is not None:
            problem = f"the folder {shown(outer)} holds a column in its name, which is not read"
            raise fault(str(folder), problem, cure="write that column into the files")
    return sorted(parts)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive rows of one table.

    Attributes
    ----------
    columns
        Our name to the column.
    n_rows
        How many.
    first_row
        Place of the first one among the rows of all tables.
    bytes_done
        How far into the files this is.
    table
        Which table it is of.
    """

    columns: dict[str, Column]
    n_rows: int
    first_row: int
    bytes_done: int
    table: int


class Tables:
    """Tables that are read as one, each as often as is asked for.

    Parameters
    ----------
    paths
        The files.
    mapping
        Our name to the tables', as in `vihier.read_screen`.

    Raises
    ------
    VihierError
        As `vihier.read_screen` for the header of each; or a key column that only some of the tables have.
    """

    def __init__(self, paths: Sequence[Path], mapping: Mapping[str, str] | None) -> None:
        self.sources: list[ChunkedSource] = [_opened(path) for path in paths]
        self.plans = [plan_columns(source.name, source.column_names(), mapping) for source in self.sources]
        self.sizes = [path.stat().st_size for path in paths]
        self.name = str(paths[0])
        if len(paths) > 1:
            self.name += f" and {counted(len(paths) - 1, 'other table')}"
        self._starts = [0]

    @property
    def plan(self) -> ColumnPlan:
        """Columns of the first table; the others' may be called otherwise and stand in another order."""
        return self.plans[0]

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(self.sizes)

    def refuse_unlike(self, names: Collection[str]) -> None:
        """Refuse tables of which some have one of these columns and others lack it."""
        for name in names:
            having = [name in plan.position for plan in self.plans]
            if all(having) or not any(having):
                continue
            lacks, has = self.sources[having.index(False)].name, self.sources[having.index(True)].name
            cure = "give all tables the column, or none"
            if self.plan.kind(name) is not Kind.KEY:
                cure += ", or name the covariates to keep (--covariates A,B)"
            raise fault(lacks, f"column {name!r} is missing, and {has} has it", cure=cure)

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Yield the columns of these names, all tables' rows in turn.

        Raises
        ------
        VihierError
            A file that cannot be read or parsed, or no rows at all.
        """
        self._starts = [0]
        for number, (source, plan) in enumerate(zip(self.sources, self.plans, strict=True)):
            start = first_row = self._starts[-1]
            places = [plan.position[name] for name in names]
            numeric = {plan.position[name] for name in names if plan.kind(name) is Kind.NUMBER}
            before = sum(self.sizes[:number])
            try:
                for table, share in _of_fair_size(source.batches(places, numeric)):
                    row_name = _RowName(source, first_row - start)
                    columns = {
                        name: Column(source.name, name, plan.header[name], values, row_name)
                        for name, values in zip(names, table.columns, strict=True)
                    }
                    yield Chunk(columns, len(table), first_row, before + round(share * self.sizes[number]), number)
                    first_row += len(table)
            except OSError as error:
                raise _unreadable(source.name, error) from error
            self._starts.append(first_row)
        if self._starts[-1] == 0:
            raise no_rows(self.name)

    def column(self, name: str) -> Column:
        """Return a column to point at, rows counted over all tables; it holds no values."""
        return _ColumnOfAll(self.name, name, self.plan.header[name], pa.chunked_array([[]]), self.row_name, self)

    def row_name(self, row: int) -> str:
        """Return what the user calls a row that is counted over all tables."""
        number, local = self.place(row)
        name = self.sources[number].row_name(local)
        return name if len(self.sources) == 1 else f"{self.sources[number].name}, {name}"

    def place(self, row: int) -> tuple[int, int]:
        """Return which table a row is in, and its place there."""
        number = min(bisect_right(self._starts, row), len(self.sources)) - 1
        return number, row - self._starts[number]


@dataclass(frozen=True, eq=False)
class _RowName:
    source: ChunkedSource
    first_row: int

    def __call__(self, row: int) -> str:
        return self.source.row_name(self.first_row + row)


@dataclass(frozen=True, eq=False)
class _ColumnOfAll(Column):
    """Names the table that the row is in, the row as that table's, and other rows with their table."""

    tables: Tables

    def fault(self, problem: str, *, cure: str, row: int | None = None) -> VihierError:
        if row is None:
            return super().fault(problem, cure=cure)
        number, local = self.tables.place(row)
        source, header = self.tables.sources[number], self.tables.plans[number].header[self.name]
        here = Column(source.name, self.name, header, self.data, source.row_name)
        return here.fault(problem, cure=cure, row=local)


def _of_fair_size(batches: Iterator[tuple[pa.Table, float]]) -> Iterator[tuple[pa.Table, float]]:
    """Join small batches (of text, of small row groups)."""
    waiting: list[pa.Table] = []
    share = 0.0
    for batch, reached in batches:
        for start in range(0, len(batch), CHUNK_ROWS):
            table = batch.slice(start, CHUNK_ROWS)
            n_rows = sum(map(len, waiting))
            # A text column changes its type where a value is no number; Arrow joins only what has one type.
            if waiting and (table.schema != waiting[0].schema or n_rows + len(table) > CHUNK_ROWS):
                yield pa.concat_tables(waiting), share
                waiting = []
            waiting.append(table)
        share = reached
    if waiting:
        yield pa.concat_tables(waiting), share


def _opened(path: Path) -> ChunkedSource:
    try:
        return chunked(path)
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _unreadable(name: str, error: OSError) -> VihierError:
    return fault(name, f"cannot be read ({error.strerror or error})", cure="check the file and its rights")
