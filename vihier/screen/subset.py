"""Part of a screen, by label, by covariate or at random, as a screen of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vihier.errors import VihierError
from vihier.screen.assemble import assemble
from vihier.screen.faults import nearest, one_line, shown
from vihier.screen.screen import Screen
from vihier.screen.values import flag_of, label_of


def subset(
    screen: Screen,
    *,
    genes: Sequence[str] | str | None = None,
    lines: Sequence[str] | str | None = None,
    lineages: Sequence[str] | str | None = None,
    n_genes: int | None = None,
    n_lineages: int | None = None,
    where: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Screen:
    """Return the screen of the rows that pass every condition, re-indexed to the labels that are left.

    Parameters
    ----------
    screen
        The whole.
    genes, lines, lineages
        Labels to keep (one, or several).
    n_genes, n_lineages
        How many to draw at random from the sorted labels that the other conditions leave, each by its own stream.
    where
        Column to the value, or the values, to keep: ``{"screen": "broad"}``; compared as labels (3, "3" and 3.0 are
        equal), numbers or true/false, whichever the column holds.
    seed
        Of the random draws.

    Raises
    ------
    VihierError
        An unknown label, column or value (the nearest ones are named), more asked for than there are, or no row left.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import read_screen
    >>> rows = {"sgrna": ["s1", "s2"], "hugo_symbol": ["KRAS", "BRAF"], "depmap_id": "ACH-1", "lfc": [0.5, -1.0]}
    >>> screen = read_screen(pd.DataFrame(rows))
    >>> screen.subset(genes=["BRAF"]).index.genes.tolist()
    ['BRAF']
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise VihierError(f"seed={seed!r} is not a whole number of at least 0; give one")
    keep = _rows_where(screen, where or {})
    if genes is not None:
        keep &= _named(screen.index.genes, genes, "gene")[screen.gene]
    if lines is not None:
        keep &= _named(screen.index.lines, lines, "line")[screen.line]
    if lineages is not None:
        keep &= _named(_lineages(screen), lineages, "lineage")[_lineage(screen)]
    if not keep.any():
        raise VihierError("no row is left by this subset; widen genes, lines, lineages or where")
    # Separate streams: asking for lineages as well does not change which genes are drawn from the same labels.
    drawn = keep.copy()
    if n_lineages is not None:
        drawn &= _drawn(_lineages(screen), _lineage(screen), keep, n_lineages, [seed, 1], "lineage")
    if n_genes is not None:
        drawn &= _drawn(screen.index.genes, screen.gene, drawn, n_genes, [seed, 0], "gene")
    return take_rows(screen, drawn)


def parse_where(conditions: Iterable[str]) -> dict[str, list[str]]:
    """Turn the command line's ``COLUMN=VALUE`` conditions into what ``subset(where=...)`` takes.

    A column given more than once keeps all the values given. Nothing is evaluated.

    Examples
    --------
    >>> parse_where(["screen=broad", "p_dna_batch=2", "p_dna_batch=3"])
    {'screen': ['broad'], 'p_dna_batch': ['2', '3']}
    """
    parsed: dict[str, list[str]] = {}
    for condition in conditions:
        column, equals, value = (part.strip() for part in condition.partition("="))
        if not (column and equals and value):
            raise VihierError(f"condition {condition!r} is not COLUMN=VALUE; write it like screen=broad")
        parsed.setdefault(column, []).append(value)
    return parsed


def take_rows(screen: Screen, keep: np.ndarray) -> Screen:
    """Return the screen of some rows, bool [n], re-indexed to the labels that are left."""
    if not keep.any():
        raise VihierError("no row is left by this subset; widen genes, lines, lineages or where")
    left_out = int(screen.n_rows - keep.sum())
    dropped = dict(screen.report.dropped)
    if left_out:
        dropped["outside the subset"] = dropped.get("outside the subset", 0) + left_out
    report = replace(screen.report, n_rows_kept=int(keep.sum()), dropped=dropped)
    return assemble(
        screen.index,
        screen.sgrna[keep],
        screen.line[keep],
        screen.replicate[keep],
        screen.lfc[keep],
        {name: values[keep] for name, values in screen.covariates.items()},
        report,
    )


