"""Elimination of a gene's locations given the shared part, from sums over lines that have as many rows.

Given t and the scales, the gene x line table shrinks every line with N rows by the same factor. All that
`vihier.kernels.elimination` sums over lines is therefore a sum over the few values of N, with coefficients that depend
on the draw, of sums over lines that do not. For one draw of t these are made once for any number of draws of the
scales; for many draws of t they are one matrix product. Equal to `eliminate` for the tables sgRNA, gene and gene x
line, the last with one variance for each gene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.kernels.cells import GeneData
from vihier.kernels.elimination import Variances
from vihier.kernels.small_factor import SmallFactor, small_factor

MOST_LEVELS = 16


@dataclass(frozen=True)
class Levels:
    """Sums of a block's cells over the lines of a gene that have `rows[j]` rows, J kinds in all.

    Attributes
    ----------
    rows : Tensor
        [J].
    lines : Tensor
        Number of such lines, [B, J].
    slot_rows : Tensor
        Rows of each sgRNA in them, [B, K, J].
    pairs : Tensor
        Products of the counts of two sgRNAs, [B, K, K, J].
    slot_left, slot_product : Tensor
        Sums over them of an sgRNA's count times t, and of its count times what t leaves of the line's total:
        [B, K, J, N].
    left, square : Tensor
        What t leaves of the lines' totals, and its square, [B, J, N].
    slot_total : Tensor
        Sum of lfc of each sgRNA, [B, K].
    gene_square : Tensor
        Sum of the rows' squares about t, [B, N].
    """

    rows: Tensor
    lines: Tensor
    slot_rows: Tensor
    pairs: Tensor
    slot_left: Tensor
    slot_product: Tensor
    left: Tensor
    square: Tensor | None
    slot_total: Tensor
    gene_square: Tensor | None


@dataclass(frozen=True)
class Dense:
    """Posterior of d = (a, b) given t, whitened: d = scale x L^-T (L^-1 rhs + standard normal).

    `scale[i]` are the prior sds, each [B, N]; `log_evidence` [B, N] where it was asked for.
    """

    factor: SmallFactor
    scale: tuple[Tensor, ...]
    log_evidence: Tensor | None

    def draw(self, noise: Tensor) -> Tensor:
        """Draw d, [B, N, D], from standard normals of that shape."""
        drawn = self.factor.back(noise.unbind(-1))
        return torch.stack([sd * value for sd, value in zip(self.scale, drawn, strict=True)], -1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, N and D."""
        n_genes, n_draws = self.factor.solution[-1].shape
        return n_genes, n_draws, len(self.scale)


def has_levels(variances: Variances) -> bool:
    """Whether a gene's locations are those that this elimination is for."""
    dense = variances.sgrna is not None or variances.gene is not None
    leaf = variances.gene_line
    return dense and variances.gene_lineage is None and (leaf is None or leaf.shape[1] == 1)


