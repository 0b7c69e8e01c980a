"""Variables that are sums of others: which, times what, averaged over what; and their values at some positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SGRNA, GENE, LINE, LINEAGE = "sgrna", "hugo_symbol", "depmap_id", "lineage"


@dataclass(frozen=True)
class Term:
    """`coefficient` times a variable, or times its mean over the dim `over` (of each gene's, for sgRNAs)."""

    variable: str
    coefficient: float
    over: str = ""


@dataclass(frozen=True)
class LinearForm:
    """`offset` plus a sum of terms."""

    offset: float
    terms: tuple[Term, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"offset": self.offset, "terms": [[t.variable, t.coefficient, t.over] for t in self.terms]}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> LinearForm:
        """Read what `to_json` wrote."""
        terms = tuple(Term(str(name), float(factor), str(over)) for name, factor, over in content["terms"])
        return cls(float(content["offset"]), terms)


@dataclass(frozen=True)
class Places:
    """Some genes with all their sgRNAs, and some lines.

    Attributes
    ----------
    genes, lines, sgrnas : int arrays
        Positions in the screen; sgRNAs in the screen's order.
    gene_of_sgrna : int array
        Place among `genes` of each of `sgrnas`.
    lineage_of_line : int array or None
        Lineage of each of `lines`.
    lineage_of_all : int array or None
        Lineage of every line of the screen.
    """

    genes: np.ndarray
    lines: np.ndarray
    sgrnas: np.ndarray
    gene_of_sgrna: np.ndarray
    lineage_of_line: np.ndarray | None
    lineage_of_all: np.ndarray | None

    def of_dim(self, dim: str) -> np.ndarray | None:
        """Positions along a dim of the screen; None: all."""
        return {SGRNA: self.sgrnas, GENE: self.genes, LINE: self.lines}.get(dim)

    def slots(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the first sgRNA of each gene that has one, the second and so on, as (places of genes, of sgRNAs)."""
        order = np.argsort(self.gene_of_sgrna, kind="stable")
        counts = np.bincount(self.gene_of_sgrna, minlength=len(self.genes))
        first = np.cumsum(counts) - counts
        return [(np.flatnonzero(counts > k), order[first[counts > k] + k]) for k in range(int(counts.max(initial=0)))]


Known = Mapping[str, tuple[tuple[str, ...], np.ndarray]]
"""Variable -> its dims, and its values at the places, draws last."""


def mean_over_sgrnas(values: np.ndarray, places: Places) -> np.ndarray:
    """Average values of sgRNAs, [sgRNAs, draws], over each gene's: [genes, draws]."""
    total = np.zeros((len(places.genes), *values.shape[1:]), dtype=values.dtype)
    number = np.zeros((len(places.genes), 1), dtype=values.dtype)
    for genes, sgrnas in places.slots():
        total[genes] += values[sgrnas]
        number[genes] += 1
    return total / number


def aligned(term: Term, known: Known, target: tuple[str, ...], places: Places) -> np.ndarray:
    """Bring a term's variable to the dims of a target, draws last; axes that it does not vary over have length 1."""
    dims, values = known[term.variable]
    if term.over == SGRNA:
        values = mean_over_sgrnas(values, places)
        dims = tuple(GENE if dim == SGRNA else dim for dim in dims)
    elif term.over:
        over = dims.index(term.over)
        values, dims = values.mean(over), dims[:over] + dims[over + 1 :]
    left = list(dims)
    for dim in target:
        axis = dims.index(dim) if dim in dims else None
        if axis is None and dim == SGRNA and GENE in dims:
            axis, values = dims.index(GENE), values.take(places.gene_of_sgrna, dims.index(GENE))
            left.remove(GENE)
        elif axis is None and dim == LINE and LINEAGE in dims:
            assert places.lineage_of_line is not None
            axis, values = dims.index(LINEAGE), values.take(places.lineage_of_line, dims.index(LINEAGE))
            left.remove(LINEAGE)
        elif axis is not None:
            left.remove(dim)
    assert not left, f"{term.variable} varies over {left}"
    # Dims come in the same order in both, so that only axes of length 1 are missing.
    present = [_has(dim, dims) for dim in target]
    return values[tuple(slice(None) if there else None for there in present)]


def _has(dim: str, dims: tuple[str, ...]) -> bool:
    return dim in dims or (dim == SGRNA and GENE in dims) or (dim == LINE and LINEAGE in dims)


def value_of(form: LinearForm, known: Known, target: tuple[str, ...], places: Places) -> np.ndarray:
    """Value of a form over the dims of a target, draws last, broadcastable."""
    total: np.ndarray | None = None
    for term in form.terms:
        part = aligned(term, known, target, places)
        if term.coefficient != 1:
            part = np.float32(term.coefficient) * part
        total = part if total is None else total + part
    offset = np.float32(form.offset)
    if total is None:
        return np.full((1,) * (len(target) + 1), offset, dtype=np.float32)
    return total if form.offset == 0 else total + offset
