"""Cholesky factors of very many very small matrices, element by element of the factor for all matrices at once.

A library's batched factorisation costs a microsecond a matrix whatever its size; written out, a 5 x 5 factor is some
forty operations on long vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SmallFactor:
    """Lower factors L of D x D matrices, and y = L^-1 rhs.

    `lower[i][j]`, j <= i, and `solution[i]` are the elements for all matrices, of one shape.
    """

    lower: tuple[tuple[Tensor, ...], ...]
    solution: tuple[Tensor, ...]

    @property
    def log_determinant(self) -> Tensor:
        """Log determinant of L."""
        total = self.lower[0][0].log()
        for i in range(1, len(self.lower)):
            total = total + self.lower[i][i].log()
        return total

    @property
    def squared(self) -> Tensor:
        """Sum of squares of y."""
        total = self.solution[0].square()
        for value in self.solution[1:]:
            total = total + value.square()
        return total

    def back(self, noise: Sequence[Tensor]) -> list[Tensor]:
        """Return L^-T (y + noise), element by element."""
        size = len(self.lower)
        found: list[Tensor] = [noise[0]] * size
        for i in reversed(range(size)):
            value = self.solution[i] + noise[i]
            for m in range(i + 1, size):
                value = torch.addcmul(value, self.lower[m][i], found[m], value=-1)
            found[i] = value / self.lower[i][i]
        return found


def small_factor(matrix: Sequence[Sequence[Tensor]], rhs: Sequence[Tensor]) -> SmallFactor:
    """Factor symmetric positive definite matrices given by their lower triangles, and solve for one right-hand side.

    Parameters
    ----------
    matrix : sequence of sequence of Tensor
        `matrix[i][j]`, j <= i: the elements for all matrices, broadcastable.
    rhs : sequence of Tensor
        `rhs[i]` likewise.

    Examples
    --------
    >>> four, two, five = (torch.tensor([float(x)]) for x in (4, 2, 5))
    >>> factor = small_factor([[four], [two, five]], [two, five])
    >>> [float(x) for x in factor.lower[1]], [float(x) for x in factor.back([torch.zeros(1)] * 2)]
    ([1.0, 2.0], [0.0, 1.0])
    """
    lower: list[list[Tensor]] = []
    solution: list[Tensor] = []
    for i, row in enumerate(matrix):
        made: list[Tensor] = []
        for j in range(i):
            value = row[j]
            for m in range(j):
                value = torch.addcmul(value, made[m], lower[j][m], value=-1)
            made.append(value / lower[j][j])
        diagonal, value = row[i], rhs[i]
        for m in range(i):
            diagonal = torch.addcmul(diagonal, made[m], made[m], value=-1)
            value = torch.addcmul(value, made[m], solution[m], value=-1)
        made.append(diagonal.sqrt())
        lower.append(made)
        solution.append(value / made[i])
    return SmallFactor(tuple(tuple(row) for row in lower), tuple(solution))
