"""Gene names as DepMap writes them: ``SYMBOL (ENTREZ)``."""

from __future__ import annotations

import re

import numpy as np

ENTREZ = re.compile(r"\s*\((?:\d+|nan|unknown)\)$", re.IGNORECASE)
NO_GENE = frozenset({"NO_GENE_NAME", "No_Gene_Name"})


def symbol_of(gene: str) -> str:
    """Return the symbol of ``SYMBOL (ENTREZ)``, or the name as it is.

    Examples
    --------
    >>> symbol_of("PIK3CB (5291)"), symbol_of("NKX2-1")
    ('PIK3CB', 'NKX2-1')
    """
    return ENTREZ.sub("", gene) or gene


def symbols(genes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the symbols of gene names, and the symbols that two of them share, whose names are kept whole.

    Parameters
    ----------
    genes
        Object array, None where there is no gene.

    Examples
    --------
    >>> found, shared = symbols(np.array(["A (1)", "B (2)", "B (3)", None], dtype=object))
    >>> found.tolist(), shared
    (['A', 'B (2)', 'B (3)', None], ['B'])
    """
    known = {gene for gene in genes if gene is not None and gene not in NO_GENE}
    of_symbol: dict[str, set[str]] = {}
    for gene in known:
        of_symbol.setdefault(symbol_of(gene), set()).add(gene)
    shared = sorted(symbol for symbol, names in of_symbol.items() if len(names) > 1)
    name_of = {gene: gene if symbol in shared else symbol for symbol, names in of_symbol.items() for gene in names}
    return np.array([name_of.get(gene) for gene in genes], dtype=object), shared
