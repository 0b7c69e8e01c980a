"""Exact elimination of a gene's coefficients for rows of any design: sums of tables, each times a covariate of the row.

Given the scales, a row of a gene is

    y = x' d + z e[c] + w' u + noise,

where d are the gene's coefficients (of its sgRNAs, its own, by lineage, by screen, ...), e[c] its line's, and u those
that genes share; x, z and w hold a covariate, or 1, wherever the row is in a table, and zero elsewhere. All have
Normal deviations of mean zero, independent unless `vihier.kernels.correlated` mixes some of d. e is eliminated first
(it is diagonal), then d by a Cholesky factor of the whitened precision, as in `vihier.kernels.elimination`, which is
this for tables without covariates, faster. Everything is made from sums of products over rows, once. See Bates et al.
(2015), Journal of Statistical Software 67(1), eq. 16.

Draws of the scales, N, come last, but for the matrices, [B, N, D, D].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vihier.kernels.correlated import Mixing

MOST_LEVELS = 16


@dataclass(frozen=True)
class Rest:
    """What u leaves of a block's rows: x'(y - w'u), [B, D, N], and z (y - w'u) of each line, [B, C, N]."""

    dense: Tensor
    leaf: Tensor


@dataclass(frozen=True)
class Eliminated:
    """A block's d given u, e integrated out; d = scale x M chol^-T (solution + standard normal).

    chol [B, N, D, D]; scale and solution [B, N, D]; `shrink`, 1 / (1 + tau v z^2), and `pooled`, tau v shrink,
    [B, C, N]. M is the product of `mixings`.
    """

    chol: Tensor
    scale: Tensor
    solution: Tensor
    shrink: Tensor
    pooled: Tensor
    rest: Rest
    mixings: Sequence[Mixing] = ()

    def draw(self, noise: Tensor) -> Tensor:
        """Draw d, [B, D, N], from standard normals, [B, N, D]."""
        right = (self.solution + noise)[..., None]
        whitened = torch.linalg.solve_triangular(self.chol.mT, right, upper=True)[..., 0]
        for mixing in self.mixings:
            whitened = mixing.times(whitened)
        return (self.scale * whitened).mT


@dataclass(frozen=True)
class Said:
    """What a block's rows say of u: the precision of those that each line has, [N, C, s, s], and rhs, [P, N].

    Where d is given, `level_precision` and `level_pull` are what d's prior says of each shift of d against u that rows
    do not notice; see `vihier.guides.design_shared`.
    """

    precision: Tensor
    rhs: Tensor
    level_precision: tuple[Tensor, ...] = ()
    level_pull: tuple[Tensor, ...] = ()

    def double(self) -> Said:
        """Return the same in float64."""
        levels = (tuple(x.double() for x in level) for level in (self.level_precision, self.level_pull))
        return Said(self.precision.double(), self.rhs.double(), *levels)

    def __add__(self, other: Said) -> Said:
        return Said(
            self.precision + other.precision,
            self.rhs + other.rhs,
            tuple(a + b for a, b in zip(self.level_precision, other.level_precision, strict=True)),
            tuple(a + b for a, b in zip(self.level_pull, other.level_pull, strict=True)),
        )


class DesignSums(Protocol):
    """Sums of products over the rows of a block of genes, as elimination asks for them.

    `square` is the sum of y^2 over all rows, and `leaf_weight` that of z^2 of each line, [B, C, 1 or N].
    """

    @property
    def leaf_weight(self) -> Tensor:
        """z^2 of each line."""

    def gram(self, n_draws: int) -> Tensor:
        """X x', [B, N, D, D]."""

    def diagonal(self, at: slice) -> Tensor:
        """Return the diagonal of that, of some columns, [B, columns, 1 or N]."""

    def pool(self, pooled: Tensor, same: bool) -> Tensor:
        """Sum s (z x) (z x)' over lines, [B, N, D, D], for s, [B, C, N], `same` in lines of a gene of one weight."""

    def gram_times(self, dense: Tensor, at: slice) -> Tensor:
        """X x' d, [B, D, N], for some columns of d."""

    def to_leaf(self, dense: Tensor, at: slice) -> Tensor:
        """Z x' d of each line, [B, C, N], for some columns of d."""

    def to_dense(self, leaf: Tensor) -> Tensor:
        """X z e, [B, D, N]."""

    def rest(self, shared: Tensor | None, n_draws: int) -> Rest:
        """Take u, [P, N], off the rows."""

    def said(self, given: Eliminated, tau: Tensor, dense: Tensor) -> Said:
        """Sum what the rows say of u given d, [B, D, N], with e integrated out."""


