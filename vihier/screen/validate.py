"""Columns of a table -> a validated screen: what DESIGN section 1 asks of a table is asked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vihier.errors import VihierError
from vihier.screen.assemble import assemble
from vihier.screen.columns import KINDS, Kind
from vihier.screen.faults import fault, shown
from vihier.screen.labels import ONE_LINEAGE, per_screen_sgrnas, replicate_labels, suspicious_genes
from vihier.screen.report import ReadReport, counted
from vihier.screen.screen import Screen, ScreenIndex
from vihier.screen.values import Column, Labels, carried, flags, kind_name, labels, numbers

LARGEST_LFC = 20.0
TWO_GENES = "sgRNA with two genes"
EMPTY_COLUMN = "column {!r} is empty and was taken as absent"
OPTIONAL_KEYS = ("lineage", "replicate_id", "screen")
KEYS = ("sgrna", "hugo_symbol", "depmap_id", *OPTIONAL_KEYS)
READERS: dict[Kind, Callable[[Column], np.ndarray | Labels | None]] = {
    Kind.NUMBER: numbers,
    Kind.FLAG: flags,
    Kind.CATEGORY: labels,
    Kind.CARRIED: carried,
}


@dataclass
class Findings:
    """What is noticed on the way, for the report."""

    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    exact_copies: int = 0


@dataclass(frozen=True, eq=False)
class Options:
    """How ``read_screen`` was asked to read; see there."""

    single_lineage: bool = False
    on_conflict: Literal["error", "drop"] = "error"
    sgrna_per_screen: bool = True


def validate(columns: dict[str, Column], options: Options, findings: Findings) -> Screen:
    """Return the screen that these columns hold, or refuse them.

    Parameters
    ----------
    columns
        Our name to the column; the required ones are there, all of one length. Covariates are taken out as they are
        read, so that a large table is not held twice.
    options
        What the caller asked for.
    findings
        Is added to.

    Raises
    ------
    VihierError
        Any fault, in one line.
    """
    lfc = read_lfc(columns["lfc"])
    rows = np.flatnonzero(~np.isnan(lfc))
    if len(rows) < len(lfc):
        findings.dropped["missing lfc"] = len(lfc) - len(rows)
    if not len(rows):
        raise columns["lfc"].fault("every value is missing", cure="give at least one measured row")
    keys = _keys(columns, rows, options, findings)
    if "screen" in keys and options.sgrna_per_screen:
        keys["sgrna"] = per_screen_sgrnas(columns["sgrna"], keys["sgrna"], keys["screen"], findings.warnings)
    gene_of_sgrna, kept = nested_genes(columns, rows, keys, options, findings)
    lineage_of_line = None
    if "lineage" in keys:
        lineage_of_line = nested_lineages(columns, rows, keys)
    replicate, replicates, replicate_ids, line_of_replicate = replicate_labels(
        columns["depmap_id"], keys["depmap_id"], keys.get("replicate_id"), keys.get("screen")
    )
    covariates, categories = _covariates(columns, rows, keys, findings)
    index = ScreenIndex(
        sgrnas=keys["sgrna"].labels,
        genes=keys["hugo_symbol"].labels,
        lines=keys["depmap_id"].labels,
        lineages=keys["lineage"].labels if "lineage" in keys else None,
        replicates=replicates,
        gene_of_sgrna=gene_of_sgrna,
        lineage_of_line=lineage_of_line,
        line_of_replicate=line_of_replicate,
        categories=categories,
        replicate_ids=replicate_ids,
    )
    sgrna, line = keys["sgrna"].codes, keys["depmap_id"].codes
    if not kept.all():
        rows, sgrna, line, replicate = rows[kept], sgrna[kept], line[kept], replicate[kept]
        covariates = {name: values[kept] for name, values in covariates.items()}
    if replicate_ids is not None:
        _refuse_duplicates(columns, rows, sgrna, replicate, index)
    report = ReadReport(columns["lfc"].source, len(lfc), len(rows))
    screen = assemble(index, sgrna, line, replicate, _at(lfc, rows), covariates, report)
    if replicate_ids is None:
        row_columns = (screen.sgrna, screen.line, screen.replicate, screen.lfc, *screen.covariates.values())
        warn_of_copies(count_copies(row_columns), findings)
    return screen


def require_lineage(screen: Screen, model: str) -> None:
    """Raise where a model that uses lineages is given a screen that has none.

    Raises
    ------
    VihierError
        With the cure: a lineage column, or ``--single-lineage``.
    """
    if screen.index.lineages is None:
        raise fault(
            screen.report.source,
            "column 'lineage' is missing",
            f"model {model!r} needs the lineage of every line",
            cure="add or map the column, or put all lines in one with single_lineage=True (--single-lineage)",
        )


def read_lfc(column: Column) -> np.ndarray:
    """Read log2 fold changes as float64 [rows], NaN where missing; what is none is refused with its row."""
    lfc = numbers(column)
    cure = f"lfc is a log2 fold change within [-{LARGEST_LFC:g}, {LARGEST_LFC:g}]: correct it, or write NA"
    wrong = np.abs(lfc) > LARGEST_LFC  # NaN compares false
    if wrong.any():
        row = int(np.argmax(wrong))
        infinite = "is infinite" if np.isinf(lfc[row]) else "is out of range"
        raise column.fault(f"value {lfc[row]:g} {infinite}", row=row, cure=cure)
    return lfc


def _keys(columns: Mapping[str, Column], rows: np.ndarray, options: Options, findings: Findings) -> dict[str, Labels]:
    """Return the labels of each key column at the rows kept; none of them is missing."""
    keys: dict[str, Labels] = {}
    trimmed: dict[str, int] = {}
    for name in KEYS:
        if name not in columns or (name == "lineage" and options.single_lineage):
            continue
        column = columns[name]
        read = labels(column, key=True)
        trimmed[name] = read.n_trimmed
        at_rows = Labels(_at(read.codes, rows), read.labels)
        missing = at_rows.codes < 0
        if name in OPTIONAL_KEYS and missing.all():
            findings.warnings.append(EMPTY_COLUMN.format(name))
            continue
        if missing.any():
            raise missing_key(column, int(rows[np.argmax(missing)]))
        keys[name] = at_rows
    warn_of_labels(trimmed, options.single_lineage and "lineage" in columns, findings)
    if options.single_lineage:
        keys["lineage"] = Labels(np.zeros(len(rows), dtype=np.int32), np.array([ONE_LINEAGE], dtype=object))
    findings.warnings += suspicious_genes(keys["hugo_symbol"].labels)
    return keys


def warn_of_labels(trimmed: Mapping[str, int], set_aside: bool, findings: Findings) -> None:
    """Add what is to be said of labels that were changed: white space (rows by column), lineages set aside."""
    n_trimmed = sum(trimmed.values())
    if n_trimmed:
        where = ", ".join(name for name, count in trimmed.items() if count)
        findings.warnings.append(f"white space was taken off {counted(n_trimmed, 'label')} ({where})")
    if set_aside:
        findings.warnings.append(f"the table's lineages were set aside: all lines are in one, {ONE_LINEAGE!r}")


def _at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return values if len(rows) == len(values) else values[rows]


def missing_key(column: Column, row: int) -> VihierError:
    """Return the error for a row (from 0) whose label in this column is missing."""
    cures = {
        "lineage": "fill it in for every line, or put all lines in one with single_lineage=True (--single-lineage)",
        "replicate_id": "name the replicate of every row, or take the column out",
        "screen": "name the screen of every row, or take the column out",
        "hugo_symbol": "name the gene, or take the row out (a control sgRNA needs a gene name too)",
    }
    value = column.data[row].as_py()
    held = "" if value is None else f" (value {shown(value)})"
    cure = cures.get(column.name, "fill it in, or take the row out")
    return column.fault(f"the label is missing{held}", row=row, cure=cure)


def _nested(child: np.ndarray, parent: np.ndarray, n_children: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each child's parent, int64 [children], and which rows disagree with it, bool [N]."""
    parent_of_child = np.zeros(n_children, dtype=np.int64)
    # The last assignment wins, so backwards the first row of a child does.
    parent_of_child[child[::-1]] = parent[::-1]
    return parent_of_child, parent_of_child[child] != parent


