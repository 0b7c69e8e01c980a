"""The gradient of the collapsed evidence in closed form, by Fisher's identity.

The derivative of log p(rows | scales) in the logarithm of a deviation's prior sd is E[w^2] - 1, where w is the
deviation in units of that sd and the expectation is over the exact Gaussian posterior of the locations (Fisher 1925;
Cappe, Moulines & Ryden 2005, Inference in Hidden Markov Models, eq. 10.12). So posterior means and variances of the
locations, which the Cholesky factors of the elimination hold, are all that is needed: no graph, no backward pass.

Names and shapes are those of `vihier.kernels.elimination`: d = (a, m, b) are a gene's sgRNA, gene x lineage and gene
deviations, e its gene x line ones, and t the shared part of each line's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.kernels.cells import GeneData
from vihier.kernels.elimination import (
    Eliminated,
    NaturalParameters,
    SharedPosterior,
    Variances,
    cross_precision,
    eliminate,
    solve_shared,
)


@dataclass(frozen=True)
class Shared:
    """What genes share: prior sds [N, P], the design (see `shared_design`), and what other genes say of it.

    `others` are the natural parameters, [1, R, R] and [1, R], of genes that are not in the block; None where all are.
    """

    scale: Tensor
    resolution: Tensor | None
    coarse: Tensor
    others: NaturalParameters | None


@dataclass(frozen=True)
class EvidenceGradient:
    """Log evidence of a block, shape [N], and its derivatives in the logarithms of the prior sds of all deviations.

    noise [N]; sgrna [B, K, N]; gene [B, N]; gene_lineage [B, L, N]; gene_line [B, C, N]; shared [N, P]. None where a
    table is absent.
    """

    log_evidence: Tensor
    noise: Tensor
    sgrna: Tensor | None
    gene: Tensor | None
    gene_lineage: Tensor | None
    gene_line: Tensor | None
    shared: Tensor | None

    def of_genes(self, plates: tuple[str, ...]) -> Tensor:
        """Return the derivatives in the sds of a table of genes, by its plates."""
        table: Tensor | None = getattr(self, "_".join(plates))
        assert table is not None
        return table


@dataclass(frozen=True)
class _Moments:
    """Mean [N, R] and covariance [N, R, R] of t at its resolution, and its share of the evidence and gradient."""

    mean: Tensor
    cov: Tensor
    log_evidence: Tensor
    gradient: Tensor


def evidence_gradient(data: GeneData, variances: Variances, shared: Shared | None) -> EvidenceGradient:
    """Log evidence of a block's rows, all locations integrated out, and its gradient.

    Parameters
    ----------
    data, variances
        The block, its rows counting equally, and the prior variances of its tables for N draws of the scales; float64.
    shared
        What genes share; None where they share nothing.
    """
    block = eliminate(data, variances)
    evidence = block.log_evidence.sum(0)
    if shared is None:
        noise, sgrna, gene, gene_lineage, gene_line = _local_gradient(data, variances, block, None, None, None)
        return EvidenceGradient(evidence, noise, sgrna, gene, gene_lineage, gene_line, None)
    cross = half = None
    precision, rhs = _own_natural(block, shared.resolution)
    if block.chol is not None:
        cross = cross_precision(data, variances, block, shared.resolution)
        scaled = block.scale.transpose(0, 1)[..., None] * cross
        half = torch.linalg.solve_triangular(block.chol.transpose(0, 1), scaled, upper=False)
        flat, solution = half.flatten(1, 2), block.solution.transpose(0, 1).flatten(1, 2)
        precision = precision - flat.mT @ flat
        rhs = rhs - (flat.mT @ solution[..., None])[..., 0]
    own = NaturalParameters(precision, rhs)
    total = own if shared.others is None else own + shared.others
    t = _shared_moments(solve_shared(total, shared.scale, shared.coarse), shared.coarse)
    local = _local_gradient(data, variances, block, half, t, shared.resolution)
    noise, sgrna, gene, gene_lineage, gene_line = local
    # The quadratic form of the rows given t, of which `_local_gradient` knows the value at t = 0 only.
    given_t = (precision * (t.cov + t.mean[:, :, None] * t.mean[:, None])).sum((1, 2)) - 2 * (rhs * t.mean).sum(1)
    total_evidence = evidence + t.log_evidence
    return EvidenceGradient(total_evidence, noise + given_t, sgrna, gene, gene_lineage, gene_line, t.gradient)


def _own_natural(block: Eliminated, resolution: Tensor | None) -> tuple[Tensor, Tensor]:
    """Precision [N, R, R] and right-hand side [N, R] of t from the block's rows given d."""
    weight, residual = block.weight.sum(0).T, block.residual.sum(0).T
    if resolution is not None:
        weight, residual = weight @ resolution, residual @ resolution
    return torch.diag_embed(weight), residual


