"""How parameters of the noise of read counts reach the rows, and what rows say of a step of one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vihier.kernels.counts import CountRows, pieces
from vihier.kernels.rows import ROW_DTYPE, of_rows, sum_rows

Sums = tuple[Tensor, Tensor, Tensor]
"""Log density, its slope, and the information in that, by element of a parameter; float64."""


@dataclass(frozen=True)
class Said:
    """Log density of each row, up to what no noise is in, and its slope with log s; both [n, N]."""

    density: Tensor
    score: Tensor

    @classmethod
    def of(cls, rows: CountRows, log_sd: Callable[[slice], Tensor]) -> Said:
        """Work out both of all rows, piece by piece; `log_sd` gives the noise of a piece."""
        density, score = torch.empty_like(rows.log_mean), torch.empty_like(rows.log_mean)
        for at in pieces(*density.shape):
            density[at], score[at] = rows.at(at).log_density(log_sd(at))
        return cls(density, score)


@dataclass(frozen=True, eq=False)
class Reach:
    """Which element of a parameter moves each row's log s, and how much.

    Attributes
    ----------
    element : Tensor or None
        Which element each row has, int64 [n]; None where there is one.
    n_rows : int
    along : Tensor or None
        How much a row's log s moves with it, [n]; None where by as much.
    """

    element: Tensor | None
    n_rows: int
    along: Tensor | None = None

    @cached_property
    def _order(self) -> tuple[Tensor, Tensor]:
        """The rows by element, and how many rows elements have up to each."""
        assert self.element is not None
        ends = torch.bincount(self.element).cumsum(0)
        return torch.argsort(self.element, stable=True), torch.cat([ends.new_zeros(1), ends])

    @cached_property
    def _members(self) -> dict[int, Tensor]:
        return {}

    def _matrix(self, size: int) -> Tensor:
        """Return the sparse matrix, [size, n], that sums rows by element: far faster than adding them one by one."""
        if size not in self._members:
            order, ends = self._order
            ends = torch.cat([ends, ends[-1:].expand(size + 1 - len(ends))])
            ones = torch.ones(len(order), dtype=ROW_DTYPE, device=order.device)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that it is in beta
                self._members[size] = torch.sparse_csr_tensor(ends, order, ones, size=(size, len(order)))
        return self._members[size]

    def sum(self, values: Tensor, size: int) -> Tensor:
        """Sum over rows, [n, N], by element, [size, N]; float64."""
        if self.element is None:
            return sum_rows(values, None, 1)[None]
        return (self._matrix(size) @ values).double()

    @cached_property
    def weight(self) -> Tensor:
        """Sum of the squares of `along` by element, [E, 1], elements up to the last that rows have."""
        if self.along is not None:
            return self.along.double().square().sum().reshape(1, 1)
        if self.element is None:
            return torch.full((1, 1), float(self.n_rows), dtype=torch.float64)
        return self._order[1].diff()[:, None].double()


@dataclass(frozen=True)
class Step:
    """A step of a parameter of the rows' noise.

    Attributes
    ----------
    reach : Reach
    move, slope : Tensor
        The step, and the derivative of what moves rows with respect to the parameter after it, [R, N], or [N] where
        there is one element.
    """

    reach: Reach
    move: Tensor
    slope: Tensor

    def to_rows(self, at: slice) -> Tensor:
        """Return how much the log s of a piece of the rows moves."""
        element, along = self.reach.element, self.reach.along
        rows = of_rows(self.move, None if element is None else element[at])
        return rows if along is None else rows * along[at, None]

    def moved(self) -> Tensor:
        """Say which rows move, bool [n or 1, N]."""
        moved, element = self.move != 0, self.reach.element
        return moved[None] if element is None else moved.index_select(0, element)

    def sums(self, said: Said, before: Said | None = None) -> Sums:
        """Sum by element the gain in log density over `before`, its slope, and the slopes' squares.

        The last are at most what as many Normal rows would tell of their scale: rows far from what noise that is too
        small leaves to them have large slopes, and tell no more.
        """
        reach, along = self.reach, self.reach.along
        size = self.move.shape[0] if self.move.dim() > 1 else 1
        slope = self.slope.double().reshape(size, -1)
        score = said.score if along is None else said.score * along[:, None]
        squares = reach.sum(score.square(), size) * slope.square()
        most = torch.zeros(size, 1, dtype=torch.float64, device=slope.device)
        most[: len(reach.weight)] = 2 * reach.weight.to(most)
        gain = torch.zeros_like(squares) if before is None else reach.sum(said.density - before.density, size)
        return gain, reach.sum(score, size) * slope, torch.minimum(squares, most * slope.square())