def nested_genes(
    columns: Mapping[str, Column], rows: np.ndarray, keys: Mapping[str, Labels], options: Options, findings: Findings
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gene of each sgRNA, int64 [S], and which rows are kept, bool [rows]."""
    sgrna, gene = keys["sgrna"], keys["hugo_symbol"]
    gene_of_sgrna, disagree = _nested(sgrna.codes, gene.codes, len(sgrna.labels))
    if not disagree.any():
        return gene_of_sgrna, np.ones(len(rows), dtype=bool)
    column = columns["hugo_symbol"]
    if options.on_conflict == "error":
        raise _two_parents(
            column,
            rows,
            sgrna,
            gene,
            disagree,
            "sgRNA",
            "correct it, or drop such sgRNAs with on_conflict='drop' (--on-conflict drop)",
        )
    two_genes = np.zeros(len(sgrna.labels), dtype=bool)
    two_genes[sgrna.codes[disagree]] = True
    kept = ~two_genes[sgrna.codes]
    findings.dropped[TWO_GENES] = int((~kept).sum())
    findings.warnings.append(f"{counted(int(two_genes.sum()), 'sgRNA')} with two genes dropped")
    if not kept.any():
        raise column.fault("every sgRNA has two genes, so no row is left", cure="look at the table's sgRNA-gene map")
    return gene_of_sgrna, kept


def nested_lineages(columns: Mapping[str, Column], rows: np.ndarray, keys: Mapping[str, Labels]) -> np.ndarray:
    """Return the lineage of each line, int64 [C]; a line with two is refused."""
    line, lineage = keys["depmap_id"], keys["lineage"]
    lineage_of_line, disagree = _nested(line.codes, lineage.codes, len(line.labels))
    if disagree.any():
        cure = "give the line one lineage, or put all lines in one with single_lineage=True (--single-lineage)"
        raise _two_parents(columns["lineage"], rows, line, lineage, disagree, "line", cure)
    return lineage_of_line


def _two_parents(
    column: Column, rows: np.ndarray, child: Labels, parent: Labels, disagree: np.ndarray, what: str, cure: str
) -> VihierError:
    second = int(np.argmax(disagree))
    first = int(np.argmax(child.codes == child.codes[second]))
    names = [shown(parent.labels[parent.codes[row]]) for row in (second, first)]
    problem = (
        f"{what} {shown(child.labels[child.codes[second]])} has {names[0]} here and {names[1]} at "
        f"{column.row_name(int(rows[first]))}"
    )
    return column.fault(problem, row=int(rows[second]), cure=cure)


def _refuse_duplicates(
    columns: Mapping[str, Column], rows: np.ndarray, sgrna: np.ndarray, replicate: np.ndarray, index: ScreenIndex
) -> None:
    # A replicate's code already says the line and the screen.
    key = sgrna.astype(np.int64) * len(index.replicates) + replicate
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    if not len(again):
        return
    pair = min(again, key=lambda place: order[place + 1])
    first, second = int(order[pair]), int(order[pair + 1])
    labels = index.sgrnas[sgrna[second]], index.replicates[replicate[second]]
    raise duplicate_rows(columns["replicate_id"], int(rows[first]), int(rows[second]), *labels, len(again))


def duplicate_rows(column: Column, first: int, second: int, sgrna: str, replicate: str, count: int) -> VihierError:
    """Return the error for two rows (from 0) of one key, the first such pair of `count`."""
    problem = (
        f"a duplicate of {column.row_name(first)} (sgRNA {shown(sgrna)}, replicate {shown(replicate)}; "
        f"{counted(count, 'duplicate')} in all)"
    )
    cure = "take one out, name their replicates apart, or add the column 'screen' if they are of two screens"
    return column.fault(problem, row=second, cure=cure)


def count_copies(columns: Iterable[np.ndarray]) -> int:
    """Count the rows equal to the one before them in every column [N]; in canonical order copies are neighbours."""
    same: np.ndarray | bool = True
    for values in columns:
        equal = values[1:] == values[:-1]
        if values.dtype.kind == "f":
            equal |= np.isnan(values[1:]) & np.isnan(values[:-1])
        same = same & equal
    return int(np.sum(same))


def warn_of_copies(count: int, findings: Findings) -> None:
    """Note the number of exact copies in a table without ``replicate_id``."""
    findings.exact_copies = count
    if count:
        findings.warnings.append(
            f"{counted(count, 'row')} of the table are exact copies of another row and were kept as "
            "replicates, because there is no 'replicate_id'"
        )


def _covariates(
    columns: dict[str, Column], rows: np.ndarray, keys: Mapping[str, Labels], findings: Findings
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return per-row values or codes, and the labels of the coded ones; their columns are used up."""
    values: dict[str, np.ndarray] = {}
    categories: dict[str, np.ndarray] = {}
    if "screen" in keys:
        values["screen"], categories["screen"] = keys["screen"].codes, keys["screen"].labels
    for name in [name for name in columns if name != "lfc" and KINDS.get(name) is not Kind.KEY]:
        column = columns.pop(name)
        kind = KINDS.get(name, Kind.CARRIED)
        read = READERS[kind](column)
        if read is None:
            findings.ignored[column.header] = f"it holds {kind_name(column.data.type)}"
        elif isinstance(read, Labels):
            values[name], categories[name] = _at(read.codes, rows), read.labels
        else:
            values[name] = _at(read, rows)
            _look_for_infinity(column, kind, values[name], rows, findings)
    return values, categories


def _look_for_infinity(column: Column, kind: Kind, values: np.ndarray, rows: np.ndarray, findings: Findings) -> None:
    infinite = np.isinf(values)
    if not infinite.any():
        return
    first = int(np.argmax(infinite))
    if kind is Kind.NUMBER:
        raise infinite_value(column, values[first], int(rows[first]))
    warn_of_infinity(column, int(infinite.sum()), int(rows[first]), findings)


def infinite_value(column: Column, value: float, row: int) -> VihierError:
    """Return the error for an infinite value where a number is needed."""
    cure = "give a finite number, or NA where there is none"
    return column.fault(f"value {value:g} is infinite", row=row, cure=cure)


def warn_of_infinity(column: Column, count: int, first: int, findings: Findings) -> None:
    """Note infinite values of a column that is only carried along."""
    values = counted(count, "infinite value")
    findings.warnings.append(f"column {column.name!r} has {values}, the first at {column.row_name(first)}")
