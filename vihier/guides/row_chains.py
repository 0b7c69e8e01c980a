"""One gene block's rows in the interweaving sweeps, where they are Student-t or of several noise scales.

Given a weight for each row, rows are Normal of unequal precision and all locations Gaussian; see `vihier.kernels.rows`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vihier.guides.mixed_model import Structure
from vihier.kernels.cells import GeneData
from vihier.kernels.rows import (
    ROW_DTYPE,
    RowTable,
    draw_weights,
    noise_pull,
    of_rows,
    residuals,
    step_weights,
    student_log_density,
    sum_log_tails,
    sum_rows,
    weighted_data,
)

Theta = dict[str, Tensor]


class RowChains:
    """The chains' state for the rows of one block.

    Attributes
    ----------
    weight : Tensor or None
        Weight of each Student-t row in each chain, [n, N]; None before the first sweep, and where rows are Normal.
    residual, squares : Tensor
        What the locations leave of each row, and its square in units of the noise scale, [n, N].
    sorted_squares : Tensor
        The squares in the order of the rows' degrees of freedom.
    """

    def __init__(self, structure: Structure, table: RowTable, generator: torch.Generator) -> None:
        self.structure, self.table, self.generator = structure, table, generator
        self.weight: Tensor | None = None
        self.residual: Tensor
        self.squares: Tensor
        self.sorted_squares: Tensor

    def _noise_precision(self, theta: Theta) -> Tensor:
        """1 / noise variance of each row, [n or 1, N]."""
        structure = self.structure
        n_draws = next(iter(theta.values())).shape[-1]
        if structure.noise is None:
            return self.table.lfc.new_full((1, n_draws), structure.noise_factor**-2)
        precision = (-2 * theta[structure.noise]).exp() / structure.noise_factor**2
        return of_rows(precision, self.table.noise)

    def freedom(self, theta: Theta) -> Tensor:
        """Degrees of freedom, [K, N] or, where all rows have the same, [N]."""
        freedom = self.structure.freedom
        assert freedom is not None
        if freedom.source is None:
            n_draws = next(iter(theta.values())).shape[-1]
            return self.table.lfc.new_full((n_draws,), freedom.factor, dtype=torch.float64)
        return freedom.value_at(theta[freedom.source]).double()

    def data(self, theta: Theta, like: GeneData, evidence: bool = False) -> GeneData:
        """Return the block's sums with each row weighted by its precision; see `weighted_data`."""
        precision = self._noise_precision(theta)
        n_draws = precision.shape[1]
        if self.structure.freedom is not None and self.weight is None:
            self.weight = torch.ones(len(self.table.lfc), n_draws, dtype=ROW_DTYPE, device=precision.device)
        precision = precision.expand(len(self.table.lfc), -1) if self.weight is None else precision * self.weight
        return weighted_data(self.table, precision, like, evidence)

    def take_residuals(self, columns: Tensor, slots: Tensor) -> None:
        """Work out what predictions by gene and line, [B, C, N], and by sgRNA, [B, K, N], leave of the rows."""
        self.residual = residuals(self.table, columns, slots)

    def noise_squares(self, size: int) -> Tensor:
        """Sum of weight x squared residual by noise scale, [size, N], or over all rows, [N]; float64."""
        squares = self.residual.square()
        return sum_rows(squares if self.weight is None else self.weight * squares, self.table.noise, size)

    def take_squares(self, theta: Theta) -> None:
        """Bring the squared residuals to units of the noise scales."""
        self.squares = self.residual.square().mul_(self._noise_precision(theta))
        order = self.table.by_freedom
        self.sorted_squares = self.squares if order is None else self.squares.index_select(0, order)

    def log_tails(self, inverse_freedom: Tensor) -> Tensor:
        """Sum of log(1 + z^2 / nu) of the rows by degrees of freedom, from 1 / nu, [K, N] or [N]; float64."""
        if inverse_freedom.dim() == 1:
            return sum_log_tails(self.sorted_squares, inverse_freedom)
        if self.table.freedom is None:
            return sum_log_tails(self.sorted_squares, inverse_freedom[0])[None]
        sums = torch.zeros_like(inverse_freedom, dtype=torch.float64)
        for i, squares in enumerate(self.sorted_squares.split(self.table.of_freedom)):
            sums[i] = sum_log_tails(squares, inverse_freedom[i])
        return sums

    def grow_noise(self, shift: Tensor) -> None:
        """Bring the squared residuals along with noise scales grown by exp(shift), [N]."""
        factor = (-2 * shift).exp().to(ROW_DTYPE)
        self.squares.mul_(factor)
        if self.sorted_squares is not self.squares:
            self.sorted_squares.mul_(factor)

    def step_weights(self, theta: Theta) -> None:
        """Move the weights of Student-t rows given everything else."""
        if self.structure.freedom is None:
            return
        assert self.weight is not None
        freedom = of_rows(self.freedom(theta), self.table.freedom)
        self.weight = step_weights(self.weight, freedom, self.squares, self.generator)

    def draw_weights(self, theta: Theta) -> None:
        """Draw the weights of Student-t rows given everything else, whatever they were."""
        freedom = of_rows(self.freedom(theta), self.table.freedom)
        self.weight = draw_weights(freedom, self.squares, self.generator)

    def scaled_squares(self, size: int) -> Tensor:
        """Sum of squared residuals in units of the noise scales, as `noise_squares`."""
        return sum_rows(self.squares, self.table.noise, size)

    def noise_pull(self, theta: Theta, size: int) -> tuple[Tensor, Tensor]:
        """Sum `vihier.kernels.rows.noise_pull` over the rows of each noise scale, [size, N], or all, [N]; float64."""
        found = noise_pull(of_rows(self.freedom(theta), self.table.freedom), self.squares)
        pull, bend = (sum_rows(x, self.table.noise, size) for x in found)
        return pull, bend

    def log_density(self, theta: Theta) -> Tensor:
        """Log density of the rows given locations and scales, weights integrated out, [N]."""
        scales = 0.5 * self._noise_precision(theta).log().expand_as(self.squares).sum(0, dtype=torch.float64)
        if self.structure.freedom is None:
            n_rows = len(self.table.lfc)
            return scales - 0.5 * (self.squares.sum(0, dtype=torch.float64) + n_rows * math.log(2 * math.pi))
        freedom = self.freedom(theta)
        density = student_log_density(freedom, self.log_tails(1 / freedom), rows_of(self.table, freedom))
        return scales + (density.sum(0) if density.dim() > 1 else density)


def rows_of(table: RowTable, freedom: Tensor) -> Tensor | float:
    """Count rows by degrees of freedom, [K, 1], or all."""
    if table.freedom is None:
        return float(len(table.lfc))
    return torch.bincount(table.freedom, minlength=len(freedom)).to(freedom)[:, None]
