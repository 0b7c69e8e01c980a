"""A model's graph: its sites, plates and what depends on what."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch

from vihier.atomic import renamed_when_whole
from vihier.errors import VihierError
from vihier.models.batch import Batch

SUFFIXES = (".dot", ".svg", ".pdf", ".png")


def write_graph(model: Callable[[Batch], Any], path: str | os.PathLike[str], *, batch: Batch | None = None) -> Path:
    """Write the graph of a Pyro program, with the family of every site.

    Parameters
    ----------
    model
        The program, ``def model(batch)``.
    path
        ``.dot`` for the graph's text; ``.svg``, ``.pdf`` or ``.png`` for a picture, which graphviz's ``dot`` draws.
    batch
        What the program is run on, once; `small_batch()` by default. A program that reads covariates needs
        one that has them.

    Raises
    ------
    VihierError
        Another suffix, no directory of that name, or no graphviz to draw with.

    Examples
    --------
    >>> import tempfile
    >>> from vihier.models import additive
    >>> out = write_graph(additive.model, Path(tempfile.mkdtemp()) / "additive.dot")
    >>> "mu_alpha -> alpha" in out.read_text()
    True
    """
    out = Path(path)
    if out.suffix not in SUFFIXES:
        raise VihierError(f"{out}: a graph is written as one of {', '.join(SUFFIXES)}")
    try:
        import graphviz
    except ImportError:
        raise VihierError("graphs need the Python package graphviz: pip install 'vihier[graph]'") from None
    with torch.random.fork_rng(devices=[]):
        graph = pyro.render_model(model, model_args=(batch or small_batch(),), render_distributions=True)
    try:
        content = graph.source.encode() if out.suffix == ".dot" else graph.pipe(format=out.suffix[1:])
    except graphviz.ExecutableNotFound:
        raise VihierError(
            f"{out}: graphviz's program 'dot' is not on the PATH; install graphviz, or write {out.with_suffix('.dot')}"
        ) from None
    with renamed_when_whole(out) as partial:
        partial.write_bytes(content)
    return out


def small_batch() -> Batch:
    """Two genes of two sgRNAs in three lines of two lineages."""
    of_row = torch.arange(12)
    return Batch(
        n_genes=2,
        n_sgrnas=4,
        n_lines=3,
        n_rows=12,
        gene_idx=torch.arange(2),
        sgrna_idx=torch.arange(4),
        line_idx=torch.arange(3),
        gene=of_row // 6,
        sgrna=of_row // 3,
        line=of_row % 3,
        lfc=torch.zeros(12),
        gene_of_sgrna=torch.tensor([0, 0, 1, 1]),
        lineages=2,
        lineages_of_lines=torch.tensor([0, 0, 1]),
    )
