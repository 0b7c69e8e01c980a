"""Coefficients that genes share once the genes' own are known: those of lines, and a border of few others.

A row is in one line, so that given all others the lines' coefficients are independent, up to q for each (its own, those
of the line in each library, ...): the precision is block diagonal with a border. Lines are integrated out first. Draws,
N, come first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bordered:
    """Precision and right-hand side of shared coefficients.

    Attributes
    ----------
    line, line_rhs : Tensor
        Of each line's own, [N, C, q, q] and [N, C, q].
    cross : Tensor
        Between those and the r of the border that the line's rows have, [N, C, q, r].
    local : Tensor
        Which these are, int64, [C, r]; R where there are fewer.
    border, border_rhs : Tensor
        Of the border, [N, R, R] and [N, R].
    """

    line: Tensor
    line_rhs: Tensor
    cross: Tensor
    local: Tensor
    border: Tensor
    border_rhs: Tensor


def bordered(precision: Tensor, rhs: Tensor, columns: Tensor, n_own: int, n_border: int) -> Bordered:
    """Arrange what rows say.

    Parameters
    ----------
    precision : Tensor
        Of the s coefficients that each line's rows have, [N, C, s, s]; the lines' own q come first among them.
    rhs : Tensor
        [P, N]: those of lines, then the border's.
    columns : Tensor
        Which of the P these are, [C, s]; P where there are fewer.
    n_own, n_border : int
        q and R.
    """
    q = n_own
    padded = torch.cat([rhs, rhs.new_zeros(1, rhs.shape[1])])
    local = columns[:, q:] - (len(rhs) - n_border)
    return Bordered(
        precision[:, :, :q, :q],
        padded[columns[:, :q]].permute(2, 0, 1),
        precision[:, :, :q, q:],
        local,
        _scatter(precision[:, :, q:, q:], local, n_border),
        rhs[len(rhs) - n_border :].T,
    )


def _scatter(blocks: Tensor, local: Tensor, size: int) -> Tensor:
    """Add blocks of lines, [N, C, r, r], up to one matrix, [N, R, R]."""
    n_draws = len(blocks)
    at = local[:, :, None] * (size + 1) + local[:, None]
    whole = blocks.new_zeros(n_draws, (size + 1) ** 2)
    whole.index_add_(1, at.reshape(-1), blocks.reshape(n_draws, -1))
    return whole.reshape(n_draws, size + 1, size + 1)[:, :size, :size]


@dataclass(frozen=True)
class Factored:
    """Some coefficients whitened by their prior sds: u = scale x chol^-T (solution + standard normal); draws first."""

    chol: Tensor
    scale: Tensor
    solution: Tensor

    @property
    def log_evidence(self) -> Tensor:
        """What integrating them out adds to the log evidence, over all but the last axis."""
        return 0.5 * self.solution.square().sum(-1) - self.chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def draw(self, noise: Tensor) -> Tensor:
        """Draw them from standard normals of their shape."""
        right = (self.solution + noise)[..., None]
        return self.scale * torch.linalg.solve_triangular(self.chol.mT, right, upper=True)[..., 0]


def factor(precision: Tensor, rhs: Tensor, scale: Tensor) -> Factored:
    """Factor I + S Lambda S: precision [..., P, P], right-hand side and prior sds [..., P]."""
    whitened = scale[..., :, None] * precision * scale[..., None, :]
    whitened.diagonal(dim1=-2, dim2=-1).add_(1.0)
    chol = torch.linalg.cholesky(whitened)
    solution = torch.linalg.solve_triangular(chol, (scale * rhs)[..., None], upper=False)[..., 0]
    return Factored(chol, scale, solution)


def integrate_lines(said: Bordered, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return precision and right-hand side of the border with the lines' own out, their prior sds being [N, C, q]."""
    lines = factor(said.line, said.line_rhs, scale)
    half = torch.linalg.solve_triangular(lines.chol, scale[..., None] * said.cross, upper=False)
    n_border = said.border.shape[-1]
    pull = (half * lines.solution[..., None]).sum(2)
    summed = pull.new_zeros(len(pull), n_border + 1).index_add_(1, said.local.reshape(-1), pull.flatten(1))
    return said.border - _scatter(half.mT @ half, said.local, n_border), said.border_rhs - summed[:, :n_border]


def rhs_of_lines(said: Bordered, border: Tensor) -> Tensor:
    """Right-hand side of the lines' own, [N, C, q], given the border, [N, R]."""
    padded = torch.cat([border, border.new_zeros(len(border), 1)], 1)
    return said.line_rhs - (said.cross @ padded[:, said.local][..., None])[..., 0]
