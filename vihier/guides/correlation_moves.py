"""Moves of correlations between the components of genes' vectors given all genes' deviations, many chains side by side.

A correlation matrix is moved twice, as scales are: with the deviations held, of which their scatter says all, and with
the whitened deviations held and the rows asking. Each move is a slice sampler for one of the real numbers that the
matrix is held as, whose density is the others' too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from vihier.guides.mixed_model import Correlation, Location, Scale
from vihier.guides.slice_sampler import slice_sample
from vihier.kernels.correlated import factor_of, inverse_factor, log_prior

Gain = Callable[[Tensor], Tensor]
"""Log density, [..., N], of a factor L, [..., N, K, K], but for its prior."""
WIDTH = 3.0


def move_factor(free: Tensor, correlation: Correlation, gain: Gain, random: torch.Generator) -> Tensor:
    """Move each of the real numbers of a correlation matrix, [pairs, N], in turn."""
    for pair in range(len(free)):

        def density(x: Tensor, pair: int = pair, now: Tensor = free) -> Tensor:
            at = now.unsqueeze(-2).repeat(1, len(x), 1)
            at[pair] = x
            chol = factor_of(at)
            return log_prior(at, chol, correlation.concentration) + gain(chol)

        free = free.clone()
        free[pair] = slice_sample(density, free[pair], random, width=WIDTH)
    return free


def rows_gain(start: Tensor, pull: Tensor, weight: Tensor) -> Gain:
    """Return what the rows say of L with the whitened deviations held; see `DesignChains.factor_terms`."""
    size = start.shape[-1] ** 2
    pull, weight = pull.flatten(-2), weight.reshape(len(weight), size, size)

    def gain(chol: Tensor) -> Tensor:
        change = (chol - start).flatten(-2)
        return (change * (pull - 0.5 * (weight @ change[..., None])[..., 0])).sum(-1)

    return gain


def held_products(
    members: Sequence[Location], chol: Tensor, scatter: Tensor, moved: Sequence[Scale]
) -> tuple[Tensor, Tensor]:
    """Return what correlations add to the squares of standardised components whose scales are `moved`.

    And their products with the components whose scales are not, both as the vectors' density has them, [N].
    """
    inverse = inverse_factor(chol)
    products = (inverse.mT @ inverse) * scatter
    names = {scale.name for scale in moved}
    among = chol.new_tensor([float(member.scale in names) for member in members])
    own = torch.einsum("njk,j,k->n", products, among, among)
    alone = scatter.diagonal(dim1=-2, dim2=-1) @ among
    return own - alone, torch.einsum("njk,j,k->n", products, among, 1 - among)


def draw_shifts(
    root: Tensor, sums: Tensor, number: Tensor, shared: Mapping[int, tuple[Tensor, Tensor]], noise: Tensor
) -> Tensor:
    """Draw how far all genes' vectors shift against what genes share, in which only priors have a say, [K, N].

    Parameters
    ----------
    root : Tensor
        Sds times L: the factor of a vector's prior covariance, [N, K, K].
    sums, number : Tensor
        Sum of the vectors, [K, N], and how many there are.
    shared : mapping
        Component -> prior precision and value, [N], of what it shifts against.
    noise : Tensor
        Standard normals, [N, components that shift].
    """
    at = list(shared)
    inverse = inverse_factor(root)
    precision = inverse.mT @ inverse
    weights, values = (torch.stack([shared[i][j] for i in at], -1) for j in range(2))
    pull = (precision @ sums.T[..., None])[:, at, 0]
    chol = torch.linalg.cholesky(number * precision[:, at][..., at] + torch.diag_embed(weights))
    half = torch.linalg.solve_triangular(chol, (weights * values - pull)[..., None], upper=False)[..., 0]
    drawn = torch.linalg.solve_triangular(chol.mT, (half + noise)[..., None], upper=True)[..., 0]
    found = torch.zeros_like(sums)
    found[at] = drawn.T
    return found
