"""Exact elimination of a gene's locations: the closed form that the structured guide stands on.

A row of gene g, sgRNA k and line c has, given the scales, the mixed linear model

    y = a[k] + b + m[l(c)] + e[c] + t[c] + noise

whose tables have independent Normal deviations of mean zero: `a` (sgRNA), `b` (gene), `m` (gene x lineage), `e`
(gene x line), and `t`, which is shared by all genes. Any table may be absent. `e` is eliminated first (it is diagonal),
then d = (a, m, b) by a Cholesky factor of the whitened precision I + S Lambda S, S = diag(sd): nothing is divided by a
scale, so scales at zero are exact. See Rasmussen & Williams (2006), section 2.7, and Bates et al. (2015), Journal of
Statistical Software 67(1), eq. 16-18.

Every function is vectorised over genes and over draws of the scales; the axis of draws, N, comes last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vihier.kernels.cells import GeneData


@dataclass(frozen=True)
class Variances:
    """Prior variances of the tables for N draws of the scales; None where a table is absent.

    noise [N]; sgrna [B, K or 1, N]; gene [B or 1, N]; gene_lineage [B or 1, L or 1, N]; gene_line [B or 1, C or 1, N].
    """

    noise: Tensor
    sgrna: Tensor | None
    gene: Tensor | None
    gene_lineage: Tensor | None
    gene_line: Tensor | None

    def double(self) -> Variances:
        """Return the same in float64."""
        tables = (self.sgrna, self.gene, self.gene_lineage, self.gene_line)
        return Variances(self.noise.double(), *(None if x is None else x.double() for x in tables))


class HasDense(Protocol):
    """The posterior of d, as `Eliminated` holds it."""

    @property
    def chol(self) -> Tensor | None:
        """Cholesky factor of the whitened precision, [B, N, D, D]; None where d is empty."""

    @property
    def scale(self) -> Tensor:
        """Prior sds, [B, N, D]."""

    @property
    def solution(self) -> Tensor:
        """The factor's inverse times the whitened right-hand side, [B, N, D]."""


@dataclass(frozen=True)
class Eliminated:
    """A block of genes with its locations integrated out, for N draws of the scales.

    Attributes
    ----------
    log_evidence : Tensor
        log p(rows of the gene | t, scales), shape [B, N], with t as given to `eliminate`; empty where not asked for.
    weight : Tensor
        Precision of t[c] from the gene's rows given d, shape [B, C, N].
    chol : Tensor or None
        Cholesky factor of the whitened precision of d, shape [B, N, D, D]; None where d is empty.
    scale, solution : Tensor
        Prior sds of d, and chol^-1 S rhs; shape [B, N, D].
    residual : Tensor
        Right-hand side of t, shape [B, C, N].
    leaf_shrink : Tensor
        1 / (1 + tau v N[c]), shape [B, C, N].
    """

    log_evidence: Tensor
    weight: Tensor
    chol: Tensor | None
    scale: Tensor
    solution: Tensor
    residual: Tensor
    leaf_shrink: Tensor


@dataclass(frozen=True)
class LeafIntegrated:
    """What a gene's rows say in each line once e is integrated out, all [B, C, N].

    `shrink` is 1 / (1 + tau v N[c]); `weight` and `residual` are those of the line's mean without e; `total` is the
    rows' sum less t.
    """

    shrink: Tensor
    weight: Tensor
    residual: Tensor
    total: Tensor


def integrate_leaf(data: GeneData, variances: Variances, shared: Tensor | None = None) -> LeafIntegrated:
    """Integrate e out; arguments as those of `eliminate`."""
    tau = 1.0 / variances.noise
    count, total = data.line_count, data.line_total
    if shared is not None:
        total = total - count * shared
    if variances.gene_line is None:
        shrink = torch.ones_like(tau * count)
    else:
        shrink = (1.0 + tau * variances.gene_line * count).reciprocal()
    scaled = tau * shrink
    return LeafIntegrated(shrink, scaled * count, scaled * total, total)