def levels_of(data: GeneData, shared: Tensor | None, *, with_evidence: bool, rows: Tensor | None = None) -> Levels:
    """Sum a block's cells by level.

    Parameters
    ----------
    shared : Tensor or None
        t, [C, N].
    with_evidence : bool
        Whether the sums are made that only the evidence needs.
    rows : Tensor, optional
        Every number of rows that a gene has in a line; found in the data where not given.
    """
    count, total = data.line_count[..., 0], data.line_total[..., 0]
    rows = torch.unique(count) if rows is None else rows.to(count)
    t = total.new_zeros(total.shape[1], 1) if shared is None else shared
    n_genes, n_slots, n_lines = data.count.shape
    parts: dict[str, list[Tensor]] = {
        name: [] for name in ("lines", "slot_rows", "pairs", "t", "product", "left", "square")
    }
    i = torch.arange(n_slots, device=t.device)
    high, low = torch.maximum(i[:, None], i), torch.minimum(i[:, None], i)
    lower = (high * (high + 1) // 2 + low).reshape(-1)
    for n in rows:
        mask = (count == n).to(total)
        counted = data.count * mask[:, None]
        of_t = (counted.reshape(-1, n_lines) @ t).reshape(n_genes, n_slots, -1)
        parts["t"].append(of_t)
        parts["lines"].append(mask.sum(1))
        parts["slot_rows"].append(counted.sum(2))
        pairs = (data.pairs @ mask[..., None])[..., 0]
        parts["pairs"].append(pairs[:, lower].reshape(n_genes, n_slots, n_slots))
        parts["product"].append((counted @ total[..., None]) - n * of_t)
        masked = mask * total
        parts["left"].append(masked.sum(1, keepdim=True) - n * (mask @ t))
        if with_evidence:
            square = (masked * total).sum(1, keepdim=True) - 2 * n * (masked @ t) + n * n * (mask @ t.square())
            parts["square"].append(square)
    gene_square = None
    if with_evidence:
        gene_square = data.square[:, None] - 2 * (total @ t) + count @ t.square()
    return Levels(
        rows,
        torch.stack(parts["lines"], -1),
        torch.stack(parts["slot_rows"], -1),
        torch.stack(parts["pairs"], -1),
        torch.stack(parts["t"], 2),
        torch.stack(parts["product"], 2),
        torch.stack(parts["left"], 1),
        torch.stack(parts["square"], 1) if with_evidence else None,
        data.total.sum(2),
        gene_square,
    )


def eliminate_levels(levels: Levels, variances: Variances, *, with_evidence: bool) -> Dense:
    """Integrate the gene x line table out, then factor what is left of d = (a, b)."""
    tau = 1.0 / variances.noise
    rows = levels.rows[:, None]
    # [B or 1, J, N]
    leaf = tau.new_zeros(1, 1, 1) if variances.gene_line is None else variances.gene_line[:, 0, None]
    shrink = 1.0 / (1.0 + tau * leaf * rows)
    kept = tau * shrink
    pooled = leaf * tau * kept
    scale: list[Tensor] = []
    matrix: list[list[Tensor]] = []
    rhs: list[Tensor] = []
    n_genes, n_slots, _ = levels.slot_rows.shape
    n_draws = max(len(tau), levels.left.shape[-1])
    if variances.sgrna is not None:
        left = levels.slot_total[..., None] - levels.slot_left.sum(2)
        slot_rows = levels.slot_rows.sum(2)[..., None]
        for k in range(n_slots):
            sd = variances.sgrna[:, k % variances.sgrna.shape[1]].sqrt()
            row = [-sd * scale[m] * (levels.pairs[:, k, m, :, None] * pooled).sum(1) for m in range(k)]
            own = tau * slot_rows[:, k] - (levels.pairs[:, k, k, :, None] * pooled).sum(1)
            matrix.append([*row, 1.0 + sd.square() * own])
            rhs.append(sd * (tau * left[:, k] - (pooled * levels.slot_product[:, k]).sum(1)))
            scale.append(sd)
    if variances.gene is not None:
        sd = variances.gene.sqrt()
        row = [sd * scale[k] * (levels.slot_rows[:, k, :, None] * kept).sum(1) for k in range(len(scale))]
        weight = (kept * rows * levels.lines[..., None]).sum(1)
        matrix.append([*row, 1.0 + sd.square() * weight])
        rhs.append(sd * (kept * levels.left).sum(1))
        scale.append(sd)
    whole = torch.zeros(n_genes, n_draws, dtype=tau.dtype, device=tau.device)
    factor = small_factor(matrix, [value + whole for value in rhs])
    sds = tuple(sd.expand(n_genes, n_draws) for sd in scale)
    if not with_evidence:
        return Dense(factor, sds, None)
    assert levels.square is not None and levels.gene_square is not None
    quadratic = tau * levels.gene_square - (pooled * levels.square).sum(1)
    n_rows = (levels.rows * levels.lines).sum(1)[:, None]
    logs = (levels.lines[..., None] * shrink.log()).sum(1)
    evidence = 0.5 * (n_rows * (tau.log() - math.log(2 * math.pi)) + logs - quadratic)
    return Dense(factor, sds, evidence - factor.log_determinant + 0.5 * factor.squared)