def _lineages(screen: Screen) -> np.ndarray:
    if screen.index.lineages is None:
        raise VihierError("column 'lineage' is not in this screen; choose by lines, or read a table that has lineages")
    return screen.index.lineages


def _lineage(screen: Screen) -> np.ndarray:
    assert screen.index.lineage_of_line is not None  # _lineages was asked first
    return screen.index.lineage_of_line[screen.line]


def _named(labels: np.ndarray, names: Sequence[Any] | str, what: str) -> np.ndarray:
    """Mask over the labels, bool [len(labels)]; a name that is not there is refused."""
    wanted = [label_of(name) for name in _listed(names)]
    missing = sorted(set(wanted) - set(labels))
    if missing:
        others = "is" if len(missing) == 1 else f"and {len(missing) - 1} more are"
        there = sorted({label for label in labels if label is not None})
        cure = nearest(missing[0], there) or f"; it has {', '.join(map(repr, there[:3]))}, ... ({len(there):,} in all)"
        raise VihierError(one_line(f"{what} {shown(missing[0])} {others} not in this screen{cure}"))
    if not wanted:
        raise VihierError(f"an empty list of {what} labels leaves nothing; name at least one, or leave it out")
    chosen = set(wanted)
    return np.fromiter((label in chosen for label in labels), dtype=bool, count=len(labels))


def _listed(values: Any) -> list[Any]:
    if isinstance(values, str) or np.ndim(values) == 0:
        # A set has no dimensions for numpy either.
        return sorted(values) if isinstance(values, (set, frozenset)) else [values]
    return list(values)


def _drawn(
    labels: np.ndarray, codes: np.ndarray, keep: np.ndarray, count: int, seed: list[int], what: str
) -> np.ndarray:
    """Rows of ``count`` labels drawn among those that still have rows, bool [N]."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise VihierError(f"n_{what}s={count!r} is not a whole number above 0; give one")
    present = np.unique(codes[keep])
    if count > len(present):
        raise VihierError(f"n_{what}s={count} is more than the {len(present)} {what}s there are; ask for fewer")
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.random.default_rng(seed).choice(present, size=count, replace=False)] = True
    return chosen[codes]


def _rows_where(screen: Screen, where: Mapping[str, Any]) -> np.ndarray:
    if not isinstance(where, Mapping):
        raise VihierError(f"where={where!r} is not a mapping; write it like {{'screen': 'broad'}}")
    keep = np.ones(screen.n_rows, dtype=bool)
    for column, value in where.items():
        keep &= _rows_with(screen, column, value)
    return keep


def _rows_with(screen: Screen, column: str, value: Any) -> np.ndarray:
    keys: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "sgrna": (screen.index.sgrnas, screen.sgrna),
        "hugo_symbol": (screen.index.genes, screen.gene),
        "depmap_id": (screen.index.lines, screen.line),
    }
    if screen.index.lineages is not None:
        keys["lineage"] = (screen.index.lineages, _lineage(screen))
    if screen.index.replicate_ids is not None:
        keys["replicate_id"] = (screen.index.replicate_ids, screen.replicate)
    for name, labels in screen.index.categories.items():
        # A missing value has code -1, which falls on the None appended here and is never asked for.
        keys[name] = (np.concatenate([labels, [None]]), screen.covariates[name])
    if column == "pdna_batch":
        column = "p_dna_batch"
    if column in keys:
        labels, codes = keys[column]
        return _named(labels, value, f"column {column!r}: value")[codes]
    numeric = screen.covariates | {"lfc": screen.lfc}
    if column not in numeric:
        raise VihierError(f"column {column!r} is not in this screen{nearest(str(column), [*keys, *numeric])}")
    wanted = [_number(column, each) for each in _listed(value)]
    rows = np.isin(numeric[column], wanted)
    if not rows.any():
        known = numeric[column][~np.isnan(numeric[column])]
        range_ = (
            f"its values run from {known.min():g} to {known.max():g}" if len(known) else "all its values are missing"
        )
        raise VihierError(f"column {column!r}: no row has the value {value!r}; {range_}")
    return rows


def _number(column: str, value: Any) -> float:
    flag = flag_of(value)
    if flag is not None:
        return flag
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise VihierError(f"column {column!r}: value {value!r} is not a number, and this column holds numbers")
    return number
