"""A wide table of sgRNAs by samples, whatever file it comes from, held in a temporary file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vihier.screen.faults import fault, nearest, shown
from vihier.screen.importing.hdf5_matrix import Hdf5Matrix
from vihier.screen.importing.spool import Spool
from vihier.screen.importing.wide_text import WideText
from vihier.screen.read import refuse_no_file

Quantity = Literal["count", "log fold change", "copy number"]
HDF5 = b"\x89HDF"


@dataclass(frozen=True, eq=False)
class Matrix:
    """Numbers [entities, samples]: sgRNAs by samples, or genes by lines.

    Attributes
    ----------
    source
        The file, for messages.
    entities, samples
        Unique labels, object [S] and [R]. A label of ``entities`` repeats only where ``second`` is there to tell.
    values
        Float64 [S, R], in a temporary file.
    second
        The second label of each entity (its gene, None where missing), object [S], where the file has one.
    """

    source: str
    entities: np.ndarray
    samples: np.ndarray
    values: Spool
    second: np.ndarray | None = None


def read_matrix(
    path: Path,
    folder: Path,
    quantity: Quantity,
    *,
    samples: Collection[str] | None = None,
    with_genes: bool = False,
) -> Matrix:
    """Read a wide table, in text or in Chronos's HDF5 layout, into a temporary file.

    Parameters
    ----------
    path
        The file. Text has one column of labels first (two ``with_genes``).
    folder
        Where the temporary file is made.
    quantity
        What the numbers are: counts must not be negative; all must be finite.
    samples
        Known names of samples, by which it is told whether they are the rows or the columns; None: the columns.
    with_genes
        The second column of text is the gene of the sgRNA.

    Raises
    ------
    VihierError
        No such file or no such table, or a number that cannot be one of its quantity, with its row and column.
    """
    refuse_no_file(path)
    try:
        with path.open("rb") as file:
            is_hdf5 = file.read(4) == HDF5
        if is_hdf5 and with_genes:
            cure = "give a table in text: sgRNA, gene, then one column a sample"
            raise fault(str(path), "this is an HDF5 file", cure=cure)
        return (
            _from_hdf5(path, folder, quantity, samples)
            if is_hdf5
            else _from_text(path, folder, quantity, samples, with_genes)
        )
    except OSError as error:
        cure = "check the file and its rights, and that there is room on the disk"
        raise fault(str(path), f"cannot be read ({error.strerror or error})", cure=cure) from error


def _from_text(
    path: Path, folder: Path, quantity: Quantity, samples: Collection[str] | None, with_genes: bool
) -> Matrix:
    table = WideText(path, 2 if with_genes else 1)
    columns = np.array(table.number_names, dtype=object)
    spool = Spool(folder, len(columns))
    try:
        read: list[list[np.ndarray]] = [[] for _ in range(table.n_labels)]
        for block in table.blocks():
            if (block.labels[0] == None).any():  # noqa: E711 - element by element
                row = block.first_row + int(np.argmax(block.labels[0] == None))  # noqa: E711
                raise fault(table.name, table.row_name(row), "the label is missing", cure="fill it in")
            check_values(table.name, block.values, block.labels[0], columns, quantity)
            spool.append(block.values)
            for parts, part in zip(read, block.labels, strict=True):
                parts.append(part)
        rows = np.concatenate(read[0])
        if with_genes:
            return Matrix(table.name, rows, columns, spool, np.concatenate(read[1]))
        refuse_repeats(table.name, rows)
        if samples is None or _samples_are_columns(table.name, rows, columns, samples):
            return Matrix(table.name, rows, columns, spool)
        return Matrix(table.name, columns, rows, spool.transposed())
    except BaseException:
        spool.close()
        raise


def _from_hdf5(path: Path, folder: Path, quantity: Quantity, samples: Collection[str] | None) -> Matrix:
    table = Hdf5Matrix(path)
    try:
        for labels in (table.rows, table.columns):
            refuse_repeats(table.name, labels)
        upright = samples is None or _samples_are_columns(table.name, table.rows, table.columns, samples)
        entities, names = (table.rows, table.columns) if upright else (table.columns, table.rows)
        spool = Spool(folder, len(names))
        try:
            for start, read in table.row_blocks() if upright else table.column_blocks():
                block = read if upright else read.T
                check_values(table.name, block, entities[start : start + len(block)], names, quantity)
                spool.append(block)
        except BaseException:
            spool.close()
            raise
        return Matrix(table.name, entities, names, spool)
    finally:
        table.close()


def check_values(source: str, values: np.ndarray, rows: np.ndarray, columns: np.ndarray, quantity: Quantity) -> None:
    """Raise for the first value [rows, columns] that is infinite, or negative where it is a count."""
    wrong = np.isinf(values)
    if quantity == "count":
        wrong |= values < 0
    if not wrong.any():
        return
    row, column = (int(place) for place in np.argwhere(wrong)[0])
    value = values[row, column]
    problem = f"value {value:g} is {'infinite' if np.isinf(value) else 'negative'}, which no {quantity} is"
    where = f"row {shown(rows[row])}, column {shown(columns[column])}"
    cure = "correct it, or write NA"
    if quantity == "count" and not np.isinf(value):
        cure += "; log fold changes are read by 'vihier import depmap' or 'bagel'"
    raise fault(source, where, problem, cure=cure)


def refuse_repeats(source: str, labels: np.ndarray) -> None:
    """Raise for the first label that is there twice."""
    if len(set(labels)) == len(labels):
        return
    seen: dict[str, int] = {}
    for place, label in enumerate(labels, start=1):
        if label in seen:
            problem = f"label {shown(label)} is there twice, at places {seen[label]} and {place}"
            raise fault(source, problem, cure="every sgRNA and every sample needs a name of its own: remove one")
        seen[label] = place


def _samples_are_columns(source: str, rows: np.ndarray, columns: np.ndarray, samples: Collection[str]) -> bool:
    known = set(samples)
    n_columns, n_rows = (sum(label in known for label in labels) for labels in (columns, rows))
    if not n_columns and not n_rows:
        there = f"columns such as {shown(columns[0])}, rows such as {shown(rows[0])}"
        close = nearest(str(columns[0]), known) or nearest(str(rows[0]), known)
        cure = "give the map that belongs to it"
        raise fault(source, f"neither its columns nor its rows are samples of the map ({there}{close})", cure=cure)
    return n_columns >= n_rows


def codes_of(labels: Iterable[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return int32 codes (-1 for None) and the sorted unique labels, object.

    Examples
    --------
    >>> codes, found = codes_of(["b", None, "a", "b"])
    >>> codes.tolist(), found.tolist()
    ([1, -1, 0, 1], ['a', 'b'])
    """
    listed = list(labels)
    found = sorted({label for label in listed if label is not None})
    code = {label: place for place, label in enumerate(found)}
    codes = np.array([-1 if label is None else code[label] for label in listed], dtype=np.int32)
    return codes, np.array(found, dtype=object)
