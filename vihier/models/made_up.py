"""Columns made up for a batch that has none, to see what a program does with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from vihier.models.batch import Batch

CATEGORIES = ("screen", "p_dna_batch")


def with_made_up_columns(batch: Batch, covariates: Iterable[str]) -> Batch:
    """Return a batch with the covariates named, and with two screens, batches and replicates of each line.

    Examples
    --------
    >>> one = torch.zeros(2, dtype=torch.long)
    >>> batch = Batch(1, 1, 1, 2, one[:1], one[:1], one[:1], one, one, one, torch.zeros(2), one[:1])
    >>> sorted(with_made_up_columns(batch, ["copy_number"]).covariates)
    ['copy_number', 'p_dna_batch', 'screen']
    """
    n, device = len(batch.gene), batch.gene.device
    half = torch.arange(n, device=device) % 2
    values = torch.linspace(-1, 1, n, dtype=torch.get_default_dtype(), device=device)
    lines = torch.arange(batch.n_lines, device=device)
    return replace(
        batch,
        covariates={**dict.fromkeys(covariates, values), **dict.fromkeys(CATEGORIES, half), **batch.covariates},
        replicate=2 * batch.line + half,
        line_screens_of_replicates=lines.repeat_interleave(2),
        sizes={**dict.fromkeys(CATEGORIES, 2), "replicate": 2 * batch.n_lines, "line_screen": batch.n_lines},
    )
