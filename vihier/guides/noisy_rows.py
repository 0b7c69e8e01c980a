"""Rows of read counts of which one in ten, nobody knows which, is noisier than the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.count_noise import Said, Sums
from vihier.kernels.counts import CountRows
from vihier.kernels.rows import sum_rows
from vihier.models.counts import NOISY_SHARE

LOG_MOST, LOG_NOISY = math.log(1 - NOISY_SHARE), math.log(NOISY_SHARE)


@dataclass(frozen=True)
class NoisyRows:
    """What rows say of by how much some of them are noisier, which of them integrated out.

    Attributes
    ----------
    rows : CountRows
    least : Tensor
        Log s of rows that are not, [n, N].
    excess : Tensor
        What is added to it where they are, [N].
    plain : Tensor
        Log density of rows that are not, [n, N].
    noisy : Said
        The same where they are.
    odds : Tensor
        Log odds of each row to be noisy, [n, N].
    """

    rows: CountRows
    least: Tensor
    excess: Tensor
    plain: Tensor
    noisy: Said
    odds: Tensor

    @classmethod
    def of(cls, rows: CountRows, log_sd: Tensor, here: Said, noisy: Tensor | None, excess: Tensor) -> NoisyRows:
        """Make it of rows of which some are noisy; `here` is what they say at their log s."""
        if noisy is None:
            other = Said.of(rows, lambda at: log_sd[at] + excess)
            return cls._made(rows, log_sd, excess, here.density, other)
        is_noisy = noisy.to(log_sd)
        least = torch.addcmul(log_sd, is_noisy, excess, value=-1.0)
        other = Said.of(rows, lambda at: torch.addcmul(least[at], 1.0 - is_noisy[at], excess))
        wide = Said(torch.lerp(other.density, here.density, is_noisy), torch.lerp(other.score, here.score, is_noisy))
        return cls._made(rows, least, excess, torch.lerp(here.density, other.density, is_noisy), wide)

    @classmethod
    def _made(cls, rows: CountRows, least: Tensor, excess: Tensor, plain: Tensor, noisy: Said) -> NoisyRows:
        odds = (noisy.density - plain).add_(LOG_NOISY - LOG_MOST)
        return cls(rows, least, excess, plain, noisy, odds)

    def at(self, excess: Tensor) -> NoisyRows:
        """Return the same for another excess."""
        noisy = Said.of(self.rows, lambda at: self.least[at] + excess)
        return self._made(self.rows, self.least, excess, self.plain, noisy)

    def where(self, moved: Tensor, other: NoisyRows) -> NoisyRows:
        """Return `other` in the chains that moved, bool [N], and this in the rest."""
        noisy = Said(
            torch.where(moved, other.noisy.density, self.noisy.density),
            torch.where(moved, other.noisy.score, self.noisy.score),
        )
        return self._made(self.rows, self.least, torch.where(moved, other.excess, self.excess), self.plain, noisy)

    def _both(self) -> Tensor:
        """Log density of each row less that of one which is not noisy, [n, N]."""
        return torch.nn.functional.softplus(self.odds).add_(LOG_MOST)

    def sums(self, before: NoisyRows | None = None) -> Sums:
        """Sum over rows the gain in log density, its slope with the log of the excess, and the slopes' squares, [N]."""
        chance = self.odds.sigmoid()
        score, excess = chance * self.noisy.score, self.excess.double()
        squares = torch.minimum(sum_rows(score.square(), None, 1), 2 * sum_rows(chance, None, 1))
        gain = torch.zeros_like(squares) if before is None else sum_rows(self._both() - before._both(), None, 1)
        return gain, sum_rows(score, None, 1) * excess, squares * excess.square()

    def draw(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw which rows are noisy, bool [n, N]; return it with the rows' log density."""
        uniform = torch.rand(self.odds.shape, generator=random, dtype=self.odds.dtype, device=self.odds.device)
        return uniform < self.odds.sigmoid(), self._both().add_(self.plain)

    def log_sd(self, noisy: Tensor) -> Tensor:
        """Return the rows' log s, [n, N]."""
        return torch.addcmul(self.least, noisy, self.excess)
