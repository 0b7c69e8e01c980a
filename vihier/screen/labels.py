"""Labels that are made or looked at as a whole: sgRNAs of two screens, replicates, doubtful gene names."""

from __future__ import annotations

import re

import numpy as np

from vihier.screen.faults import shown
from vihier.screen.report import counted
from vihier.screen.values import Column, Labels

ONE_LINEAGE = "all"
UNNAMED_REPLICATE = "all"
MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
# What spreadsheets make of MARCH1, SEPT2, DEC1 and of clone names such as 2310009E13.
MANGLED = re.compile(
    rf"\d{{1,2}}-{MONTH}(-\d{{2,4}})?|{MONTH}-\d{{1,4}}|\d{{4}}-\d\d-\d\d( 00:00:00)?|\d{{1,2}}/\d{{1,2}}/\d{{2,4}}"
    r"|\d+(\.\d+)?e\+?\d+",
    re.IGNORECASE,
)
NUMERIC = re.compile(r"[+-]?\d+(\.\d+)?")


def per_screen_sgrnas(column: Column, sgrna: Labels, screen: Labels, warnings: list[str]) -> Labels:
    """Make two reagents of a sequence that is in two screens: ``SEQUENCE|screen``, only such ones.

    Libraries differ in vector and tracer RNA, so the same sequence need not have the same efficacy in both.
    """
    n_screens = len(screen.labels)
    pair = sgrna.codes.astype(np.int64) * n_screens + screen.codes
    pairs, codes = np.unique(pair, return_inverse=True)
    sequence, library = np.divmod(pairs, n_screens)
    shared = np.bincount(sequence, minlength=len(sgrna.labels)) > 1
    if not shared.any():
        return sgrna
    names = sgrna.labels[sequence]
    relabelled = shared[sequence]
    names[relabelled] = names[relabelled] + "|" + screen.labels[library[relabelled]]
    warnings.append(
        f"{counted(int(shared.sum()), 'sequence')} in more than one screen: each is one sgRNA a screen, labelled "
        "SEQUENCE|screen"
    )
    return _relabelled(column, names, codes)


def replicate_labels(
    column: Column, line: Labels, replicate_id: Labels | None, screen: Labels | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Name the replicates ``LINE|REPLICATE`` or ``LINE|REPLICATE|SCREEN``.

    Without ``replicate_id`` nothing says which rows of two sgRNAs belong together, so a line's rows (in a screen)
    share one replicate. Numbering them by value would make the first replicate of every cell the lowest.

    Returns
    -------
    tuple
        Codes [rows], labels [R], the table's own ids [R] or None, and the line of each replicate, int64 [R].
    """
    parts = [line]
    parts += [] if replicate_id is None else [replicate_id]
    parts += [] if screen is None else [screen]
    combined = np.zeros(len(line.codes), dtype=np.int64)
    for part in parts:
        combined = combined * len(part.labels) + part.codes
    found, first, codes = np.unique(combined, return_index=True, return_inverse=True)
    names = line.labels[line.codes[first]]
    ids = UNNAMED_REPLICATE if replicate_id is None else replicate_id.labels[replicate_id.codes[first]]
    names = names + "|" + ids
    if screen is not None:
        names = names + "|" + screen.labels[screen.codes[first]]
    named = _relabelled(column, names, np.arange(len(found)))
    line_of_replicate = np.empty(len(found), dtype=np.int64)
    line_of_replicate[named.codes] = line.codes[first]
    replicate_ids = None
    if replicate_id is not None:
        replicate_ids = np.empty(len(found), dtype=object)
        replicate_ids[named.codes] = ids
    return named.codes[codes], named.labels, replicate_ids, line_of_replicate


def suspicious_genes(genes: np.ndarray) -> list[str]:
    """Return a warning for gene names that a spreadsheet has turned into dates or numbers, and for numbers."""
    mangled = [gene for gene in genes if MANGLED.fullmatch(gene)]
    numeric = [gene for gene in genes if NUMERIC.fullmatch(gene)]
    warnings = []
    if mangled:
        warnings.append(
            f"{counted(len(mangled), 'gene name')} may be a date or a number that a spreadsheet made, such as "
            f"{shown(mangled[0])}"
        )
    if numeric:
        warnings.append(f"{counted(len(numeric), 'gene name')} are plain numbers, such as {shown(numeric[0])}")
    return warnings


def _relabelled(column: Column, names: np.ndarray, codes: np.ndarray) -> Labels:
    """Sort labels that were put together, and refuse two that became the same."""
    order = np.argsort(names)
    ranked = names[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(same):
        problem = f"two different rows would both be labelled {shown(ranked[same[0]])}"
        raise column.fault(problem, cure="rename the labels that hold '|'")
    position = np.empty(len(order), dtype=np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    return Labels(position[codes], ranked)
