"""Which gene each sgRNA of a matrix cuts, from a guide map or from the matrix's own second column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vihier.screen.faults import fault, shown
from vihier.screen.importing.maps import MapTable
from vihier.screen.importing.matrix import Matrix
from vihier.screen.importing.symbols import NO_GENE

OnConflict = Literal["error", "drop"]
DROP = "correct it, or drop such sgRNAs with on_conflict='drop' (--on-conflict drop)"


@dataclass(frozen=True, eq=False)
class Sgrnas:
    """The sgRNAs of a matrix, in its order.

    Attributes
    ----------
    genes
        Object [S] as the source writes them; None for an sgRNA that is left out.
    columns
        Further columns of the long table, each [S]: float64, or object with None where missing.
    left_out
        Reason to number of sgRNAs.
    """

    genes: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def from_guide_map(table: MapTable, matrix: Matrix, *, all_sgrnas: bool, on_conflict: OnConflict) -> Sgrnas:
    """Look sgRNAs up in a guide map of Chronos or DepMap.

    A map may list an sgRNA several times, once an alignment; its rows must agree on the gene.

    Parameters
    ----------
    table
        Read with ``maps.GUIDE_MAP``.
    matrix
        Its entities are the sgRNAs, [S].
    all_sgrnas
        Keep those whose ``UsedByChronos`` is false as well.
    on_conflict
        An sgRNA with two genes: refuse, or leave it out and count it.

    Raises
    ------
    VihierError
        An sgRNA with two genes, or a map that has none of the matrix's sgRNAs.
    """
    listed = table.labels("sgrna")
    genes = table.labels("hugo_symbol")
    used = table.flags("used") | all_sgrnas
    place = {sgrna: at for at, sgrna in enumerate(matrix.entities)}
    row_of = np.full(len(matrix.entities), -1)
    unused = np.zeros(len(matrix.entities), dtype=bool)
    conflict = np.zeros(len(matrix.entities), dtype=bool)
    for row, sgrna in enumerate(listed):
        at = place.get(sgrna)
        if at is None:
            continue
        if not used[row]:
            unused[at] = True
        elif row_of[at] < 0 or genes[row_of[at]] is None:
            row_of[at] = row
        elif genes[row] is not None and genes[row] != genes[row_of[at]]:
            conflict[at] = True
            if on_conflict == "error":
                where = f"column {shown(table.columns['hugo_symbol'].header)}, {table.row_name(row)}"
                first = f"{shown(genes[row_of[at]])} at {table.row_name(int(row_of[at]))}"
                problem = f"sgRNA {shown(sgrna)} has gene {shown(genes[row])} here and {first}"
                raise fault(table.source, where, problem, cure=DROP)
    if (row_of < 0).all() and not unused.any():
        problem = f"it has none of the sgRNAs of {matrix.source}, such as {shown(matrix.entities[0])}"
        raise fault(table.source, problem, cure="give the guide map of the same library")
    found = np.append(genes, np.array([None], dtype=object))[row_of]
    reasons = {
        "sgRNAs not in the guide map": (row_of < 0) & ~unused,
        "sgRNAs not used, by the guide map's UsedByChronos": (row_of < 0) & unused,
        "sgRNAs with two genes": conflict,
        "sgRNAs without a gene": (row_of >= 0) & _no_gene(found) & ~conflict,
    }
    columns: dict[str, np.ndarray] = {}
    if "genome_alignment" in table.columns:
        columns["genome_alignment"] = np.append(table.labels("genome_alignment"), np.array([None]))[row_of]
    n_alignments = table.numbers("n_alignments")
    if n_alignments is not None:
        columns["n_alignments"] = np.append(n_alignments, np.nan)[row_of]
    return _without(table.source, found, reasons, columns)


def from_second_column(matrix: Matrix, *, on_conflict: OnConflict) -> Sgrnas:
    """Take genes from the second column of a count or fold-change table.

    Raises
    ------
    VihierError
        An sgRNA that is in two rows, or no gene at all.
    """
    genes = matrix.second
    assert genes is not None
    first: dict[str, int] = {}
    conflict = np.zeros(len(genes), dtype=bool)
    for row, sgrna in enumerate(matrix.entities):
        if first.setdefault(sgrna, row) == row:
            continue
        before = first[sgrna]
        if genes[row] == genes[before] or on_conflict == "error":
            same = genes[row] == genes[before]
            what = "" if same else f" withs {shown(genes[before])} and {shown(genes[row])}"
            problem = f"sgRNA {shown(sgrna)} is there twice, as rows {before + 1} and {row + 1}{what}"
            raise fault(matrix.source, problem, cure="give every sgRNA one row" if same else DROP)
        conflict[[before, row]] = True
    return _without(
        matrix.source,
        genes,
        {"sgRNAs with two genes": conflict, "sgRNAs without a gene": _no_gene(genes) & ~conflict},
        {},
    )


def _no_gene(genes: np.ndarray) -> np.ndarray:
    return np.array([gene is None or gene in NO_GENE for gene in genes])


def _without(source: str, genes: np.ndarray, reasons: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> Sgrnas:
    genes = genes.copy()
    for marked in reasons.values():
        genes[marked] = None
    left_out = {reason: int(marked.sum()) for reason, marked in reasons.items() if marked.any()}
    if all(gene is None for gene in genes):
        why = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise fault(source, f"no sgRNA is left ({why})", cure="give a table that names their genes")
    return Sgrnas(genes, columns, left_out)
