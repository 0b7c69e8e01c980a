"""One gene block's rows in the interweaving sweeps, where they are read counts.

Given an observation of the logarithm of each row's mean, and which component of a mixture its error is from, rows are
Normal, each of a precision of its own, and all locations are Gaussian; see `vihier.kernels.counts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.mixed_model import Structure
from vihier.kernels.cells import GeneData
from vihier.kernels.counts import CountRows, draw_observations, errors, log_constant, log_gamma_mixture, pieces
from vihier.kernels.rows import ROW_DTYPE, RowTable, fitted_rows, of_rows, weighted_data
from vihier.models.counts import REFERENCE_READS

Theta = dict[str, Tensor]
LN2 = math.log(2)


@dataclass(frozen=True)
class Step:
    """A step of a parameter of the rows' noise, and how it reaches the rows.

    Attributes
    ----------
    element : Tensor or None
        Which element of the parameter each row has, [n]; None where it has one.
    size : int
        Number of its elements.
    along : Tensor or None
        How much a row's log s moves with it, [n]; None where by as much.
    move, slope : Tensor
        The step, and the derivative of what moves rows with respect to the parameter after it, [R, N] or [N].
    """

    element: Tensor | None
    size: int
    along: Tensor | None
    move: Tensor
    slope: Tensor


class CountChains:
    """The chains' state for the rows of one block.

    Attributes
    ----------
    weight : Tensor or None
        Observation of each row in each chain, as a log2 fold change, [n, N]; None before the first sweep.
    fitted : Tensor or None
        What the locations predict of it, [n, N]; None before the first locations are drawn.
    log_sd : Tensor
        Of each row, s being its noise, [n, N].
    """

    def __init__(self, structure: Structure, table: RowTable, generator: torch.Generator) -> None:
        assert structure.counts is not None and table.counts is not None
        self.structure, self.table, self.generator = structure, table, generator
        self.counts, self.count_noise, self.gene = table.counts.counts, structure.counts, table.counts.gene
        self.base = table.counts.log_expected + LN2 * table.counts.offset
        self.depth = table.counts.log_expected - math.log(REFERENCE_READS)
        self.mixture = log_gamma_mixture(table.cell.device)
        self.weight: Tensor | None = None
        self.fitted: Tensor | None = None
        self.log_sd: Tensor

    def _log_sd(self, theta: Theta) -> Tensor:
        structure, table = self.structure, self.table
        n_draws = next(iter(theta.values())).shape[-1]
        log_sd = table.lfc.new_full((len(table.lfc), n_draws), math.log(structure.noise_factor))
        if structure.noise is not None:
            log_sd += of_rows(theta[structure.noise], table.noise)
        factor, power = self.count_noise.factor, self.count_noise.power
        if factor.source is not None:
            whole = theta[factor.source]
            log_sd += of_rows(whole, self.gene if whole.dim() > 1 else None)
        log_sd += math.log(factor.factor)
        if power.source is not None:
            log_sd -= self.depth[:, None] * power.value_at(theta[power.source]).to(ROW_DTYPE)
        elif power.factor:
            log_sd -= self.depth[:, None] * power.factor
        return log_sd

    def data(self, theta: Theta, like: GeneData, evidence: bool = False) -> GeneData:
        """Return the block's sums with each row at what was last drawn; see `weighted_data`."""
        log_sd = self._log_sd(theta)
        if self.weight is None:
            self.weight = self.table.lfc[:, None].expand(-1, log_sd.shape[1])
        centre, precision = torch.empty_like(log_sd), torch.empty_like(log_sd)
        for at in pieces(*log_sd.shape):
            sign, of_error = errors(self.counts[at, None], log_sd[at])
            if self.fitted is None:
                mean, precision[at] = self.mixture.moments(of_error)
            else:
                error = (self.weight[at] - self.fitted[at]).mul_(LN2).mul_(sign)
                mean, precision[at] = self.mixture.draw(error, of_error, self.generator)
            centre[at] = mean * sign
        value = self.weight - centre / LN2
        return weighted_data(self.table, precision.mul_(LN2**2), like, evidence, value)

    def take_residuals(self, columns: Tensor, slots: Tensor) -> None:
        """Take what is predicted by gene and line, [B, C, N], and by sgRNA, [B, K, N]."""
        self.fitted = fitted_rows(self.table, columns, slots)

    def _rows(self) -> CountRows:
        assert self.fitted is not None
        return CountRows(self.counts[:, None], torch.add(self.base[:, None], self.fitted, alpha=LN2))

    def take_noise(self, theta: Theta) -> None:
        """Work out the rows' means and noise, before the noise is moved."""
        self.rows, self.log_sd = self._rows(), self._log_sd(theta)

    def after(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Sum over rows, by element, their log density after a step, its slope, and the slopes' squares; float64.

        The last are at most what as many Normal rows would tell of their scale: rows far from what noise that is too
        small leaves to them have large slopes, and tell no more.
        """
        n_rows, n_draws = self.log_sd.shape
        sums = torch.zeros(3, step.size, n_draws, dtype=torch.float64, device=self.log_sd.device)
        move, slope = step.move.to(ROW_DTYPE), step.slope.to(ROW_DTYPE)
        for at in pieces(n_rows, n_draws):
            element = None if step.element is None else step.element[at]
            along = None if step.along is None else step.along[at, None]
            log_sd = self.log_sd[at] + _to_rows(move, element, along)
            density, score = self.rows.at(at).log_density(log_sd, score=True)
            assert score is not None
            score = score * _to_rows(slope, element, along)
            for total, values in zip(sums, (density, score, score.square()), strict=True):
                total += _summed(values, element, step.size)
        return sums[0], sums[1], torch.minimum(sums[2], 2 * self._weight(step) * step.slope.square())

    def _weight(self, step: Step) -> Tensor:
        """Sum of the squares of `along` by element, [size, 1]."""
        along = torch.ones_like(self.depth) if step.along is None else step.along
        element = torch.zeros_like(self.table.cell) if step.element is None else step.element
        zeros = torch.zeros(step.size, dtype=torch.float64, device=along.device)
        return zeros.index_add_(0, element, along.double().square())[:, None]

    def take(self, step: Step) -> None:
        """Move the rows' noise by a step."""
        self.log_sd += _to_rows(
            step.move.to(ROW_DTYPE), step.element, None if step.along is None else step.along[:, None]
        )

    def draw_observations(self) -> None:
        """Draw the rows' observations given everything else."""
        assert self.fitted is not None
        weight = torch.empty_like(self.fitted)
        for at in pieces(*weight.shape):
            rows = self.rows.at(at)
            beyond = draw_observations(rows, self.log_sd[at], self.generator).sub_(rows.log_mean)
            weight[at] = beyond.div_(LN2).add_(self.fitted[at])
        self.weight = weight

    def log_density(self, theta: Theta) -> Tensor:
        """Log density of the rows given locations and scales, [N]."""
        rows, log_sd = self._rows(), self._log_sd(theta)
        total = log_constant(self.counts).double().sum().expand(log_sd.shape[1]).clone()
        for at in pieces(*log_sd.shape):
            total += rows.at(at).log_density(log_sd[at])[0].sum(0, dtype=torch.float64)
        return total


def _to_rows(values: Tensor, element: Tensor | None, along: Tensor | None) -> Tensor:
    rows = of_rows(values, element)
    return rows if along is None else rows * along


def _summed(values: Tensor, element: Tensor | None, size: int) -> Tensor:
    if element is None:
        return values.sum(0, dtype=torch.float64)[None]
    return values.new_zeros(size, values.shape[1]).index_add_(0, element, values).double()


def joined(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Add what blocks say of a parameter that they share."""
    sums = [sum(each[1:], each[0]) for each in zip(*parts, strict=True)]
    return sums[0], sums[1], sums[2]
