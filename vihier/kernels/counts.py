"""Negative-binomial rows given their mean and noise: densities, and what makes them Gaussian rows.

The likelihood of a count y is e^(y x) (1 + e^x)^-(y + r), x = log(m / r), of mean m and size r = 1 / s^2. Given a gamma
variable for the second factor it is that of log m with an error that is the logarithm of a gamma variable: of shape r,
less it, from the rate of the Poisson counts (Greenwood & Yule 1920, J. R. Stat. Soc. 83, 255), or of shape y, from the
other way of expanding it. The smaller of the two shapes is taken, so that a row holds log m at most twice as fast as it
tells of it. A count of zero is one whose first read was still to come (Fruehwirth-Schnatter, Fruehwirth, Held & Rue
2009, Stat. Comput. 19, 479), of shape 1. Logarithms of gamma variables are, as there, mixtures of Normals, to within
1 %: given the component, a row is Gaussian.

Polya-gamma weights would be exact, but hold a row as fast as y does where r is what it tells.

What is of each row and draw, [n, N], is in float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import digamma, polygamma
from torch import Tensor

# Rows x draws that are worked on at once, so that what is in between stays in the processor's cache.
AT_ONCE = 32_768
# Coefficients of the continued fraction of Stirling's remainder (Char 1980, Math. Comput. 34, 547).
FRACTION = (1 / 12, 1 / 30)
TABLE = Path(__file__).with_name("log_gamma_mixture.npz")
FINE = 512
SMALLEST = 1e-30


def remainder(x: Tensor) -> Tensor:
    """Return log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2, to 4e-4, from x = 1 on to 2e-5."""
    above = x + 1.0
    value = torch.zeros_like(x)
    for coefficient in reversed(FRACTION):
        value = coefficient / (above + value)
    return value.add_((x + 0.5) * x.reciprocal().log1p_()).sub_(1.0)


def log_constant(counts: Tensor) -> Tensor:
    """Return what of the log density is of the count alone, y log y - y - log y!; float32."""
    y = counts.double()
    return (torch.xlogy(y, y) - y - torch.lgamma(y + 1)).float()


@dataclass(frozen=True)
class CountRows:
    """Counts of rows and their means in N draws: what moves of the noise alone leave as it is.

    Attributes
    ----------
    counts : Tensor
        Shape [n, 1].
    log_mean : Tensor
        Natural logarithm, shape [n, N].
    """

    counts: Tensor
    log_mean: Tensor

    def at(self, rows: slice) -> CountRows:
        """Return some rows."""
        return CountRows(self.counts[rows], self.log_mean[rows])

    def log_density(self, log_sd: Tensor, score: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log density of each count less `log_constant`, and its derivative with respect to log s; both [n, N].

        Written in deviations from the mean, so that float32 holds it for counts of any size; the derivative is that of
        Stirling's series, and some per cent off where s is above 1.
        """
        y, mean = self.counts, self.log_mean.exp()
        size = (-2 * log_sd).exp()
        total = size + y
        gap = (y - mean) / (mean + size)
        log_gap = gap.log1p()
        log_y = y.clamp_min(1.0).log()
        density = total * log_gap - y * (log_y - self.log_mean)
        density = density.sub_((y / size).log1p_(), alpha=0.5).add_(remainder(total)).sub_(remainder(size))
        if not score:
            return density, None
        share = size / total
        slope = (1 / (12 * size)).add_(0.5).sub_(share / (12 * total)).sub_(share, alpha=0.5)
        return density, slope.add_(size * (log_gap - gap)).mul_(-2.0)


def errors(counts: Tensor, log_sd: Tensor) -> tuple[Tensor, Tensor]:
    """Return of what sign, and of which shape a, each row's error is, as -log(a) / 2; [n, N], from counts [n, 1]."""
    of_counts = -0.5 * counts.clamp_min(1.0).log()
    ours = counts >= (-2 * log_sd).exp()
    return torch.where(ours, 1.0, -1.0), torch.where(ours, log_sd, of_counts)


def draw_observations(rows: CountRows, log_sd: Tensor, random: torch.Generator) -> Tensor:
    """Draw the Gaussian observation of each row's log m, less the mean of its error's component, [n, N].

    Its difference to log m, times the sign, is the error; see `errors`.
    """
    counts, mean = rows.counts, rows.log_mean.exp()
    size = (-2 * log_sd).exp()
    log_gamma = torch._standard_gamma(size + counts, generator=random).clamp_min_(SMALLEST).log_()
    log_share = log_gamma - (mean + size).log_()
    log_rate = log_share + rows.log_mean
    other = counts.clamp_min(1.0).log() - log_share
    if bool((counts == 0).any()):
        wait = torch.empty_like(mean).exponential_(generator=random).mul_((-log_rate).exp()).log1p_()
        other = torch.where(counts == 0, other - wait, other)
    return torch.where(counts >= size, log_rate, other)


