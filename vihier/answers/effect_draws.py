"""Draws of the gene x line effects, some genes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vihier.errors import VihierError
from vihier.posterior.reader import Posterior

GENE_LINE = ("hugo_symbol", "depmap_id")
# Beside a block there are a few arrays of its size at a time.
_BLOCK_BYTES = 64 * 1024 * 1024


def require_effect(post: Posterior) -> None:
    """Refuse a fit without gene x line effects."""
    if post.variables.get("effect") != GENE_LINE:
        raise VihierError(
            f"{post.path}: model {post.model!r} has no variable 'effect' over {' and '.join(GENE_LINE)}; name it in "
            "the program with pyro.deterministic('effect', ...)"
        )


def effect_blocks(post: Posterior, lines: Sequence[str] | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the draws of `effect` in blocks of genes of about 64 MB.

    Parameters
    ----------
    post
        A fit with `effect`.
    lines
        Lines wanted, in this order; None for all.

    Yields
    ------
    tuple
        Where the genes are among the file's, and their draws [N, B, C]; chains one after another.

    Raises
    ------
    VihierError
        There is no `effect`, or a line is not in the file.
    """
    require_effect(post)
    genes = post.labels("hugo_symbol").tolist()
    n_lines = len(post.labels("depmap_id")) if lines is None else len(lines)
    selection = {} if lines is None else {"depmap_id": list(lines)}
    bytes_per_gene = 4 * post.n_chains * post.n_draws * n_lines
    step = max(1, _BLOCK_BYTES // bytes_per_gene)
    for start in range(0, len(genes), step):
        part = slice(start, min(start + step, len(genes)))
        draws = post.draws("effect", hugo_symbol=genes[part], **selection).values
        yield part, draws.reshape(-1, *draws.shape[2:])


def lineages(post: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the lineages, and the position of each line's among them, int [C].

    Raises
    ------
    VihierError
        The fit knows no lineages.
    """
    index = post.group("index")
    if "lineage_of_line" not in index:
        raise VihierError(f"{post.path}: knows no lineages; fit a table that has the column 'lineage', or name lines")
    return post.labels("lineage"), index["lineage_of_line"].values
