"""Read counts given their mean and noise, beside scipy: densities, slopes, rates, and mixtures of Normals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln, logsumexp

from vihier.kernels.counts import (
    CountRows,
    draw_observations,
    errors,
    log_constant,
    log_gamma_draws,
    log_gamma_mixture,
    remainder,
)
from vihier.models.counts import ReadCounts

COUNTS = torch.tensor([0.0, 1.0, 4.0, 30.0, 900.0, 27_000.0])[:, None]
MEANS = torch.tensor([[0.2, 3.0, 60.0, 800.0, 20_000.0]])
NOISES = [0.05, 0.3, 0.8, 2.0, 3.5]


def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("noise", NOISES)
def test_densities_are_those_of_the_negative_binomial(noise: float) -> None:
    log_sd = torch.full((len(COUNTS), MEANS.shape[1]), math.log(noise))
    rows = CountRows(COUNTS, MEANS.log().expand_as(log_sd))
    mine = rows.log_density(log_sd)[0] + rows.log_fit() + log_constant(COUNTS)
    size, mean = noise**-2, MEANS.double().numpy()
    expected = stats.nbinom.logpmf(COUNTS.numpy(), size, size / (size + mean))
    # float32, and a Stirling remainder to 4e-4; the largest are of counts thousands of times the mean.
    np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-3, atol=2e-3)
    slow = ReadCounts((MEANS / 300).log2().double(), torch.tensor(noise, dtype=torch.float64)).log_prob(COUNTS.double())
    np.testing.assert_allclose(slow.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("noise", NOISES[1:3])
def test_slopes_are_those_of_the_density(noise: float) -> None:
    log_sd = torch.full((4, 4), math.log(noise))
    rows = CountRows(COUNTS[:4], MEANS[:, :4].log().expand_as(log_sd))
    slope = rows.log_density(log_sd)[1]
    step, mean = 1e-4, MEANS[:, :4].double().numpy()
    sizes = [(noise * math.exp(x)) ** -2 for x in (step, -step)]
    up, down = (stats.nbinom.logpmf(COUNTS[:4].numpy(), size, size / (size + mean)) for size in sizes)
    # Stirling's series of the digamma function is 1 % off at r = 1.5.
    np.testing.assert_allclose(slope.numpy(), (up - down) / (2 * step), rtol=0.02, atol=0.02)


def test_stirlings_remainder() -> None:
    x = np.array([0.1, 0.5, 1.0, 3.0, 50.0])
    expected = gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(remainder(torch.tensor(x)).numpy(), expected, atol=4e-4)


@pytest.mark.parametrize("shape", [0.05, 0.9, 1.0, 4.0, 300.0])
def test_logarithms_of_gamma_variables_are_drawn(shape: float) -> None:
    drawn = log_gamma_draws(torch.full((40_000, 1), shape), random()).double().numpy()[:, 0]
    # As above: 0.01 once in 1,000 times. float32 holds no gamma variable below 1e-38.
    assert stats.kstest(drawn, lambda x: stats.gamma.cdf(np.exp(x), shape)).statistic < 0.01


@pytest.mark.parametrize("count", [0.0, 1.0, 6.0, 35.0])
@pytest.mark.parametrize("noise", [0.05, 0.3, 1.2])
def test_observations_and_their_errors_leave_the_likelihood_as_it_is(count: float, noise: float) -> None:
    """A row's mean, drawn from its posterior under a flat prior on an interval, stays so after a round of draws."""
    n = 40_000
    grid = torch.linspace(math.log(0.05), math.log(400.0), 20_001, dtype=torch.float64)
    size = noise**-2
    density = count * (grid - (grid.exp() + size).log()) - size * (grid.exp() / size).log1p() - (grid - 2).square() / 2
    lower = density.sub(density.max()).exp().cumsum(0)
    lower = (lower / lower[-1]).numpy()
    uniform = torch.rand(n, generator=random(), dtype=torch.float64).numpy()
    log_mean = torch.tensor(np.interp(uniform, lower, grid.numpy()), dtype=torch.float32)[:, None]
    log_sd = torch.full((n, 1), math.log(noise))
    rows = CountRows(torch.full((n, 1), count), log_mean)
    seen = draw_observations(rows, log_sd, random())
    sign, of_error = errors(rows.counts, log_sd)
    mean, precision = log_gamma_mixture(torch.device("cpu")).draw(sign * (seen - log_mean), of_error, random())
    # The prior is N(2, 1).
    total = precision + 1.0
    drawn = (precision * (seen - sign * mean) + 2.0) / total
    drawn = drawn + total.rsqrt() * torch.randn(n, 1, generator=torch.Generator().manual_seed(8))
    # The largest distance of an empirical distribution of 40,000 is above 0.01 once in 1,000 times.
    found = stats.kstest(drawn.double().numpy()[:, 0], lambda x: np.interp(x, grid.numpy(), lower))
    assert found.statistic < 0.01


@pytest.mark.parametrize(("noise", "limit"), [(0.03, 0.0005), (0.25, 0.0025), (0.5, 0.006), (1.0, 0.02)])
def test_mixtures_have_the_density_of_the_logarithm_of_a_gamma(noise: float, limit: float) -> None:
    mixture = log_gamma_mixture(torch.device("cpu"))
    place = round((math.log(noise) - mixture.first) / mixture.step)
    size = math.exp(-2 * (mixture.first + place * mixture.step))
    mean, precision, height = (
        x[:, place].double().numpy() for x in (mixture.mean, mixture.precision, mixture.log_height)
    )
    sd = 1 / math.sqrt(size)
    x = np.linspace(-8 * sd, 5 * sd, 4001) if noise < 1 else np.linspace(-9, 3, 4001)
    exact = size * math.log(size) - gammaln(size) + size * (x - np.exp(x))
    mine = logsumexp(height - 0.5 * (x[:, None] - mean) ** 2 * precision, axis=1) - 0.5 * math.log(2 * math.pi)
    step = x[1] - x[0]
    assert (np.exp(exact) * step).sum() == pytest.approx(1, abs=1e-3)
    assert math.sqrt((np.exp(exact) * (mine - exact) ** 2 * step).sum()) < limit


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.2])
def test_given_its_component_a_logarithm_is_normal(noise: float) -> None:
    mixture, n, size = log_gamma_mixture(torch.device("cpu")), 40_000, noise**-2
    generator = random()
    values = (torch._standard_gamma(torch.full((n, 1), size), generator=generator) / size).log()
    mean, precision = mixture.draw(values, torch.full((n, 1), math.log(noise)), generator)
    standard = ((values - mean) * precision.sqrt()).double().numpy()[:, 0]
    assert stats.kstest(standard, "norm").statistic < 0.01
    whole, of_whole = mixture.moments(torch.full((1, 1), math.log(noise)))
    assert float(whole) == pytest.approx(float(values.mean()), abs=0.02 * noise)
    assert float(of_whole) ** -0.5 == pytest.approx(float(values.std()), rel=0.02)
