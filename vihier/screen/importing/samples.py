"""What is known of the samples of a matrix: their lines, batches and roles, from a sequence map or a sample sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vihier.errors import VihierError
from vihier.screen.faults import fault, shown
from vihier.screen.importing.maps import MapTable, carried_values, role_of, rows_of
from vihier.screen.importing.matrix import codes_of
from vihier.screen.importing.normalise import Batches

ONE_BATCH = "all"


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a matrix, in its order.

    Attributes
    ----------
    source
        The map they come from, for messages.
    names
        Object [R].
    line
        Object [R]; None is possible for plasmid samples only.
    initial
        bool [R]: plasmid samples, and those taken before the screen began.
    kept
        bool [R]: those whose rows are written; none of the initial ones.
    batch
        Object [R], None for a sample without one.
    columns
        Further columns of the long table, each [R]: float64, or object with None where missing.
    notes
        What a user should know of how they were read.
    """

    source: str
    names: np.ndarray
    line: np.ndarray
    initial: np.ndarray
    kept: np.ndarray
    batch: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def batches(self) -> Batches:
        """Return the batches as codes.

        Raises
        ------
        VihierError
            A kept sample without a batch, or whose batch has no plasmid sample.
        """
        codes, found = codes_of(self.batch)
        with_plasmid = set(codes[self.initial])
        cure = "correct the map, or leave the plasmid out of it (--no-plasmid)"
        if not self.initial.any():
            problem = "none of the samples is a plasmid or initial one"
            raise fault(self.source, problem, cure="mark them in the map, or leave the plasmid out (--no-plasmid)")
        for place in np.flatnonzero(self.kept):
            if codes[place] < 0:
                raise fault(self.source, f"sample {shown(self.names[place])} has no plasmid batch", cure=cure)
            if codes[place] not in with_plasmid:
                problem = f"no plasmid sample is of batch {shown(self.batch[place])}"
                raise fault(self.source, f"sample {shown(self.names[place])}", problem, cure=cure)
        return Batches(self.initial, codes.astype(np.int64), len(found))


def from_sequence_map(table: MapTable, names: Sequence[str], matrix: str, *, passing_only: bool) -> Samples:
    """Look samples up in a sequence map (replicate map) of Chronos or DepMap.

    Parameters
    ----------
    table
        Read with ``maps.SEQUENCE_MAP``.
    names
        Samples of the matrix, [R].
    matrix
        The matrix's file, for messages.
    passing_only
        Leave out the samples whose ``PassesQC`` is false.

    Raises
    ------
    VihierError
        A sample that is not in the map, is there twice, or has no line.
    """
    rows = rows_of(table, "sample", names, f"{matrix} has it: add it to the map, or take it out there")
    line, kind = table.labels("depmap_id")[rows], table.labels("type")[rows]
    is_plasmid = [(each or "").casefold() == "pdna" for each in kind]
    initial = np.array(
        [role_of(table, 0, None, of) == "initial" or is_pool for of, is_pool in zip(line, is_plasmid, strict=True)]
    )
    line[initial] = None
    passes = table.flags("passes_qc")[rows]
    kept = ~initial & (passes | (not passing_only))
    _check_lines(table, rows, np.array(names, dtype=object), line, kept)
    notes = []
    n_failing = int((~passes & ~initial).sum())
    if n_failing:
        what = "were left out" if passing_only else "are kept; --passing-only leaves them out"
        notes.append(f"{n_failing:,} of {int((~initial).sum()):,} replicates have PassesQC false and {what}")
    columns = {}
    days = table.numbers("days")
    if days is not None:
        columns["days"] = days[rows]
    batch = table.labels("p_dna_batch")[rows]
    if "p_dna_batch" in table.columns:
        columns["p_dna_batch"] = batch
    labels = np.array(names, dtype=object)
    columns["replicate_id"] = labels
    return Samples(table.source, labels, line, initial, kept, batch, columns, tuple(notes))


def from_sheet(table: MapTable, names: Sequence[str], matrix: str) -> Samples:
    """Look samples up in a sample sheet; columns that are not known are carried along.

    Parameters
    ----------
    table
        Read with ``maps.SAMPLE_SHEET``.
    names
        Columns of the matrix.
    matrix
        The matrix's file, for messages.

    Returns
    -------
    Samples
        In the order of ``names``.

    Raises
    ------
    VihierError
        A sample that is in one of the two only or is there twice, has no line, or an unknown role.
    """
    rows = rows_of(table, "sample", names, f"{matrix} has that column: add a row for it")
    absent = [name for name in table.labels("sample") if name is not None and name not in set(names)]
    if absent:
        where = f"column {shown(table.columns['sample'].header)}"
        raise fault(table.source, where, f"sample {shown(absent[0])} is not in {matrix}", cure="take the row out")
    line, role = table.labels("depmap_id")[rows], table.labels("role")[rows]
    roles = [role_of(table, int(row), *each) for row, *each in zip(rows, role, line, strict=True)]
    initial = np.array([each == "initial" for each in roles])
    line[initial] = None
    labels = np.array(names, dtype=object)
    _check_lines(table, rows, labels, line, ~initial)
    columns = {}
    replicate = table.labels("replicate_id")[rows]
    named = [a if a is not None else b for a, b in zip(replicate, labels, strict=True)]
    columns["replicate_id"] = np.array(named, dtype=object)
    batch = table.labels("p_dna_batch")[rows]
    if "p_dna_batch" in table.columns:
        columns["p_dna_batch"] = batch
    else:
        batch = np.full(len(rows), ONE_BATCH, dtype=object)
    if "lineage" in table.columns:
        columns["lineage"] = table.labels("lineage")[rows]
        _check_lineages(table, rows, columns["lineage"], line, ~initial)
    for name, column in table.others.items():
        values = carried_values(column)
        if values is not None and name not in columns:
            columns[name] = values[rows]
    return Samples(table.source, labels, line, initial, ~initial, batch, columns)


def _check_lines(table: MapTable, rows: np.ndarray, names: np.ndarray, line: np.ndarray, kept: np.ndarray) -> None:
    for place in np.flatnonzero(kept):
        if line[place] is None:
            where = f"column {shown(table.columns['depmap_id'].header)}, {table.row_name(int(rows[place]))}"
            problem = f"sample {shown(names[place])} has no line"
            raise fault(table.source, where, problem, cure="name its line, or mark it as plasmid (initial)")
    if not kept.any():
        raise fault(table.source, "no sample of the matrix is of a line", cure="look at its column of lines")


def _check_lineages(table: MapTable, rows: np.ndarray, lineage: np.ndarray, line: np.ndarray, kept: np.ndarray) -> None:
    of_line: dict[str, str] = {}
    for place in np.flatnonzero(kept):
        where = f"column {shown(table.columns['lineage'].header)}, {table.row_name(int(rows[place]))}"
        if lineage[place] is None:
            raise _no_lineage(table, where, line[place])
        first = of_line.setdefault(line[place], lineage[place])
        if first != lineage[place]:
            problem = f"line {shown(line[place])} has {shown(lineage[place])} here and {shown(first)} above"
            raise fault(table.source, where, problem, cure="give the line one lineage")


def _no_lineage(table: MapTable, where: str, line: str) -> VihierError:
    cure = "fill it in for every line, or take the column out"
    return fault(table.source, where, f"line {shown(line)} has no lineage", cure=cure)
