"""Which genes are refined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vihier.answers.hits import hits
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior

# Of `lineage`, where no number is given.
GENES_OF_LINEAGE = 20


def genes_to_refine(
    post: Posterior,
    genes: Sequence[str] | str | None = None,
    worst: int | None = None,
    lineage: Sequence[str] | str | None = None,
    full: bool = False,
) -> list[str]:
    """Return the genes that are asked for, in label order.

    Parameters
    ----------
    genes
        By name.
    worst
        So many genes with the largest Pareto k-hat: where the guide is most likely to be wrong.
    lineage
        The 20 genes that differ most, in each of these lineages, from their mean over all lines (see `vihier hits`).
    full
        All genes.

    Raises
    ------
    VihierError
        Not exactly one way of choosing, an unknown gene or lineage, or no k-hat to choose by.
    """
    ways = [genes is not None, worst is not None, lineage is not None, full]
    if sum(ways) != 1:
        raise VihierError("which genes are refined: give one of --genes, --worst, --lineage and --full")
    if genes is not None:
        return _named(post, genes)
    if worst is not None:
        return _worst(post, worst)
    if lineage is not None:
        return _selective(post, lineage)
    return post.labels("hugo_symbol").tolist()


def _named(post: Posterior, genes: Sequence[str] | str) -> list[str]:
    # One line that names the nearest gene, where one is unknown.
    found = post.moments("effect_gene" if "effect_gene" in post.variables else _of_genes(post), hugo_symbol=genes)
    return sorted(found["hugo_symbol"].values.tolist())


def _of_genes(post: Posterior) -> str:
    return next(name for name, dims in post.variables.items() if "hugo_symbol" in dims)


def _worst(post: Posterior, worst: int) -> list[str]:
    labels = post.labels("hugo_symbol")
    if isinstance(worst, bool) or not 1 <= worst <= len(labels):
        raise VihierError(f"--worst {worst}: give a number of genes from 1 to {len(labels)}")
    try:
        khat = post.group("diagnostics")["khat"].values
    except (VihierError, KeyError) as error:
        raise VihierError(f"{post.path}: has no k-hat of genes to choose by; give --genes or --lineage") from error
    order = np.argsort(-np.nan_to_num(khat, nan=np.inf), kind="stable")
    return sorted(labels[order[:worst]].tolist())


def _selective(post: Posterior, lineages: Sequence[str] | str) -> list[str]:
    wanted = [lineages] if isinstance(lineages, str) else list(lineages)
    post.moments("effect", lineage=wanted)  # refuses an unknown one, naming the nearest
    table = hits(post, "lineage", selective=True, fdr=1.0).table
    table["size"] = table["mean"].abs() / table["sd"]
    chosen: set[str] = set()
    for lineage in wanted:
        chosen |= set(table[table["lineage"] == lineage].nlargest(GENES_OF_LINEAGE, "size")["hugo_symbol"])
    return sorted(chosen)
