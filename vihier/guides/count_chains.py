"""One gene block's rows in the interweaving sweeps, where they are read counts.

Given an observation of the logarithm of each row's mean, and which component of a mixture its error is from, rows are
Normal, each of a precision of its own, and all locations are Gaussian; see `vihier.kernels.counts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vihier.guides.count_noise import Reach, Said, Step, Sums
from vihier.guides.mixed_model import Structure
from vihier.guides.noisy_rows import NoisyRows
from vihier.kernels.cells import GeneData
from vihier.kernels.counts import CountRows, draw_observations, errors, log_constant, log_gamma_mixture, pieces
from vihier.kernels.rows import ROW_DTYPE, RowTable, fitted_rows, of_rows, sum_rows, weighted_data
from vihier.models.counts import REFERENCE_READS

Theta = dict[str, Tensor]
LN2 = math.log(2)


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
    noisy : Tensor or None
        Which rows are among those that are noisier, bool [n, N]; None where the model has none, and at first.
    noise_reach, factor_reach : Reach
        How the noise scales and the factors reach the rows.
    """

    def __init__(self, structure: Structure, table: RowTable, generator: torch.Generator) -> None:
        assert structure.counts is not None and table.counts is not None
        self.structure, self.table, self.generator = structure, table, generator
        self.counts, self.count_noise = table.counts.counts, structure.counts
        self.base = table.counts.log_expected + LN2 * table.counts.offset
        self.depth = table.counts.log_expected - math.log(REFERENCE_READS)
        self.constant = log_constant(self.counts).double().sum()
        self.mixture = log_gamma_mixture(table.cell.device)
        source = structure.counts.factor.source
        by_sgrna = source is not None and structure.scale(source).plates == ("sgrna",)
        n_rows = len(self.counts)
        self.noise_reach = Reach(table.noise, n_rows)
        self.factor_reach = Reach(table.counts.sgrna if by_sgrna else table.counts.gene, n_rows)
        self.weight: Tensor | None = None
        self.fitted: Tensor | None = None
        self.noisy: Tensor | None = None
        self.log_sd: Tensor
        self.log_p: Tensor
        self.rows: CountRows
        self.mixed: NoisyRows
        self._here: Said
        self._there: Said

    def _log_sd(self, theta: Theta) -> Tensor:
        structure, table = self.structure, self.table
        n_draws = next(iter(theta.values())).shape[-1]
        factor, power, excess = self.count_noise.factor, self.count_noise.power, self.count_noise.excess
        constant = math.log(structure.noise_factor) + math.log(factor.factor)
        log_sd = table.lfc.new_full((len(table.lfc), n_draws), constant)
        if structure.noise is not None:
            log_sd += of_rows(theta[structure.noise], table.noise)
        if factor.source is not None:
            whole = theta[factor.source]
            log_sd += of_rows(whole, self.factor_reach.element if whole.dim() > 1 else None)
        if power.source is not None:
            log_sd.addcmul_(self.depth[:, None], power.value_at(theta[power.source]).to(ROW_DTYPE), value=-1.0)
        elif power.factor:
            log_sd.sub_(self.depth[:, None], alpha=power.factor)
        if self.noisy is not None and excess.source is not None:
            log_sd.addcmul_(self.noisy, excess.value_at(theta[excess.source]).to(ROW_DTYPE))
        return log_sd

    def data(self, theta: Theta, like: GeneData, evidence: bool = False) -> GeneData:
        """Return the block's sums with each row at what was last drawn; see `weighted_data`."""
        log_sd = self.log_sd = self._log_sd(theta)
        if self.weight is None:
            self.weight = self.table.lfc[:, None].expand(-1, log_sd.shape[1])
        value, precision = torch.empty_like(log_sd), torch.empty_like(log_sd)
        for at in pieces(*log_sd.shape):
            sign, of_error = errors(self.counts[at, None], log_sd[at])
            if self.fitted is None:
                mean, precision[at] = self.mixture.moments(of_error)
            else:
                error = (self.weight[at] - self.fitted[at]).mul_(LN2).mul_(sign)
                mean, precision[at] = self.mixture.draw(error, of_error, self.generator)
            torch.sub(self.weight[at], mean.mul_(sign), alpha=1 / LN2, out=value[at])
        return weighted_data(self.table, precision.mul_(LN2**2), like, evidence, value)

    def take_residuals(self, columns: Tensor, slots: Tensor) -> None:
        """Take what is predicted by gene and line, [B, C, N], and by sgRNA, [B, K, N]."""
        self.fitted = fitted_rows(self.table, columns, slots)

    def take_means(self) -> None:
        """Work out the rows' means, and their density at the noise as it is, before that is moved."""
        assert self.fitted is not None
        self.rows = CountRows(self.counts[:, None], torch.add(self.base[:, None], self.fitted, alpha=LN2))
        self._here = Said.of(self.rows, lambda at: self.log_sd[at])

    def here(self, step: Step) -> Sums:
        """Sum over rows, by element, the slope of their log density and its square, before a step; see `after`."""
        return step.sums(self._here)

    def after(self, step: Step) -> Sums:
        """Sum over rows, by element, what a step gains in log density, its slope there, and the slopes' squares."""
        self._there = Said.of(self.rows, lambda at: self.log_sd[at] + step.to_rows(at))
        return step.sums(self._there, self._here)

    def take(self, step: Step) -> None:
        """Move the rows' noise by a step, that last asked for, or by none where it is zero."""
        whole = slice(None)
        self.log_sd += step.to_rows(whole)
        moved = step.moved()
        self._here = Said(
            *(
                torch.where(moved, a, b)
                for a, b in zip(vars(self._there).values(), vars(self._here).values(), strict=True)
            )
        )
        del self._there

    def mix(self, excess: Tensor) -> None:
        """Work out the rows' density with and without the larger noise, log s + excess, [N]."""
        self.mixed = NoisyRows.of(self.rows, self.log_sd, self._here, self.noisy, excess.to(ROW_DTYPE))
        del self._here

    def finish(self) -> None:
        """Draw which rows are noisier, and the rows' observations, given everything else."""
        assert self.fitted is not None
        if self.count_noise.excess.source is not None:
            self.noisy, density = self.mixed.draw(self.generator)
            self.log_sd = self.mixed.log_sd(self.noisy)
            del self.mixed
        else:
            density = self._here.density
            del self._here
        self.log_p = self.constant + sum_rows(density, None, 1)
        weight = torch.empty_like(self.fitted)
        for at in pieces(*weight.shape):
            rows = self.rows.at(at)
            self.log_p += rows.log_fit().sum(0, dtype=torch.float64)
            beyond = draw_observations(rows, self.log_sd[at], self.generator).sub_(rows.log_mean)
            torch.add(self.fitted[at], beyond, alpha=1 / LN2, out=weight[at])
        self.weight = weight
        del self.rows

    def log_density(self, theta: Theta) -> Tensor:
        """Log density of the rows given locations and scales as the last sweep left them, [N]."""
        return self.log_p


def joined(parts: Sequence[Sums]) -> Sums:
    """Add what blocks say of a parameter that they share."""
    sums = [sum(each[1:], each[0]) for each in zip(*parts, strict=True)]
    return sums[0], sums[1], sums[2]
