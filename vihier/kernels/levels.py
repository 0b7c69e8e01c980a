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
from vihier.kernels.elimination import Variances, eliminate

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
    """Posterior of d = (a, b) given t: as in `vihier.kernels.elimination.Eliminated`; the evidence where asked for."""

    chol: Tensor | None
    scale: Tensor
    solution: Tensor
    log_evidence: Tensor | None


def has_levels(variances: Variances) -> bool:
    """Whether a gene's locations are those that this elimination is for."""
    dense = variances.sgrna is not None or variances.gene is not None
    leaf = variances.gene_line
    return dense and variances.gene_lineage is None and (leaf is None or leaf.shape[1] == 1)


def eliminate_given(data: GeneData, variances: Variances, shared: Tensor | None, *, with_evidence: bool) -> Dense:
    """Integrate a gene's locations out given t, [C, N or 1]: by level where there are few, else line by line."""
    rows = torch.unique(data.line_count) if has_levels(variances) else None
    if rows is not None and len(rows) <= MOST_LEVELS:
        levels = levels_of(data, shared, with_evidence=with_evidence, rows=rows)
        return eliminate_levels(levels, variances, with_evidence=with_evidence)
    wide = None if shared is None else shared.expand(-1, len(variances.noise))
    found = eliminate(data, variances, wide)
    return Dense(found.chol, found.scale, found.solution, found.log_evidence)


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
    leaf = variances.gene_line
    # [B or 1, J, N]
    per_gene = tau.new_zeros(1, 1, 1) if leaf is None else leaf[:, 0, None]
    shrink = 1.0 / (1.0 + tau * per_gene * rows)
    pooled = per_gene * tau.square() * shrink
    sds, rhs, blocks = [], [], []
    n_genes, n_slots, _ = levels.slot_rows.shape
    n_draws = max(len(tau), levels.left.shape[-1])
    if variances.sgrna is not None:
        sds.append(variances.sgrna.sqrt().expand(n_genes, n_slots, n_draws))
        precision = -torch.einsum("bklj,bjn->bnkl", levels.pairs, pooled.expand(n_genes, -1, -1))
        diagonal = tau[:, None] * levels.slot_rows.sum(2)[:, None]
        precision = precision + torch.diag_embed(diagonal)
        blocks.append([precision])
        left = levels.slot_total[..., None] - levels.slot_left.sum(2)
        rhs.append(tau * left - (pooled[:, None] * levels.slot_product).sum(2))
    if variances.gene is not None:
        sds.append(variances.gene.sqrt().expand(n_genes, n_draws)[:, None])
        weight = (tau * shrink * rows * levels.lines[..., None]).sum(1)
        row = [weight[..., None, None].expand(n_genes, n_draws, 1, 1)]
        if variances.sgrna is not None:
            cross = torch.einsum("bkj,bjn->bnk", levels.slot_rows, (tau * shrink).expand(n_genes, -1, n_draws))
            row.insert(0, cross[:, :, None])
        blocks.append(row)
        rhs.append((tau * shrink * levels.left).sum(1, keepdim=True))
    scale, right = torch.cat(sds, 1).transpose(1, 2), torch.cat([x.expand(-1, -1, n_draws) for x in rhs], 1)
    size = scale.shape[-1]
    precision = torch.zeros(n_genes, n_draws, size, size, dtype=tau.dtype, device=tau.device)
    start = 0
    for row in blocks:
        height = row[0].shape[2]
        width = sum(x.shape[-1] for x in row)
        precision[:, :, start : start + height, :width] = torch.cat([x.expand(-1, n_draws, -1, -1) for x in row], -1)
        start += height
    whitened = scale[..., :, None] * precision * scale[..., None, :]
    whitened.diagonal(dim1=-2, dim2=-1).add_(1.0)
    chol = torch.linalg.cholesky(whitened)
    solution = torch.linalg.solve_triangular(chol, (scale * right.transpose(1, 2))[..., None], upper=False)[..., 0]
    if not with_evidence:
        return Dense(chol, scale, solution, None)
    assert levels.square is not None and levels.gene_square is not None
    quadratic = tau * levels.gene_square - (pooled * levels.square).sum(1)
    n_rows = (levels.rows * levels.lines).sum(1)[:, None]
    logs = (levels.lines[..., None] * shrink.log()).sum(1)
    evidence = 0.5 * (n_rows * (tau.log() - math.log(2 * math.pi)) + logs - quadratic)
    evidence = evidence - chol.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * solution.square().sum(-1)
    return Dense(chol, scale, solution, evidence)
