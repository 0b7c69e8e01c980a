"""What a gene's other rows say of one row, in closed form: its own locations integrated out given the scales.

Given the scales and what genes share, a gene's rows are the mixed linear model of `vihier.kernels.elimination`,

    y = a[k] + b + m[l(c)] + e[c] + noise,

each row with a noise precision of its own. Leaving rows of one cell (sgRNA k, line c) out of the Gaussian conditional
of f = a[k] + b + m[l(c)] + e[c] only divides it by their likelihood (Rasmussen & Williams 2006, section 5.4.2). Draws
of the scales, N, come last, but for the matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vihier.kernels.correlated import Mixing

# Half-width in log precision of the integral over a Student-t row's weight, and its number of nodes.
LOG_WEIGHT_RANGE = (-14.0, 4.0)
N_NODES = 24
N_HERMITE = 31
# Arrays of a few megabytes stay in a core's cache.
DRAWS_AT_ONCE = 16


@dataclass(frozen=True)
class GenePrior:
    """Prior variances of one gene's tables for N draws; None where the model has no such table.

    sgrna [K, N]; gene [N]; gene_lineage [L, N] with `lineage` [C]; gene_line [C, N].
    """

    sgrna: Tensor | None
    gene: Tensor | None
    gene_lineage: Tensor | None
    gene_line: Tensor | None
    lineage: Tensor | None = None

    def take(self, draws: slice) -> GenePrior:
        """Return the variances of some draws."""

        def of(table: Tensor | None) -> Tensor | None:
            return None if table is None else table[..., draws]

        return GenePrior(of(self.sgrna), of(self.gene), of(self.gene_lineage), of(self.gene_line), self.lineage)


def conditional(prior: GenePrior, weight: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of f in every cell given all rows of the gene.

    Parameters
    ----------
    prior : GenePrior
    weight : Tensor
        Sum of the precisions of the rows of each cell, [K, C, N].
    weighted : Tensor
        Sum of precision x (lfc less the shared part of its mean), [K, C, N].

    Returns
    -------
    mean, variance : Tensor
        Shape [K, C, N].
    """
    parts = []
    for start in range(0, weight.shape[2], DRAWS_AT_ONCE):
        at = slice(start, start + DRAWS_AT_ONCE)
        parts.append(_conditional(prior.take(at), weight[..., at], weighted[..., at]))
    means, variances = zip(*parts, strict=True)
    return torch.cat(means, 2), torch.cat(variances, 2)