def eliminate(
    data: GeneData, variances: Variances, shared: Tensor | None = None, *, with_evidence: bool = True
) -> Eliminated:
    """Integrate a, m, b and e out of a block of genes.

    Parameters
    ----------
    data : GeneData
    variances : Variances
        For N draws of the scales.
    shared : Tensor, optional
        t, the shared part of each line's mean, shape [C, N]; zero where it is not given.
    with_evidence : bool
        False where only d and e are to be drawn: `log_evidence` is then empty.
    """
    tau = 1.0 / variances.noise
    count, total = data.line_count, data.line_total
    shared = None if shared is None else shared.to(total)
    leaf = integrate_leaf(data, variances, shared)
    shrink, weight, residual = leaf.shrink, leaf.weight, leaf.residual
    dense = _dense(data, variances, tau * shrink, weight, residual, shared)
    chol, scale, solution = None, weight.new_zeros(len(count), len(tau), 0), weight.new_zeros(len(count), len(tau), 0)
    if dense is not None:
        scale, precision, rhs = dense
        whitened = scale[..., :, None] * precision * scale[..., None, :]
        whitened = whitened + torch.eye(whitened.shape[-1], dtype=whitened.dtype, device=whitened.device)
        chol = torch.linalg.cholesky(whitened)
        solution = torch.linalg.solve_triangular(chol, (scale * rhs)[..., None], upper=False)[..., 0]
    log_evidence = weight.new_zeros(0)
    if with_evidence:
        square = data.gene_square.expand(-1, len(tau))
        if shared is not None:
            square = square - 2 * (total * shared).sum(1) + (count * shared.square()).sum(1)
        log_weight = data.log_weight
        if log_weight is None:
            log_weight = 0.5 * count.sum(1) * (tau.log() - math.log(2 * math.pi))
        log_evidence = 2 * log_weight - tau * square
        if variances.gene_line is not None:
            explained = (tau * variances.gene_line * residual * leaf.total).sum(1)
            log_evidence = log_evidence + shrink.log().sum(1) + explained
        log_evidence = 0.5 * log_evidence
        if chol is not None:
            log_evidence = log_evidence - chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            log_evidence = log_evidence + 0.5 * solution.square().sum(-1)
    return Eliminated(log_evidence, weight, chol, scale, solution, residual, shrink)


