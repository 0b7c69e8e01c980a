"""Coefficients of genes that are correlated a priori: d = S M z, M the identity but for the factor L of some columns.

With z independent standard normals, what elimination asks of S it asks of A = S M: the whitened precision is A' G A.
L is the lower factor of a correlation matrix, its rows of length one, and is held as real numbers, the inverse
hyperbolic tangents of canonical partial correlations, which any values make a correlation matrix (Lewandowski,
Kurowicka & Joe 2009, J. Multivar. Anal. 100, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import LKJCholesky
from torch.distributions.transforms import CorrCholeskyTransform

_TRANSFORM = CorrCholeskyTransform()


@dataclass(frozen=True)
class Mixing:
    """M: the identity, but for `columns`, int64 [K], whose block is `chol`, [..., K, K], one for each draw."""

    columns: Tensor
    chol: Tensor

    def times(self, vectors: Tensor) -> Tensor:
        """M v of vectors [..., D]."""
        return self._put(vectors, (self.chol @ vectors[..., self.columns, None])[..., 0])

    def transposed_times(self, vectors: Tensor) -> Tensor:
        """M' v of vectors [..., D]."""
        return self._put(vectors, (self.chol.mT @ vectors[..., self.columns, None])[..., 0])

    def right(self, matrices: Tensor) -> Tensor:
        """X M of matrices [..., n, D]."""
        return self._put(matrices, matrices[..., self.columns] @ self.chol)

    def around(self, matrices: Tensor) -> Tensor:
        """M' W M of symmetric matrices [..., D, D]."""
        found = self.right(matrices)
        found[..., self.columns, :] = self.chol.mT @ found[..., self.columns, :]
        return found

    def of_draws(self, at: slice | int) -> Mixing:
        """Return that of some draws."""
        return Mixing(self.columns, self.chol[at])

    def _put(self, whole: Tensor, part: Tensor) -> Tensor:
        found = whole.clone()
        found[..., self.columns] = part
        return found


def factor_of(free: Tensor) -> Tensor:
    """Lower factors of correlation matrices, [..., K, K], from real numbers, one for each pair: [pairs, ...].

    Examples
    --------
    >>> chol = factor_of(torch.tensor([[0.0, 1.0]]))
    >>> [round(float(x), 3) for x in (chol @ chol.mT)[:, 1, 0]]
    [0.0, 0.762]
    """
    chol: Tensor = _TRANSFORM(free.movedim(0, -1))
    return chol


def log_prior(free: Tensor, chol: Tensor, concentration: float) -> Tensor:
    """Log density, [...], of these real numbers where L has an LKJ prior; `chol` is `factor_of` them."""
    lkj = LKJCholesky(chol.shape[-1], free.new_tensor(concentration), validate_args=False)
    found: Tensor = lkj.log_prob(chol) + _TRANSFORM.log_abs_det_jacobian(free.movedim(0, -1), chol)
    return found


def inverse_factor(chol: Tensor) -> Tensor:
    """Inverses of small lower factors, [..., K, K], by forward substitution."""
    size = chol.shape[-1]
    rows: list[Tensor] = []
    eye = torch.eye(size, dtype=chol.dtype, device=chol.device)
    for i in range(size):
        row = eye[i].expand(chol.shape[:-1])
        for j, above in enumerate(rows):
            row = row - chol[..., i, j, None] * above
        rows.append(row / chol[..., i, i, None])
    return torch.stack(rows, -2)


def gain_of_vectors(chol: Tensor, scatter: Tensor, number: int) -> Tensor:
    """Log density, [...], of standardised vectors whose correlation matrix is L L', up to a constant.

    Parameters
    ----------
    chol : Tensor
        L, [..., K, K].
    scatter : Tensor
        Sum of u u' over the vectors, [..., K, K].
    number : int
        How many there are.
    """
    inverse = inverse_factor(chol)
    squares = ((inverse @ scatter) * inverse).sum((-2, -1))
    return -number * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * squares
