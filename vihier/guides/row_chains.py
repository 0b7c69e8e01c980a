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
    of_rows,
    residuals,
    step_weights,
    student_log_density,
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
    freedom : Tensor
        Degrees of freedom of each row as they were before they were last moved, [n or 1, N].
    """

    def __init__(self, structure: Structure, table: RowTable, generator: torch.Generator) -> None:
        self.structure, self.table, self.generator = structure, table, generator
        self.weight: Tensor | None = None
        self.residual: Tensor
        self.squares: Tensor
        self.freedom: Tensor

    def _noise_precision(self, theta: Theta) -> Tensor:
        """1 / noise variance of each row, [n or 1, N]."""
        structure = self.structure
        n_draws = next(iter(theta.values())).shape[-1]
        if structure.noise is None:
            return self.table.lfc.new_full((1, n_draws), structure.noise_factor**-2)
        precision = (-2 * theta[structure.noise]).exp() / structure.noise_factor**2
        return of_rows(precision, self.table.noise)

    def _freedom(self, log_freedom: Tensor) -> Tensor:
        """Degrees of freedom of each row, [n or 1, N]."""
        freedom = self.structure.freedom
        assert freedom is not None
        if freedom.source is None:
            return log_freedom.new_full((1, log_freedom.shape[-1]), freedom.factor, dtype=ROW_DTYPE)
        return of_rows(freedom.value_at(log_freedom), self.table.freedom)

    def _log_freedom(self, theta: Theta) -> Tensor:
        freedom = self.structure.freedom
        assert freedom is not None
        return next(iter(theta.values())) if freedom.source is None else theta[freedom.source]

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
        """Bring the squared residuals to units of the noise scales, and take each row's degrees of freedom."""
        if self.structure.freedom is not None:
            self.freedom = self._freedom(self._log_freedom(theta))
        self.squares = self.residual.square() * self._noise_precision(theta)

    def freedom_log_density(self, log_freedom: Tensor, size: int) -> Tensor:
        """Log density of the rows with their weights integrated out, by degrees of freedom, [size, N] or [N]."""
        return sum_rows(student_log_density(self._freedom(log_freedom), self.squares), self.table.freedom, size)

    def level_log_density(self, shift: Tensor) -> Tensor:
        """Log density of the rows, [N], with noise scales grown by exp(shift) and weights integrated out, as above."""
        squares = self.squares * (-2 * shift).exp().to(ROW_DTYPE)
        return student_log_density(self.freedom, squares).sum(0, dtype=torch.float64)

    def shift_level(self, shift: Tensor) -> None:
        """Bring the squared residuals along with noise scales grown by exp(shift)."""
        self.squares = self.squares * (-2 * shift).exp().to(ROW_DTYPE)

    def step_weights(self, theta: Theta) -> None:
        """Move the weights of Student-t rows given everything else."""
        if self.structure.freedom is None:
            return
        assert self.weight is not None
        freedom = self._freedom(self._log_freedom(theta))
        self.weight = step_weights(self.weight, freedom, self.squares, self.generator)

    def log_density(self, theta: Theta) -> Tensor:
        """Log density of the rows given locations and scales, weights integrated out, [N]."""
        density = 0.5 * self._noise_precision(theta).log()
        if self.structure.freedom is None:
            density = density - 0.5 * (self.squares + math.log(2 * math.pi))
        else:
            freedom = self._freedom(self._log_freedom(theta))
            density = density + student_log_density(freedom, self.squares) - 0.5 * math.log(math.pi)
        return density.sum(0, dtype=torch.float64)
