"""Covariates prepared for a model: fitted to one screen, kept with the fit, and applied to others.

A preparation is a text such as `zscore(0.1) | clip(-3, 3) | missing(indicator)`: steps from left to right, then what is
done with missing values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vihier.errors import VihierError
from vihier.screen.faults import shown
from vihier.screen.screen import Screen
from vihier.screen.subset import take_rows

OFF = "off"
MISSING = ("indicator", "drop", "refuse")
INDICATOR = "_missing"
_ARGUMENTS = {"log2p1": 0, "centre": 0, "zscore": 1, "clip": 2}
_STEP = re.compile(r"\s*([a-z0-9]+)\s*(?:\(([^()]*)\))?\s*")
_HOW = "write steps as 'log2p1', 'centre', 'zscore(FLOOR)', 'clip(LOW, HIGH)' and 'missing(indicator)', joined by '|'"


@dataclass(frozen=True)
class Preparation:
    """What is done with a column before a model sees it.

    Attributes
    ----------
    steps
        Name and numbers of each: `log2p1` takes log2(x + 1); `centre` takes off the median over gene-line pairs;
        `zscore(floor)` takes off the gene's mean over lines and divides by its sd, or by `floor` where that is larger;
        `clip(low, high)` bounds.
    missing
        `indicator`: the value is 0, the reference, and a column `NAME_missing` is 1; `drop`: such rows are left out;
        `refuse`: there are none, and none may come.
    """

    steps: tuple[tuple[str, tuple[float, ...]], ...]
    missing: str = "indicator"

    @classmethod
    def parse(cls, column: str, text: str) -> Preparation:
        """Read a preparation; the text is parsed, never evaluated.

        Raises
        ------
        VihierError
            Naming the column and what is not understood.

        Examples
        --------
        >>> str(Preparation.parse("rna_expr", "zscore( 0.1 )|clip(-3,3)"))
        'zscore(0.1) | clip(-3, 3) | missing(indicator)'
        """
        steps, missing = [], "indicator"
        for part in text.split("|"):
            match = _STEP.fullmatch(part)
            if match is None:
                raise VihierError(f"covariate {column!r}: {part.strip()!r} is not understood; {_HOW}")
            name, inside = match[1], match[2]
            if name == "missing":
                missing = (inside or "").strip()
                if missing not in MISSING:
                    raise VihierError(f"covariate {column!r}: missing({missing}): give one of {', '.join(MISSING)}")
            elif name == "asis" and inside is None:
                continue
            else:
                steps.append((name, _numbers(column, name, inside)))
        return cls(tuple(steps), missing)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        texts = [f"{name}({', '.join(f'{x:g}' for x in numbers)})" if numbers else name for name, numbers in self.steps]
        return " | ".join([*(texts or ["asis"]), f"missing({self.missing})"])


def _numbers(column: str, name: str, inside: str | None) -> tuple[float, ...]:
    try:
        numbers = tuple(float(x) for x in inside.split(",")) if inside else ()
    except ValueError:
        numbers = (math.nan,)
    bad = name not in _ARGUMENTS or len(numbers) != _ARGUMENTS[name] or not all(map(math.isfinite, numbers))
    if bad or (name == "zscore" and numbers[0] <= 0) or (name == "clip" and numbers[0] >= numbers[1]):
        raise VihierError(f"covariate {column!r}: {name}({inside or ''}) is not understood; {_HOW}")
    return numbers


@dataclass(frozen=True, eq=False)
class PreparedCovariate:
    """A preparation with what was learned from a screen.

    Attributes
    ----------
    column
        Of the screen.
    learned
        For each step, in order: nothing, the median [], or the mean and sd of each gene, [2, G].
    genes
        Labels, [G].
    """

    column: str
    preparation: Preparation
    learned: tuple[np.ndarray, ...]
    genes: np.ndarray

    @classmethod
    def fit(cls, column: str, preparation: Preparation, screen: Screen) -> PreparedCovariate:
        """Learn a preparation from a screen; where it has no missing value, none is taken later either.

        Raises
        ------
        VihierError
            A column that the screen does not have, or that holds labels or no value at all; log2p1 of -1 or less.
        """
        if column not in screen.covariates:
            there = ", ".join(sorted(screen.covariates)) or "none"
            raise VihierError(f"covariate {column!r}: the screen has no such column (it has {there})")
        if column in screen.index.categories:
            raise VihierError(f"covariate {column!r}: it holds labels, and numbers are wanted")
        values = screen.covariates[column].astype(np.float64)
        if not np.isfinite(values).any():
            raise VihierError(f"covariate {column!r}: it has no value at all; leave it out with {column}={OFF}")
        if np.isfinite(values).all():
            preparation = replace(preparation, missing="refuse")
        pair = screen.gene.astype(np.int64) * screen.n_lines + screen.line
        learned = []
        for name, numbers in preparation.steps:
            found = np.zeros(0)
            if name == "centre":
                found = np.median(_of_pairs(values, pair)[0])
            elif name == "zscore":
                of_pair, pairs = _of_pairs(values, pair)
                found = _gene_moments(of_pair, pairs // screen.n_lines, screen.n_genes)
            learned.append(np.asarray(found))
            values = _step(column, name, numbers, learned[-1], values, screen.gene)
        return cls(column, preparation, tuple(learned), screen.index.genes)

    def of(self, screen: Screen) -> np.ndarray:
        """Return the prepared values of a screen's rows, NaN where missing.

        Raises
        ------
        VihierError
            A screen without the column, with a missing value where none may come, or with a gene that the preparation
            does not know and needs.
        """
        if self.column not in screen.covariates:
            raise VihierError(f"column {self.column!r}: the model reads it and the screen does not have it")
        place = {gene: i for i, gene in enumerate(self.genes.tolist())}
        gene = np.array([place.get(label, -1) for label in screen.index.genes.tolist()])[screen.gene]
        values = screen.covariates[self.column].astype(np.float64)
        for (name, numbers), learned in zip(self.preparation.steps, self.learned, strict=True):
            if name == "zscore" and (gene < 0).any():
                new = shown(screen.index.genes[screen.gene[gene < 0][0]])
                raise VihierError(
                    f"column {self.column!r}: gene {new} was not in the fit, which knows no mean of it to compare with"
                )
            values = _step(self.column, name, numbers, learned, values, gene)
        if self.preparation.missing == "refuse" and np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values))[0])
            gene_name, line_name = screen.index.genes[screen.gene[row]], screen.index.lines[screen.line[row]]
            raise VihierError(
                f"column {self.column!r}: missing in gene {shown(gene_name)}, line {shown(line_name)}, and the fit saw "
                "no missing value; fill it in, or leave such rows out"
            )
        return values


def _of_pairs(values: np.ndarray, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each gene-line pair that has a value, and which pair it is."""
    there = np.isfinite(values)
    pairs, place = np.unique(pair[there], return_inverse=True)
    return np.bincount(place, values[there]) / np.bincount(place), pairs