def _dense(
    data: GeneData, variances: Variances, scaled: Tensor, weight: Tensor, residual: Tensor, shared: Tensor | None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Prior sds [B, N, D], data precision [B, N, D, D] and right-hand side [B, N, D] of d = (a, m, b)."""
    n_genes, n_draws = weight.shape[0], weight.shape[2]
    sds: list[Tensor] = []
    rhs: list[Tensor] = []
    rows: list[list[Tensor]] = []  # the lower block triangle, each block [B, N, rows, columns]
    if variances.sgrna is not None:
        sds.append(variances.sgrna.sqrt().expand(n_genes, data.count.shape[1], n_draws))
        precision, slot_rhs = _sgrna_block(data, variances, scaled, residual, shared)
        rows.append([precision])
        rhs.append(slot_rhs)
    if variances.gene_lineage is not None:
        sds.append(variances.gene_lineage.sqrt().expand(n_genes, data.lineage.shape[1], n_draws))
        by_lineage = (data.lineage.T @ weight).transpose(1, 2)
        row = [torch.diag_embed(by_lineage)]
        if variances.sgrna is not None:
            row.insert(0, (data.cross(scaled) @ data.lineage).permute(1, 0, 3, 2))
        rows.append(row)
        rhs.append(data.lineage.T @ residual)
    if variances.gene is not None:
        sds.append(variances.gene.sqrt().expand(n_genes, n_draws)[:, None])
        row = [weight.sum(1)[..., None, None]]
        if variances.gene_lineage is not None:
            row.insert(0, by_lineage[:, :, None])
        if variances.sgrna is not None:
            row.insert(0, data.to_slots(scaled).transpose(1, 2)[:, :, None])
        rows.append(row)
        rhs.append(residual.sum(1, keepdim=True))
    if not sds:
        return None
    size = sum(part.shape[1] for part in rhs)
    padded = [torch.nn.functional.pad(torch.cat(row, -1), (0, size - sum(x.shape[-1] for x in row))) for row in rows]
    precision = torch.cat(padded, 2)
    # The gradient of a Cholesky factor is that of a symmetric matrix: both triangles must be filled.
    lower = torch.ones(size, size, dtype=precision.dtype, device=precision.device).tril()
    precision = precision * lower + (precision * lower.tril(-1)).mT
    return torch.cat(sds, 1).transpose(1, 2), precision, torch.cat(rhs, 1).transpose(1, 2)


def _sgrna_block(
    data: GeneData, variances: Variances, scaled: Tensor, residual: Tensor, shared: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Precision [B, N, K, K] and right-hand side [B, K, N] of the sgRNA table."""
    tau = 1.0 / variances.noise
    slot_rhs = (tau * data.slot_total).expand(-1, -1, len(tau))
    if shared is not None:
        slot_rhs = slot_rhs - tau * data.to_slots(shared)
    precision = torch.diag_embed((tau * data.slot_count).transpose(1, 2))
    if variances.gene_line is not None:
        relative = tau * variances.gene_line
        slot_rhs = slot_rhs - data.to_slots(relative * residual)
        precision = precision - data.products(relative * scaled)
    return precision, slot_rhs


@dataclass(frozen=True)
class NaturalParameters:
    """What a block's rows say of the shared column part t, at a resolution of R elements: lines, lineages or one.

    precision [N, R, R] and rhs [N, R]; those of disjoint blocks add up. Float64 whatever the data are in: the direction
    that shifts every line at once has almost no precision beside entries of 1e4 and more, and is a difference of such.
    """

    precision: Tensor
    rhs: Tensor

    def __add__(self, other: NaturalParameters) -> NaturalParameters:
        return NaturalParameters(self.precision + other.precision, self.rhs + other.rhs)


def natural_parameters(
    data: GeneData, variances: Variances, block: Eliminated, resolution: Tensor | None
) -> NaturalParameters:
    """Sum a block's natural parameters of t over its genes.

    Parameters
    ----------
    block : Eliminated
        From `eliminate` without `shared`.
    resolution : Tensor or None
        Which element of t each line has, one-hot, shape [C, R]; None where every line has its own.
    """
    if block.weight.dtype != torch.float64:
        data, variances = data.double(), variances.double()
        block = eliminate(data, variances)
    if resolution is not None:
        resolution = resolution.to(block.weight)
    weight, residual = block.weight.sum(0), block.residual.sum(0)
    if resolution is None:
        precision, rhs = torch.diag_embed(weight.T), residual.T
    else:
        precision = torch.diag_embed(weight.T @ resolution)
        rhs = residual.T @ resolution
    if block.chol is None:
        return NaturalParameters(precision, rhs)
    # Draws first, so that genes and d flatten to the rows of one matrix product per draw without a copy.
    cross = cross_precision(data, variances, block, resolution)
    scaled = block.scale.transpose(0, 1)[..., None] * cross
    half = torch.linalg.solve_triangular(block.chol.transpose(0, 1), scaled, upper=False).flatten(1, 2)
    solution = block.solution.transpose(0, 1).flatten(1, 2)
    return NaturalParameters(
        precision - half.transpose(1, 2) @ half, rhs - (half.transpose(1, 2) @ solution[..., None])[..., 0]
    )


def cross_precision(data: GeneData, variances: Variances, block: Eliminated, resolution: Tensor | None) -> Tensor:
    """Precision between d and t, shape [N, B, D, R]."""
    parts = []
    tau = 1.0 / variances.noise
    if variances.sgrna is not None:
        by_cell = data.cross(tau * block.leaf_shrink)
        parts.append(by_cell if resolution is None else by_cell @ resolution)
    weight = block.weight.permute(2, 0, 1)
    if variances.gene_lineage is not None:
        if resolution is None:
            parts.append(weight[:, :, None] * data.lineage.T)
        else:
            parts.append(torch.einsum("nbc,cl,cr->nblr", weight, data.lineage, resolution))
    if variances.gene is not None:
        parts.append((weight if resolution is None else weight @ resolution)[:, :, None])
    return torch.cat(parts, 2)


@dataclass(frozen=True)
class SharedPosterior:
    """The shared tables given the scales: u = scale * chol^-T (solution + standard normal).

    log_evidence [N] is what integrating u adds to the genes' log evidence at t = 0; chol [N, P, P], scale and solution
    [N, P].
    """

    log_evidence: Tensor
    chol: Tensor
    scale: Tensor
    solution: Tensor


def solve_shared(natural: NaturalParameters, scale: Tensor, coarse: Tensor) -> SharedPosterior:
    """Integrate the shared tables out.

    Parameters
    ----------
    natural : NaturalParameters
        Summed over all genes of the screen.
    scale : Tensor
        Prior sds of the P shared deviations, shape [N, P]: first those of the R elements of t, then the coarser ones.
    coarse : Tensor
        Which of the coarser deviations each element of t also has, one-hot, shape [R, P - R].
    """
    scale, coarse = scale.to(natural.precision), coarse.to(natural.precision)
    side = natural.precision @ coarse
    precision = torch.cat([torch.cat([natural.precision, side], 2), torch.cat([side.mT, coarse.T @ side], 2)], 1)
    whitened = scale[:, :, None] * precision * scale[:, None, :]
    whitened.diagonal(dim1=-2, dim2=-1).add_(1.0)
    chol = torch.linalg.cholesky(whitened)
    rhs = scale * torch.cat([natural.rhs, natural.rhs @ coarse], 1)
    solution = torch.linalg.solve_triangular(chol, rhs[..., None], upper=False)[..., 0]
    log_evidence = 0.5 * solution.square().sum(-1) - chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return SharedPosterior(log_evidence, chol, scale, solution)


def draw_shared(posterior: SharedPosterior, noise: Tensor) -> Tensor:
    """Draw the shared deviations, shape [N, P], from standard normals of that shape."""
    return _draw(posterior.chol, posterior.scale, posterior.solution, noise)


def _draw(chol: Tensor, scale: Tensor, solution: Tensor, noise: Tensor) -> Tensor:
    right_hand = (solution + noise)[..., None]
    return scale * torch.linalg.solve_triangular(chol.mT, right_hand, upper=True)[..., 0]


def draw_dense(block: HasDense, noise: Tensor) -> Tensor:
    """Draw d = (a, m, b) given t, shape [B, N, D], from standard normals of that shape."""
    return noise if block.chol is None else _draw(block.chol, block.scale, block.solution, noise)


def draw_leaf(variances: Variances, block: Eliminated, left: Tensor, noise: Tensor) -> Tensor:
    """Draw e, shape [B, C, N].

    Parameters
    ----------
    left : Tensor
        Sum over a gene's rows in each line of lfc less t and what d predicts, shape [B, C, N].
    noise : Tensor
        Standard normals of that shape.
    """
    if variances.gene_line is None:
        return torch.zeros_like(noise)
    spread = variances.gene_line * block.leaf_shrink
    return torch.addcmul(spread.sqrt() * noise, spread / variances.noise, left)


def draw_genes(
    data: GeneData, variances: Variances, block: Eliminated, noise: Tensor, leaf_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw d = (a, m, b), shape [B, N, D], and e, shape [B, C, N], given t.

    Parameters
    ----------
    block : Eliminated
        From `eliminate` at that t.
    noise, leaf_noise : Tensor
        Standard normals, shapes [B, N, D] and [B, C, N].
    """
    dense = draw_dense(block, noise)
    left = block.residual * variances.noise / block.leaf_shrink - fitted_total(data, variances, dense)
    return dense, draw_leaf(variances, block, left, leaf_noise)


def fitted_total(data: GeneData, variances: Variances, dense: Tensor) -> Tensor:
    """Sum over a gene's rows in each line of what d predicts, shape [B, C, N]."""
    column = dense_column(data, variances, dense)
    fitted = dense.new_zeros(()) if column is None else data.line_count * column
    if variances.sgrna is not None:
        fitted = fitted + data.to_lines(dense[..., : data.count.shape[1]].transpose(1, 2))
    return fitted


def dense_column(data: GeneData, variances: Variances, dense: Tensor) -> Tensor | None:
    """Return what m and b predict of each row in a line, shape [B, C or 1, N]; None where both are absent."""
    column = dense[..., -1:].transpose(1, 2) if variances.gene is not None else None
    if variances.gene_lineage is None:
        return column
    first = data.count.shape[1] if variances.sgrna is not None else 0
    of_lineages = dense[..., first : first + data.lineage.shape[1]].transpose(1, 2)
    return data.lineage @ (of_lineages if column is None else of_lineages + column)