def _conditional(prior: GenePrior, weight: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
    n_slots, n_lines, n_draws = weight.shape
    by_draw = weight.permute(2, 0, 1)
    leaf = weight.new_zeros(n_draws, n_lines)
    if prior.gene_line is not None:
        leaf = (prior.gene_line / (1 + prior.gene_line * weight.sum(0))).T
    pulled = weighted.sum(0).T
    design, sd = _design(prior, n_slots, n_lines, n_draws, weight)
    if design.shape[-1] == 0:
        mean, variance = (leaf * pulled)[:, None], leaf[:, None]
        return tuple(x.expand(-1, n_slots, -1).permute(1, 2, 0) for x in (mean, variance))  # type: ignore[return-value]
    # What d adds to the sum of a line's rows, [N, C, D].
    of_line = torch.einsum("nkc,kcd->ncd", by_draw, design)
    flat = design.reshape(n_slots * n_lines, -1)
    precision = (by_draw.reshape(n_draws, -1, 1) * flat).mT @ flat - (leaf[..., None] * of_line).mT @ of_line
    rhs = weighted.permute(2, 0, 1).reshape(n_draws, -1) @ flat - ((leaf * pulled)[:, None] @ of_line)[:, 0]
    whitened = sd[:, :, None] * precision * sd[:, None] + torch.eye(flat.shape[1], dtype=sd.dtype)
    chol = torch.linalg.cholesky(whitened)
    d = sd * torch.cholesky_solve((sd * rhs)[..., None], chol)[..., 0]
    # f = (z - leaf x of_line)' d + leaf x pulled + what is left of e.
    direction = design - (leaf[..., None] * of_line)[:, None]
    mean = (direction * d[:, None, None]).sum(-1) + (leaf * pulled)[:, None]
    half = torch.linalg.solve_triangular(
        chol, (direction.reshape(n_draws, -1, flat.shape[1]) * sd[:, None]).mT, upper=False
    )
    variance = half.square().sum(1).reshape(n_draws, n_slots, n_lines) + leaf[:, None]
    return mean.permute(1, 2, 0), variance.permute(1, 2, 0)


def _design(prior: GenePrior, n_slots: int, n_lines: int, n_draws: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Which elements of d = (a, m, b) are in each cell, one-hot [K, C, D], and their prior sds, [N, D]."""
    parts, sds = [like.new_zeros(n_slots, n_lines, 0)], [like.new_zeros(0, n_draws)]
    if prior.sgrna is not None:
        parts.append(torch.eye(n_slots, dtype=like.dtype)[:, None].expand(-1, n_lines, -1))
        sds.append(prior.sgrna.expand(n_slots, -1).sqrt())
    if prior.gene_lineage is not None:
        assert prior.lineage is not None
        one_hot = torch.nn.functional.one_hot(prior.lineage, len(prior.gene_lineage)).to(like.dtype)
        parts.append(one_hot.expand(n_slots, -1, -1))
        sds.append(prior.gene_lineage.sqrt())
    if prior.gene is not None:
        parts.append(like.new_ones(n_slots, n_lines, 1))
        sds.append(prior.gene.sqrt()[None])
    return torch.cat(parts, -1), torch.cat(sds).T


def cavity(mean: Tensor, variance: Tensor, weight: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of f without some rows of its cell: those of `weight` and `weighted`, all the same shape."""
    left = (1 - variance * weight).clamp_min(1e-10)
    return (mean - variance * weighted) / left, variance / left


def normal_density(y: Tensor, noise: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log density of a row with noise variance `noise` about f ~ N(mean, variance)."""
    total = variance + noise
    return -0.5 * ((y - mean).square() / total + total.log() + math.log(2 * math.pi))


def normal_cells(cell: Tensor, n_cells: int, y: Tensor, noise: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log density of all rows of each cell together, [cells, N], about f ~ N(mean, variance), [cells, N].

    Parameters
    ----------
    cell : Tensor
        Cell of each row, [n].
    y, noise : Tensor
        Rows and their noise variances, [n, N].
    """
    weight, residual = 1 / noise, y - mean[cell]
    zeros = mean.new_zeros(n_cells, y.shape[1])
    alone = zeros.index_add(0, cell, -0.5 * (weight * residual.square() + (2 * math.pi * noise).log()))
    precision = zeros.index_add(0, cell, weight)
    pull = zeros.index_add(0, cell, weight * residual)
    return alone + 0.5 * (pull.square() * variance / (1 + variance * precision) - torch.log1p(variance * precision))


def student_density(y: Tensor, freedom: Tensor, scale: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log density of a Student-t row about f ~ N(mean, variance).

    A row's weight w ~ Gamma(nu / 2, nu / 2) is integrated out by the trapezoidal rule in log w = s sinh(u),
    s = sqrt(2 / nu): the sinh makes it as exact for rows far out as for those near the mean.
    """
    kinds = freedom[:, 0].unique()
    if len(kinds) > 1:  # rows of one screen after those of another
        density = torch.empty_like(mean)
        for kind in kinds:
            at = (freedom[:, 0] == kind).nonzero()[:, 0]
            density[at] = student_density(*(x.expand_as(mean)[at] for x in (y, freedom, scale, mean, variance)))
        return density
    if bool((freedom == freedom[:1]).all()):
        freedom = freedom[:1]  # most of the work below is then that of one row
    spread = (2 / freedom).sqrt()
    low, high = (torch.asinh(bound / spread) for bound in LOG_WEIGHT_RANGE)
    step = (high - low) / (N_NODES - 1)
    half, total = freedom / 2, torch.zeros_like(mean)
    constant = half * half.log() - torch.lgamma(half) - 0.5 * math.log(2 * math.pi) + (step * spread).log()
    squares, noise = (y - mean).square(), scale.square()
    for node in range(N_NODES):
        u = low + node * step
        log_w = spread * u.sinh()
        mass = (constant + half * (log_w - log_w.exp()) + torch.log(u.cosh())).exp()
        about = torch.addcmul(variance, noise, (-log_w).exp())
        total += torch.exp(-0.5 * squares / about).mul_(about.rsqrt()).mul_(mass)
    return total.clamp_min(1e-300).log()


def student_cells(
    cell: Tensor, n_cells: int, y: Tensor, freedom: Tensor, scale: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Log density of all Student-t rows of each cell together, [cells, N]; as `normal_cells`, by Gauss-Hermite."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(N_HERMITE)
    masses = masses / masses.sum()
    sd = variance.sqrt()
    found = []
    for node, mass in zip(nodes, masses, strict=True):
        f = (mean + node * sd)[cell]
        log_t = -(freedom + 1) / 2 * torch.log1p(((y - f) / scale).square() / freedom)
        found.append(mean.new_zeros(n_cells, y.shape[1]).index_add(0, cell, log_t) + math.log(mass))
    constant = (
        torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - 0.5 * (freedom * math.pi).log() - scale.log()
    )
    return torch.stack(found).logsumexp(0) + mean.new_zeros(n_cells, y.shape[1]).index_add(0, cell, constant)


@dataclass(frozen=True)
class RowDesign:
    """A gene's rows as sums of coefficients times covariates: d's [n, D]; e's [n] and each row's line [n], or None."""

    dense: Tensor
    leaf: Tensor | None
    line: Tensor

    def conditional(
        self, sd: Tensor, leaf: Tensor | None, weight: Tensor, y: Tensor, mixings: Sequence[Mixing] = ()
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance, [n, N], of each row's mean given all rows of the gene.

        Parameters
        ----------
        sd : Tensor
            Prior sds of d, [D, N].
        leaf : Tensor or None
            Prior variance of e in each line, [C, N].
        weight, y : Tensor
            Precision of each row's noise, and the row less what genes share, [n, N].
        mixings : sequence of Mixing
            How columns of d are correlated a priori; see `vihier.kernels.correlated`.
        """
        parts = []
        for start in range(0, weight.shape[1], DRAWS_AT_ONCE):
            at = slice(start, start + DRAWS_AT_ONCE)
            of_leaf, own = None if leaf is None else leaf[:, at], [mixing.of_draws(at) for mixing in mixings]
            parts.append(self._conditional(sd[:, at], of_leaf, weight[:, at], y[:, at], own))
        means, variances = zip(*parts, strict=True)
        return torch.cat(means, 1), torch.cat(variances, 1)

    def _conditional(
        self, sd: Tensor, leaf: Tensor | None, weight: Tensor, y: Tensor, mixings: Sequence[Mixing]
    ) -> tuple[Tensor, Tensor]:
        x, by_draw = self.dense, weight.T
        precision = (x.T * by_draw[:, None]) @ x
        rhs = (by_draw * y.T) @ x
        direction = x.expand(weight.shape[1], -1, -1)
        mean, variance = torch.zeros_like(by_draw), torch.zeros_like(by_draw)
        if leaf is not None:
            assert self.leaf is not None
            in_line = torch.nn.functional.one_hot(self.line, len(leaf)).to(x) * self.leaf[:, None]
            spread = leaf.T / (1 + leaf.T * (by_draw @ in_line.square()))
            of_line = (in_line.T * by_draw[:, None]) @ x
            pulled = (by_draw * y.T) @ in_line
            precision = precision - (spread[..., None] * of_line).mT @ of_line
            rhs = rhs - ((spread * pulled)[:, None] @ of_line)[:, 0]
            own = self.leaf * spread[:, self.line]
            direction = direction - own[..., None] * of_line[:, self.line]
            mean, variance = own * pulled[:, self.line], own * self.leaf
        scale = sd.T
        whitened = scale[:, :, None] * precision * scale[:, None]
        rhs, direction = scale * rhs, direction * scale[:, None]
        for mixing in mixings:
            whitened, rhs, direction = mixing.around(whitened), mixing.transposed_times(rhs), mixing.right(direction)
        chol = torch.linalg.cholesky(whitened + torch.eye(x.shape[1], dtype=x.dtype))
        d = torch.cholesky_solve(rhs[..., None], chol)
        half = torch.linalg.solve_triangular(chol, direction.mT, upper=False)
        mean = mean + (direction @ d)[..., 0]
        return mean.T, (variance + half.square().sum(1)).T
