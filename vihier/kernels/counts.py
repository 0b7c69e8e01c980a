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
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import digamma, polygamma
from torch import Tensor

# Rows x draws that are worked on at once, so that what is in between stays in the processor's cache.
AT_ONCE = 32_768
# Coefficients of the continued fraction of Stirling's remainder (Char 1980, Math. Comput. 34, 547).
FRACTION = (1 / 12, 1 / 30, 53 / 210, 195 / 371)
TABLE = Path(__file__).with_name("log_gamma_mixture.npz")
FINE = 512
SMALLEST = 1e-30


def remainder(x: Tensor) -> Tensor:
    """Return log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2, to 4e-4, from x = 1 on to 2e-5."""
    value = _fraction(x + 1.0, 2)
    return value.add_((x + 0.5) * x.reciprocal().log1p_()).sub_(1.0)


def _fraction(x: Tensor, terms: int) -> Tensor:
    """Return so many terms of the continued fraction of the remainder; four are good to 5e-5 from x = 1 on."""
    value = FRACTION[terms - 1] / x
    for coefficient in reversed(FRACTION[: terms - 1]):
        value.add_(x).reciprocal_().mul_(coefficient)
    return value


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

    def log_fit(self) -> Tensor:
        """Return what of the log density is of the mean and no noise, y log(m / y), [n, N]."""
        return self.counts * (self.log_mean - self.counts.clamp_min(1.0).log())

    def log_density(self, log_sd: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of each count less `log_constant` and `log_fit`, and its derivative by log s; both [n, N].

        Written in deviations from the mean, so that float32 holds it for counts of any size; the derivative is that of
        Stirling's series, and some per cent off where s is above 1.
        """
        y, mean = self.counts, self.log_mean.exp()
        size = (-2 * log_sd).exp_()
        total = size + y
        gap = mean.neg().add_(y).div_(mean.add_(size))
        log_gap = gap.log1p()
        # A count of zero leaves nothing of Stirling's formula: both remainders are that of r.
        series = total.log().add_(log_sd, alpha=2.0).mul_(0.5).add_(remainder(size)).sub_(_fraction(total, 4))
        density = (total * log_gap).sub_(series.mul_((y > 0).to(series)))
        inverse, share = size.reciprocal(), size / total
        slope = inverse.mul_(1 / 12).add_(0.5).sub_(share / (12 * total)).sub_(share, alpha=0.5)
        return density, slope.add_(size.mul_(log_gap.sub_(gap))).mul_(-2.0)


def errors(counts: Tensor, log_sd: Tensor) -> tuple[Tensor, Tensor]:
    """Return of what sign, and of which shape a, each row's error is, as -log(a) / 2; [n, N], from counts [n, 1]."""
    of_counts = -0.5 * counts.clamp_min(1.0).log()
    ours = counts >= (-2 * log_sd).exp_()
    # The shape of a count of zero is 1 whatever the noise; of others, the smaller one. (Arithmetic on masks, here and
    # below: torch.where takes several times as long.)
    most = torch.where(counts > 0, math.inf, 0.0).to(log_sd)
    return ours.to(log_sd).mul_(2.0).sub_(1.0), torch.maximum(log_sd, of_counts).minimum(most)


def log_gamma_draws(shape: Tensor, random: torch.Generator) -> Tensor:
    """Draw logarithms of gamma variables of some shapes.

    By rejection, all at once (Marsaglia & Tsang 2000, ACM Trans. Math. Softw. 26, 363); the few that are rejected are
    drawn again one by one, and those of shapes below 1 from one more, as there.
    """
    d = (shape - 1 / 3).clamp_min_(1 / 3)
    x = torch.randn(shape.shape, generator=random, dtype=shape.dtype, device=shape.device)
    log_root = d.rsqrt().mul_(x).mul_(1 / 3).add_(1.0).clamp_min_(SMALLEST).log_()
    log_cube = log_root.mul_(3.0)
    log_uniform = torch.rand(shape.shape, generator=random, dtype=shape.dtype, device=shape.device).log_()
    level = log_cube.exp().sub_(1.0).sub_(log_cube).mul_(d).sub_(x.square_(), alpha=0.5)
    again = (log_uniform.add_(level) > 0).logical_or_(shape < 1).reshape(-1).nonzero()[:, 0]
    drawn = log_cube.add_(d.log_())
    if len(again):
        few = shape.reshape(-1)[again]
        exact = torch._standard_gamma(few + (few < 1), generator=random).log_()
        drawn.view(-1)[again] = torch.where(
            few < 1, exact - torch.empty_like(few).exponential_(generator=random) / few, exact
        )
    return drawn


def draw_observations(rows: CountRows, log_sd: Tensor, random: torch.Generator) -> Tensor:
    """Draw the Gaussian observation of each row's log m, less the mean of its error's component, [n, N].

    Its difference to log m, times the sign, is the error; see `errors`.
    """
    counts, mean = rows.counts, rows.log_mean.exp()
    size = (-2 * log_sd).exp_()
    log_share = log_gamma_draws(size + counts, random).sub_(mean.add_(size).log_())
    log_rate = log_share + rows.log_mean
    other = counts.clamp_min(1.0).log() - log_share
    none = (counts[:, 0] == 0).nonzero()[:, 0]
    if len(none):
        wait = torch.empty_like(other[none]).exponential_(generator=random).clamp_min_(SMALLEST).log_()
        other[none] -= torch.nn.functional.softplus(wait - log_rate[none])
    return torch.lerp(other, log_rate, (counts >= size).to(other))


@dataclass(frozen=True)
class LogGammaMixture:
    """Mixtures of Normals that log g, g ~ Gamma(a, a), is from, for a on a grid.

    Attributes
    ----------
    first, step : float
        The grid of -log(a) / 2, below which the mixture is that of the first point, scaled.
    mean, precision, log_height : Tensor
        Means, 1 / variances and log of weight / sd of the components at each point, float32, shape [K, T].
    """

    first: float
    step: float
    mean: Tensor
    precision: Tensor
    log_height: Tensor

    @functools.cached_property
    def _parabolas(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Coefficients of each component's log weight, as it is of the value, at each point."""
        pull = self.mean * self.precision
        return list(zip(self.log_height - 0.5 * self.mean * pull, pull, -0.5 * self.precision, strict=True))

    def draw(self, values: Tensor, log_sd: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw which component each log g is from, [n, N], a = exp(-2 log_sd); return its mean and precision.

        Between two points of the grid, which are 1 % apart in a^(1/2), one is taken at random.
        """
        n_points = self.mean.shape[1]
        place = (log_sd - self.first).div_(self.step).reshape(-1)
        scale = place.clamp_max(0.0).mul_(self.step).exp_()
        uniform = torch.rand((2, len(place)), generator=random, dtype=place.dtype, device=place.device)
        point = place.add_(uniform[0]).int().clamp_(0, n_points - 1)
        standard = values.reshape(-1) / scale
        # Vectors of rows, one for each component: seven values a row would leave the cache.
        weights = [
            square.index_select(0, point)
            .mul_(standard)
            .add_(slope.index_select(0, point))
            .mul_(standard)
            .add_(constant.index_select(0, point))
            for constant, slope, square in self._parabolas
        ]
        total = torch.zeros_like(standard)
        upto = []
        for weight in weights:
            total = total + weight.exp_()
            upto.append(total)
        limit, chosen = total * uniform[1], torch.zeros_like(point)
        for below in upto[:-1]:
            chosen += below < limit
        at = chosen.mul_(n_points).add_(point).long()
        mean, precision = self.mean.take(at).mul_(scale), self.precision.take(at).div_(scale.square_())
        return mean.reshape(values.shape), precision.reshape(values.shape)

    def moments(self, log_sd: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision of log g as a whole, [n, N]."""
        weight = torch.softmax(self.log_height - 0.5 * self.precision.log(), 0)
        whole = (weight * self.mean).sum(0)
        spread = (weight * (self.precision.reciprocal() + (self.mean - whole).square())).sum(0)
        place = (log_sd - self.first) / self.step
        scale = (place.clamp_max(0.0) * self.step).exp()
        point = place.round().long().clamp(0, len(whole) - 1)
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
    components = (whole + spread * mean, inverse**2, weight + np.log(inverse))
    tensors = (torch.tensor(part.T, dtype=torch.float32, device=device).contiguous() for part in components)
    return LogGammaMixture(float(fine[0]), float(fine[1] - fine[0]), *tensors)


def pieces(n_rows: int, n_draws: int) -> list[slice]:
    """Cut rows into pieces of about `AT_ONCE` elements."""
    step = max(1, AT_ONCE // n_draws)
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
