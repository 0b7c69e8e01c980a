"""A block's genes given the scales and the shared part of each line's mean: evidence, and draws of their tables."""

from __future__ import annotations

import torch
from torch import Tensor

from vihier.kernels.cells import GeneData
from vihier.kernels.elimination import Variances, draw_dense, eliminate
from vihier.kernels.levels import MOST_LEVELS, eliminate_levels, has_levels, levels_of


def log_evidence(data: GeneData, variances: Variances, shared: Tensor | None) -> Tensor:
    """Log density of each gene's rows, [B, N], its locations out: by level where there are few, else line by line.

    Parameters
    ----------
    shared : Tensor or None
        The shared part of each line's mean, [C, N or 1].
    """
    rows = _levels(data, variances)
    if rows is None:
        return eliminate(data, variances, _wide(shared, variances)).log_evidence
    levels = levels_of(data, shared, with_evidence=True, rows=rows)
    found = eliminate_levels(levels, variances, with_evidence=True).log_evidence
    assert found is not None
    return found


def draw_tables(data: GeneData, variances: Variances, shared: Tensor | None, random: torch.Generator) -> Tensor:
    """Draw d = (a, m, b), [B, N, D], the gene x line table integrated out."""
    rows = _levels(data, variances)
    if rows is None:
        given = eliminate(data, variances, _wide(shared, variances))
        return draw_dense(given, _normal(given.scale.shape, data, random))
    dense = eliminate_levels(levels_of(data, shared, with_evidence=False, rows=rows), variances, with_evidence=False)
    return dense.draw(_normal(dense.shape, data, random))


def _levels(data: GeneData, variances: Variances) -> Tensor | None:
    rows = torch.unique(data.line_count) if has_levels(variances) else None
    return None if rows is None or len(rows) > MOST_LEVELS else rows


def _wide(shared: Tensor | None, variances: Variances) -> Tensor | None:
    return None if shared is None else shared.expand(-1, len(variances.noise))


def _normal(shape: tuple[int, ...], data: GeneData, random: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=random, dtype=data.count.dtype, device=data.count.device)