def _gene_moments(values: np.ndarray, gene: np.ndarray, n_genes: int) -> np.ndarray:
    """Mean and sd of each gene's pairs, [2, G]; of a gene without a value, those of all genes."""
    count = np.bincount(gene, minlength=n_genes)
    safe = np.maximum(count, 1)
    mean = np.where(count > 0, np.bincount(gene, values, n_genes) / safe, values.mean())
    square = np.bincount(gene, (values - mean[gene]) ** 2, n_genes)
    return np.stack([mean, np.where(count > 0, np.sqrt(square / safe), values.std())])


def _step(
    column: str, name: str, numbers: tuple[float, ...], learned: np.ndarray, values: np.ndarray, gene: np.ndarray
) -> np.ndarray:
    if name == "log2p1":
        if (values <= -1).any():
            raise VihierError(f"covariate {column!r}: log2p1 of {np.nanmin(values):g}; it takes values above -1")
        return np.asarray(np.log2(values + 1))
    if name == "centre":
        return np.asarray(values - learned)
    if name == "zscore":
        return np.asarray((values - learned[0][gene]) / np.maximum(learned[1][gene], numbers[0]))
    return np.clip(values, numbers[0], numbers[1])


def prepared_screen(screen: Screen, covariates: Mapping[str, PreparedCovariate]) -> Screen:
    """Return a screen with its covariates prepared, their indicators added, and rows dropped where that is asked for.

    Raises
    ------
    VihierError
        See `PreparedCovariate.of`; or if no row is left.
    """
    if not covariates:
        return screen
    found, keep = dict(screen.covariates), np.ones(screen.n_rows, dtype=bool)
    for column, prepared in covariates.items():
        values = prepared.of(screen)
        missing = np.isnan(values)
        if prepared.preparation.missing == "drop":
            keep &= ~missing
        elif prepared.preparation.missing == "indicator":
            found[column + INDICATOR] = missing.astype(np.float64)
        found[column] = np.where(missing, 0.0, values)
    prepared_rows = replace(screen, covariates=found)
    return prepared_rows if keep.all() else take_rows(prepared_rows, keep)