def _shared_moments(posterior: SharedPosterior, coarse: Tensor) -> _Moments:
    eye = torch.eye(posterior.scale.shape[1], dtype=posterior.scale.dtype, device=posterior.scale.device)
    upper = torch.linalg.solve_triangular(posterior.chol, eye.expand_as(posterior.chol), upper=False).mT
    whitened = (upper @ posterior.solution[..., None])[..., 0]
    gradient = whitened.square() + upper.square().sum(2) - 1
    root, mean = posterior.scale[..., None] * upper, posterior.scale * whitened
    n_fine = len(coarse)
    root = root[:, :n_fine] + coarse @ root[:, n_fine:]
    mean = mean[:, :n_fine] + mean[:, n_fine:] @ coarse.T
    return _Moments(mean, root @ root.mT, posterior.log_evidence, gradient)


def _local_gradient(
    data: GeneData,
    variances: Variances,
    block: Eliminated,
    half: Tensor | None,
    t: _Moments | None,
    resolution: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Return the derivatives in the noise, t = 0 in its quadratic form, and in the prior sds of a, b, m and e."""
    n_genes, _, n_draws = block.weight.shape
    n_rows = data.line_count.sum()
    tau = 1.0 / variances.noise
    mean = cov = reach = None
    dense = block.weight.new_zeros(n_draws, n_genes, 0)
    if block.chol is not None:
        chol = block.chol.transpose(0, 1)
        eye = torch.eye(chol.shape[-1], dtype=chol.dtype, device=chol.device)
        upper = torch.linalg.solve_triangular(chol, eye.expand_as(chol), upper=False).mT
        solution, cov = block.solution.transpose(0, 1), upper @ upper.mT
        if t is not None:
            assert half is not None
            solution = solution - (half @ t.mean[:, None, :, None])[..., 0]
            slope = upper @ half
            reach = slope @ t.cov[:, None]
            cov = cov + reach @ slope.mT
        mean = (upper @ solution[..., None])[..., 0]
        dense = mean.square() + cov.diagonal(dim1=-2, dim2=-1) - 1
    leaf = None
    if variances.gene_line is not None:
        square = _squared_residual(data, variances, block, mean, cov, t, reach, resolution)
        shrink = block.leaf_shrink
        leaf = shrink + variances.gene_line * (tau * shrink).square() * square - 1
    # All sds grown by one factor, the rows' density is that of rows shrunk by it: the derivatives in all of them sum to
    # the rows' quadratic form less their number. What is left for the noise:
    noise = _quadratic(data, variances, block) - n_rows - dense.sum((1, 2))
    if leaf is not None:
        noise = noise - leaf.sum((0, 1))
    sgrna, gene_lineage, gene = _split(data, variances, dense.permute(1, 2, 0))
    return noise, sgrna, gene, gene_lineage, leaf


def _quadratic(data: GeneData, variances: Variances, block: Eliminated) -> Tensor:
    """Quadratic form of all rows at t = 0, shape [N]."""
    tau = 1.0 / variances.noise
    total = tau * data.square.sum() - block.solution.square().sum((0, 2))
    if variances.gene_line is not None:
        total = total - (variances.gene_line * tau * block.residual * data.line_total).sum((0, 1))
    return total


def _squared_residual(
    data: GeneData,
    variances: Variances,
    block: Eliminated,
    mean: Tensor | None,
    cov: Tensor | None,
    t: _Moments | None,
    reach: Tensor | None,
    resolution: Tensor | None,
) -> Tensor:
    """Expect the square of what d and t leave of a gene's rows in each line, summed: shape [B, C, N]."""
    count = data.line_count[..., 0]
    left = data.line_total[..., 0].expand(block.weight.shape[2], -1, -1)
    variance = torch.zeros_like(left)
    design = None
    if mean is not None:
        assert cov is not None
        design = _design(data, variances) * block.scale.transpose(0, 1)[:, :, None]
        left = left - (design @ mean[..., None])[..., 0]
        variance = ((design @ cov) * design).sum(-1)
    if t is not None:
        of_line, own = t.mean, t.cov.diagonal(dim1=-2, dim2=-1)
        if resolution is not None:
            of_line, own = of_line @ resolution.T, own @ resolution.T
        left = left - count * of_line[:, None]
        variance = variance + count.square() * own[:, None]
        if design is not None:
            assert reach is not None
            to_line = reach if resolution is None else reach @ resolution.T
            variance = variance - 2 * count * (design * to_line.mT).sum(-1)
    return (left.square() + variance).permute(1, 2, 0)


def _design(data: GeneData, variances: Variances) -> Tensor:
    """How much each of d adds to a gene's rows in each line, summed, shape [B, C, D]."""
    count = data.line_count
    parts = []
    if variances.sgrna is not None:
        parts.append(data.count.mT)
    if variances.gene_lineage is not None:
        parts.append(count * data.lineage)
    if variances.gene is not None:
        parts.append(count)
    return torch.cat(parts, -1)


def _split(data: GeneData, variances: Variances, dense: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Split [B, D, N] into the tables over sgRNAs, gene x lineage and genes."""
    found: list[Tensor | None] = []
    start = 0
    sizes = (data.count.shape[1], data.lineage.shape[1], 1)
    for table, size in zip((variances.sgrna, variances.gene_lineage, variances.gene), sizes, strict=True):
        found.append(None if table is None else dense[:, start : start + size])
        start += 0 if table is None else size
    sgrna, gene_lineage, gene = found
    return sgrna, gene_lineage, None if gene is None else gene[:, 0]