@dataclass(frozen=True)
class LogGammaMixture:
    """Mixtures of Normals that log g, g ~ Gamma(a, a), is from, for a on a grid.

    Attributes
    ----------
    first, step : float
        The grid of -log(a) / 2, below which the mixture is that of the first point, scaled.
    table : Tensor
        Means, 1 / sds and log of weight / sd of the components for each point, float32, shape [T, 3 K].
    """

    first: float
    step: float
    table: Tensor

    @property
    def n_components(self) -> int:
        """K."""
        return self.table.shape[1] // 3

    def draw(self, values: Tensor, log_sd: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw which component each log g is from, [n, N], a = exp(-2 log_sd); return its mean and precision.

        Between two points of the grid, which are 1 % apart in a^(1/2), one is taken at random.
        """
        k = self.n_components
        place = (log_sd - self.first).div_(self.step).reshape(-1)
        scale = place.clamp_max(0.0).mul_(self.step).exp_()
        uniform = torch.rand((2, len(place)), generator=random, dtype=place.dtype, device=place.device)
        point = place.add_(uniform[0]).long().clamp_(0, len(self.table) - 1)
        of_row = self.table.index_select(0, point)
        mean, inverse, constant = of_row[:, :k], of_row[:, k : 2 * k], of_row[:, 2 * k :]
        standard = ((values.reshape(-1) / scale)[:, None] - mean).mul_(inverse)
        log_weight = torch.addcmul(constant, standard, standard, value=-0.5)
        weight = log_weight.sub_(log_weight.amax(1, keepdim=True)).exp_().cumsum(1)
        chosen = (weight < weight[:, -1:] * uniform[1][:, None]).sum(1, keepdim=True).clamp_max_(k - 1)
        found = mean.gather(1, chosen)[:, 0] * scale, (inverse.gather(1, chosen)[:, 0] / scale).square_()
        return found[0].reshape(values.shape), found[1].reshape(values.shape)

    def moments(self, log_sd: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision of log g as a whole, [n, N]."""
        k = self.n_components
        mean, variance = self.table[:, :k], self.table[:, k : 2 * k].square().reciprocal()
        weight = torch.softmax(self.table[:, 2 * k :] - self.table[:, k : 2 * k].log(), 1)
        whole = (weight * mean).sum(1)
        spread = (weight * (variance + (mean - whole[:, None]).square())).sum(1)
        place = (log_sd - self.first) / self.step
        scale = (place.clamp_max(0.0) * self.step).exp()
        point = place.round().long().clamp(0, len(self.table) - 1)
        return whole[point] * scale, spread.reciprocal()[point] / scale.square()


@functools.cache
def log_gamma_mixture(device: torch.device) -> LogGammaMixture:
    """Return the mixtures, for a^(-1/2) from 0.02 to 4; `experiments/log_gamma_mixture.py` fits and judges them.

    The root mean square of the error of the log density is 0.001 at 0.25, 0.004 at 0.5 and 0.01 at 1.
    """
    with np.load(TABLE) as file:
        coarse, parts = file["log_sd"], [file[name] for name in ("log_weight", "mean", "log_sd_of")]
    fine = np.linspace(coarse[0], coarse[-1], FINE)
    weight, mean, log_sd = (
        np.stack([np.interp(fine, coarse, column) for column in part.T.astype(np.float64)], 1) for part in parts
    )
    weight -= np.log(np.exp(weight).sum(1, keepdims=True))
    size = np.exp(-2 * fine)
    whole, spread = (digamma(size) - np.log(size))[:, None], np.sqrt(polygamma(1, size))[:, None]
    inverse = np.exp(-log_sd) / spread
    table = np.concatenate([whole + spread * mean, inverse, weight + np.log(inverse)], 1)
    tensor = torch.tensor(table, dtype=torch.float32, device=device)
    return LogGammaMixture(float(fine[0]), float(fine[1] - fine[0]), tensor)


def pieces(n_rows: int, n_draws: int) -> list[slice]:
    """Cut rows into pieces of about `AT_ONCE` elements."""
    step = max(1, AT_ONCE // n_draws)
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