@dataclass(frozen=True)
class DesignData:
    """Sums of products over the rows of a block of genes that count equally.

    Attributes
    ----------
    products, total, square, count : Tensor
        x x', [B, D, D]; x y, [B, D]; y^2, [B]; number of rows, [B].
    weight, leaf_total, leaf_cross : Tensor
        z^2 and z y of each line, [B, C]; z x, [B, C, D]. Zero where there is no table of genes and lines.
    shared_cross : Tensor
        x w', [B, D, P].
    columns : Tensor
        Which of u the rows of each line have, int64, [C, s]; P where there are fewer.
    leaf_shared : Tensor
        z w of those, [B, C, s].
    shared_gram, shared_total : Tensor
        w w' and w y of those over all genes, [C, s, s] and [C, s].
    """

    products: Tensor
    total: Tensor
    square: Tensor
    count: Tensor
    weight: Tensor
    leaf_total: Tensor
    leaf_cross: Tensor
    shared_cross: Tensor
    columns: Tensor
    leaf_shared: Tensor
    shared_gram: Tensor
    shared_total: Tensor

    def to(self, dtype: torch.dtype) -> DesignData:
        """Return the same in another precision."""
        return DesignData(**{name: x.to(dtype) if x.is_floating_point() else x for name, x in vars(self).items()})

    @property
    def leaf_weight(self) -> Tensor:
        """z^2 of each line, [B, C, 1]."""
        return self.weight[..., None]

    def of_lines(self, shared: Tensor) -> Tensor:
        """Give each line those of u, [P, N], that its rows have: [C, s, N]."""
        padded = torch.cat([shared, shared.new_zeros(1, shared.shape[1])])
        return padded[self.columns]

    def gram(self, n_draws: int) -> Tensor:
        """X x', [B, N, D, D]."""
        return self.products[:, None].expand(-1, n_draws, -1, -1)

    def diagonal(self, at: slice) -> Tensor:
        """Return the diagonal of that, [B, columns, 1]."""
        return self.products.diagonal(dim1=1, dim2=2)[:, at, None]

    @functools.cached_property
    def _levels(self) -> tuple[Tensor, Tensor] | None:
        """Sums by weight of a line's rows, [B, J, D * D], and a line of each, [B, J]; None where weights are many.

        With one variance for all lines of a gene, s depends on a line only through that weight.
        """
        values, level = torch.unique(self.weight, return_inverse=True)
        if len(values) > MOST_LEVELS:
            return None
        n_genes, _, size = self.leaf_cross.shape
        of_level = torch.nn.functional.one_hot(level, len(values)).to(self.total)
        sums = self.total.new_zeros(n_genes, len(values), size * size)
        for j in range(len(values)):
            sums[:, j] = ((self.leaf_cross * of_level[..., j, None]).mT @ self.leaf_cross).reshape(n_genes, -1)
        return sums, of_level.argmax(1)

    def pool(self, pooled: Tensor, same: bool) -> Tensor:
        """Sum s (z x) (z x)' over lines; see `DesignSums`."""
        n_genes, _, size = self.leaf_cross.shape
        n_draws = pooled.shape[2]
        if same and self._levels is not None:
            sums, first = self._levels
            of_level = pooled.gather(1, first[..., None].expand(-1, -1, n_draws))
            return (of_level.mT @ sums).reshape(n_genes, n_draws, size, size)
        found = self.total.new_empty(n_genes, n_draws, size, size)
        for draw in range(n_draws):
            found[:, draw] = (self.leaf_cross * pooled[..., draw, None]).mT @ self.leaf_cross
        return found

    def gram_times(self, dense: Tensor, at: slice) -> Tensor:
        """X x' d, [B, D, N], for some columns of d."""
        return self.products[..., at] @ dense

    def to_leaf(self, dense: Tensor, at: slice) -> Tensor:
        """Z x' d of each line, [B, C, N], for some columns of d."""
        return self.leaf_cross[..., at] @ dense

    def to_dense(self, leaf: Tensor) -> Tensor:
        """X z e, [B, D, N]."""
        return self.leaf_cross.mT @ leaf

    def rest(self, shared: Tensor | None, n_draws: int) -> Rest:
        """Take u, [P, N], off the rows."""
        dense, leaf = self.total[..., None], self.leaf_total[..., None]
        if shared is None or not len(shared):
            return Rest(dense.expand(-1, -1, n_draws), leaf.expand(-1, -1, n_draws))
        taken = (self.leaf_shared.transpose(0, 1) @ self.of_lines(shared)).transpose(0, 1)
        return Rest(dense - self.shared_cross @ shared, leaf - taken)

    def said(self, given: Eliminated, tau: Tensor, dense: Tensor) -> Said:
        """Sum what the rows say of u given d; see `DesignSums`."""
        left = self.leaf_total[..., None] - self.leaf_cross @ dense
        by_line = self.leaf_shared.transpose(0, 1)
        weighted = by_line.mT * given.pooled.permute(2, 1, 0)[:, :, None]
        precision = tau[:, None, None, None] * (self.shared_gram - weighted @ by_line)
        of_lines = self.shared_total[..., None] - by_line.mT @ (given.pooled * left).transpose(0, 1)
        n_shared = self.shared_cross.shape[2]
        rhs = dense.new_zeros(n_shared + 1, dense.shape[2])
        rhs.index_add_(0, self.columns.reshape(-1), of_lines.reshape(-1, dense.shape[2]))
        crossed = self.shared_cross.flatten(0, 1).T @ dense.flatten(0, 1)
        return Said(precision, tau * (rhs[:n_shared] - crossed))

    def squares(self, shared: Tensor | None) -> Tensor:
        """Sum of (y - w'u)^2 over all rows, [N] or []."""
        total = self.square.sum()
        if shared is None:
            return total
        of_lines = self.of_lines(shared)
        pulled = self.shared_gram @ of_lines - 2 * self.shared_total[..., None]
        return total + (of_lines * pulled).sum((0, 1))


