"""The screen that a fit is of: the one given, or the part of it that was fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks
from vihier.inference.columns import columns_read
from vihier.inference.covariates import without_indicators
from vihier.models.program import Program
from vihier.posterior.reader import Posterior
from vihier.screen import Screen
from vihier.screen.prepared import INDICATOR
from vihier.screen.subset import take_rows


def fitted_part(posterior: Posterior, program: Program, screen: Screen) -> Screen:
    """Return a screen that a posterior was fitted to, or the part of it that has the posterior's sgRNAs and lines.

    Parameters
    ----------
    posterior
        A fit.
    program
        Its program; the columns that it reads are what counts beside the keys and `lfc`.
    screen
        The screen, or one that holds it.

    Raises
    ------
    VihierError
        One line: what differs.
    """
    if is_fitted(posterior, program, screen):
        return screen
    part = _part(posterior, screen)
    if part is not None and is_fitted(posterior, program, part):
        return part
    pairs = (("hugo_symbol", "genes", screen.index.genes), ("depmap_id", "lines", screen.index.lines))
    differ = [
        f"{len(labels):,} {noun} here, {len(posterior.labels(dim)):,} there"
        for dim, noun, labels in pairs
        if dim in posterior.dims and labels.tolist() != posterior.labels(dim).tolist()
    ]
    why = f" ({'; '.join(differ)})" if differ else " (the same genes and lines, but other rows or values)"
    raise VihierError(
        f"{posterior.path}: is a fit of another screen{why}; give the table of the fit, and the same part of it"
    )


def is_fitted(posterior: Posterior, program: Program, screen: Screen) -> bool:
    """Return whether a posterior is a fit of exactly this screen."""
    batch = GeneBlocks(screen, max(1, min(8, screen.n_genes // 2)))[0]
    made_up = {column + INDICATOR: torch.zeros(len(batch.gene), dtype=torch.float64) for column in program.covariates}
    read = columns_read(program.model, replace(batch, covariates={**batch.covariates, **made_up}))
    return screen.content_hash(without_indicators(program, read)) == posterior.attrs["screen_hash"]


def _part(posterior: Posterior, screen: Screen) -> Screen | None:
    """Return the rows of the sgRNAs and lines that a fit has; None where it has others, or all of them."""
    index = screen.index
    wanted = {"sgrna": index.sgrnas, "depmap_id": index.lines}
    if not set(wanted) <= set(posterior.dims):
        return None
    chosen = {dim: np.isin(labels.astype(str), posterior.labels(dim).astype(str)) for dim, labels in wanted.items()}
    if any(mask.sum() != len(posterior.labels(dim)) for dim, mask in chosen.items()):
        return None
    if all(mask.all() for mask in chosen.values()):
        return None
    return take_rows(screen, chosen["sgrna"][screen.sgrna] & chosen["depmap_id"][screen.line])
