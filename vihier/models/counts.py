"""Read counts of rows: negative-binomial around a mean that is log2-linear relative to what is expected of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

COUNTS, EXPECTED = "counts_final", "counts_expected"
# Reads at which the noise of rows is `scale` whatever `power` is: of the order that screens are sequenced to.
REFERENCE_READS = 300.0
# Share of the rows whose noise is larger.
NOISY_SHARE = 0.1


class ReadCounts(TorchDistribution):
    r"""Negative-binomial counts $y$ with mean $m = E\, 2^{\mathrm{loc}}$ and variance $m + (s\, m)^2$.

    $E$ is `expected`, the reads that a row would have were its abundance that in its plasmid pool, and
    $s = \mathrm{scale} \times \mathrm{factor} \times (E / 300)^{-\mathrm{power}}$ the coefficient of variation beyond
    that of Poisson counts. The dispersion, as other tools have it, is $s^2$, and its inverse the size. One row in ten,
    nobody knows which, is noisier: its $s$ is $e^{\mathrm{excess}}$ times as large.

    Parameters
    ----------
    loc : Tensor
        Log2 fold change of the mean relative to `expected`.
    scale, factor, power, expected, excess : Tensor
        As above; all are broadcast together.
    """

    arg_constraints = {  # noqa: RUF012 - as torch has it
        "loc": constraints.real,
        "scale": constraints.positive,
        "factor": constraints.positive,
        "power": constraints.nonnegative,
        "expected": constraints.positive,
        "excess": constraints.nonnegative,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        factor: Tensor | float = 1.0,
        power: Tensor | float = 0.0,
        expected: Tensor | float = REFERENCE_READS,
        excess: Tensor | float = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale, self.factor, self.power, self.expected, self.excess = broadcast_all(
            loc, scale, factor, power, expected, excess
        )
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ReadCounts:
        """Return the same distribution of a larger shape."""
        parts = {name: getattr(self, name).expand(torch.Size(batch_shape)) for name in self.arg_constraints}
        return ReadCounts(**parts, validate_args=False)

    @property
    def log_mean(self) -> Tensor:
        """Natural logarithm of the mean."""
        return self.expected.log() + math.log(2) * self.loc

    @property
    def log_sd(self) -> Tensor:
        """Natural logarithm of the s of most rows."""
        depth = self.expected.log() - math.log(REFERENCE_READS)
        return self.scale.log() + self.factor.log() - self.power * depth

    @property
    def mean(self) -> Tensor:
        """Expected reads."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """Variance of the reads."""
        wider = 1 - NOISY_SHARE + NOISY_SHARE * (2 * self.excess).exp()
        return self.mean + wider * (self.log_mean + self.log_sd).exp().square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of counts."""
        most = math.log(1 - NOISY_SHARE) + self._log_prob(value, self.log_sd)
        return torch.logaddexp(most, math.log(NOISY_SHARE) + self._log_prob(value, self.log_sd + self.excess))

    def _log_prob(self, value: Tensor, log_sd: Tensor) -> Tensor:
        size = (-2 * log_sd).exp()
        odds = self.log_mean + 2 * log_sd
        softplus = torch.nn.functional.softplus
        constant = torch.lgamma(value + size) - torch.lgamma(size) - torch.lgamma(value + 1)
        return constant - size * softplus(odds) - value * softplus(-odds)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw counts: Poisson ones of gamma rates."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            noisy = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device) < NOISY_SHARE
            size = (-2 * (self.log_sd + noisy * self.excess)).exp()
            rate = torch._standard_gamma(size) / size * self.mean
            return torch.poisson(rate)


def log2_ratio(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return counts relative to what is expected as fold changes (log2), a count of zero as half of one.

    Examples
    --------
    >>> log2_ratio(np.array([0.0, 99.5]), np.array([1.0, 25.0])).tolist()
    [-1.0, 2.0]
    """
    return np.log2((counts + 0.5) / expected)