def eliminate(
    data: DesignSums,
    noise: Tensor,
    scale: Tensor,
    leaf: Tensor | None,
    shared: Tensor | None,
    mixings: Sequence[Mixing] = (),
) -> Eliminated:
    """Integrate e out and factor d.

    Parameters
    ----------
    noise : Tensor
        Variance of rows, [N].
    scale : Tensor
        Prior sds of d, [B, D, N].
    leaf : Tensor or None
        Prior variance of e, [B or 1, C or 1, N]; None where there is no such table.
    shared : Tensor or None
        u, [P, N]; zero where not given.
    mixings : sequence of Mixing
        How columns of d are correlated, of columns of their own each.
    """
    n_draws = len(noise)
    tau = 1.0 / noise
    rest = data.rest(shared, n_draws)
    variance = noise.new_zeros(1, 1, n_draws) if leaf is None else leaf
    shrink = 1.0 / (1.0 + tau * variance * data.leaf_weight)
    pooled = tau * variance * shrink
    precision = data.gram(n_draws)
    rhs = rest.dense
    if leaf is not None:
        precision = precision - data.pool(pooled, leaf.shape[1] == 1)
        rhs = rhs - data.to_dense(pooled * rest.leaf)
    scale = scale.mT
    whitened = (scale[..., :, None] * precision) * (tau[:, None, None] * scale[..., None, :])
    right = scale * (tau * rhs).mT
    for mixing in mixings:
        whitened, right = mixing.around(whitened), mixing.transposed_times(right)
    whitened.diagonal(dim1=-2, dim2=-1).add_(1.0)
    chol = torch.linalg.cholesky(whitened)
    solution = torch.linalg.solve_triangular(chol, right[..., None], upper=False)[..., 0]
    return Eliminated(chol, scale, solution, shrink, pooled, rest, mixings)


def log_evidence(data: DesignData, given: Eliminated, noise: Tensor) -> Tensor:
    """Log density of a block's rows at u = 0, [N], e and d integrated out; `given` is from `eliminate` without u."""
    tau = 1.0 / noise
    total = data.count.sum() * (tau.log() - math.log(2 * math.pi)) - tau * data.square.sum()
    total = total + given.shrink.log().sum((0, 1))
    total = total + tau * (given.pooled * data.leaf_total[..., None].square()).sum((0, 1))
    logs = given.chol.diagonal(dim1=-2, dim2=-1).log().sum((0, 2))
    return 0.5 * (total + given.solution.square().sum((0, 2))) - logs


def draw_leaf(given: Eliminated, leaf: Tensor, noise: Tensor, left: Tensor, normal: Tensor) -> Tensor:
    """Draw e, [B, C, N], from standard normals of that shape and what d and u leave of lines, z (y - w'u - x'd)."""
    return given.pooled * left + (leaf * given.shrink).sqrt() * normal


def natural_parameters(data: DesignData, given: Eliminated, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Sum what a block says of u with d and e integrated out: precision [N, P, P] and rhs [N, P].

    `given` is from `eliminate` without u.
    """
    n_shared, n_draws = data.shared_cross.shape[2], len(noise)
    n_genes, n_lines, _ = data.leaf_shared.shape
    at = data.columns
    whole = data.total.new_zeros(n_lines, n_shared + 1, n_shared + 1)
    lines = torch.arange(n_lines, device=at.device)[:, None, None]
    whole[lines, at[:, :, None], at[:, None]] = data.shared_gram
    gram = whole.sum(0)[:n_shared, :n_shared]
    spread = data.total.new_zeros(n_genes, n_lines, n_shared + 1)
    spread[:, lines[:, 0], at] = data.leaf_shared
    spread = spread[..., :n_shared]
    total = data.total.new_zeros(n_shared + 1).index_add(0, at.reshape(-1), data.shared_total.reshape(-1))[:n_shared]
    precision, rhs = [], []
    for draw in range(n_draws):
        tau, pooled = 1.0 / noise[draw], given.pooled[..., draw]
        weighted = spread * pooled[..., None]
        cross = tau * (data.shared_cross - data.leaf_cross.mT @ weighted)
        scaled = given.scale[:, draw, :, None] * cross
        for mixing in given.mixings:
            scaled = mixing.of_draws(draw).transposed_times(scaled.mT).mT
        half = torch.linalg.solve_triangular(given.chol[:, draw], scaled, upper=False).flatten(0, 1)
        own = gram - weighted.flatten(0, 1).T @ spread.flatten(0, 1)
        precision.append(tau * own - half.T @ half)
        pulled = total - torch.einsum("bcp,bc->p", weighted, data.leaf_total)
        rhs.append(tau * pulled - half.T @ given.solution[:, draw].flatten())
    return torch.stack(precision), torch.stack(rhs)
