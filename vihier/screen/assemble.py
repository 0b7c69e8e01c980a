"""Codes and labels -> the canonical screen: only labels that occur, rows in one order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vihier.screen.report import ReadReport
from vihier.screen.screen import Screen, ScreenIndex


def assemble(
    index: ScreenIndex,
    sgrna: np.ndarray,
    line: np.ndarray,
    replicate: np.ndarray,
    lfc: np.ndarray,
    covariates: dict[str, np.ndarray],
    report: ReadReport,
) -> Screen:
    """Drop the labels that no row uses and put the rows in canonical order.

    Parameters
    ----------
    index
        Sorted labels and maps; may hold labels that no row uses.
    sgrna, line, replicate
        Integer codes [N] into ``index``, rows in any order.
    lfc
        float64 [N], log2 fold change.
    covariates
        float64 [N], or int32 [N] codes into ``index.categories``.
    report
        Carried along.
    """
    sgrnas, sgrna = _used(sgrna, len(index.sgrnas))
    lines, line = _used(line, len(index.lines))
    replicates, replicate = _used(replicate, len(index.replicates))
    values, categories = _used_covariates(covariates, index.categories)
    index = pruned(index, sgrnas, lines, replicates, categories)
    lfc = canonical_floats(lfc)
    gene = index.gene_of_sgrna.astype(np.int32)[sgrna]
    library = [values["screen"]] if "screen" in categories else []
    order = canonical_order([gene, sgrna, line, *library, replicate], [lfc, *values.values()])
    return Screen(
        index=index,
        sgrna=sgrna[order],
        line=line[order],
        replicate=replicate[order],
        lfc=lfc[order],
        # Popped, so that no covariate is held in both orders longer than it takes to reorder it.
        covariates={name: values.pop(name)[order] for name in list(values)},
        report=report,
    )


def pruned(
    index: ScreenIndex,
    sgrnas: np.ndarray,
    lines: np.ndarray,
    replicates: np.ndarray,
    categories: dict[str, np.ndarray],
) -> ScreenIndex:
    """Return the index of only these labels, and of the genes and lineages that they belong to.

    Parameters
    ----------
    index
        Sorted labels and maps.
    sgrnas, lines, replicates
        Positions of the labels to keep, ascending.
    categories
        The labels to keep of each categorical covariate.
    """
    genes, gene_of_sgrna = _used(index.gene_of_sgrna[sgrnas], len(index.genes))
    lineages = lineage_of_line = None
    if index.lineages is not None and index.lineage_of_line is not None:
        kept, lineage_of_line = _used(index.lineage_of_line[lines], len(index.lineages))
        lineages, lineage_of_line = index.lineages[kept], lineage_of_line.astype(np.int64)
    line_position = np.zeros(len(index.lines), dtype=np.int64)
    line_position[lines] = np.arange(len(lines))
    return ScreenIndex(
        sgrnas=index.sgrnas[sgrnas],
        genes=index.genes[genes],
        lines=index.lines[lines],
        lineages=lineages,
        replicates=index.replicates[replicates],
        gene_of_sgrna=gene_of_sgrna.astype(np.int64),
        lineage_of_line=lineage_of_line,
        line_of_replicate=line_position[index.line_of_replicate[replicates]],
        categories=categories,
        replicate_ids=None if index.replicate_ids is None else index.replicate_ids[replicates],
    )


def _used_covariates(
    covariates: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the covariates by sorted name, canonical, and the labels that the coded ones use."""
    values: dict[str, np.ndarray] = {}
    categories: dict[str, np.ndarray] = {}
    for name in sorted(covariates):
        if name in labels:
            kept, values[name] = _used(covariates[name], len(labels[name]))
            categories[name] = labels[name][kept]
        else:
            values[name] = canonical_floats(covariates[name])
    return values, categories


def _used(codes: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the labels occur (positions) and the codes, int32, counted among those; -1 stays -1."""
    occurs = np.zeros(n_labels + 1, dtype=bool)
    occurs[codes] = True  # -1 falls on the last, spare place
    occurs[-1] = False
    position = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    position[-1] = -1
    return np.flatnonzero(occurs), position[codes]


def canonical_floats(values: np.ndarray) -> np.ndarray:
    """Return a float64 copy in which equal content has equal bits."""
    # -0.0 + 0.0 is 0.0; NaN has many bit patterns. Both would change the hash of equal content.
    values = np.asarray(values, dtype=np.float64) + 0.0
    values[np.isnan(values)] = np.nan
    return values


def canonical_order(keys: Sequence[np.ndarray], tie_breakers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the order of rows by non-negative integer keys [N] each, equal ones by the tie breakers, first first."""
    combined = np.zeros(len(keys[0]), dtype=np.int64)
    span = 1
    for codes in keys:
        width = int(codes.max(initial=0)) + 1
        span *= width
        if span >= 2**63:
            return np.lexsort([*reversed(tie_breakers), *reversed(keys)])
        combined *= width
        combined += codes
    order = np.argsort(combined, kind="stable")
    ranked = combined[order]
    if (ranked[1:] != ranked[:-1]).all():
        return order
    return np.lexsort([*reversed(tie_breakers), combined])
