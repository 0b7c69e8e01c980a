"""The slice sampler leaves a density as it is, and forgets where it started."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vihier.guides.slice_sampler import slice_sample

Density = Callable[[Tensor], Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


N_ELEMENTS = 200_000


def standard_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def normal(sd: float) -> tuple[Density, Tensor, Density]:
    return (
        lambda x: -0.5 * (x / sd) ** 2,
        sd * torch.randn(N_ELEMENTS, generator=generator()),
        lambda x: standard_cdf(x / sd),
    )


def log_half_normal() -> tuple[Density, Tensor, Density]:
    """The logarithm of a HalfNormal: what most scales are a priori, with its long tail to the left."""
    start = torch.randn(N_ELEMENTS, generator=generator()).abs().log()
    return lambda x: x - 0.5 * (2 * x).exp(), start, lambda x: torch.erf(x.exp() / math.sqrt(2))


def exponential() -> tuple[Density, Tensor, Density]:
    start = torch.empty(N_ELEMENTS).exponential_(generator=generator())
    return lambda x: torch.where(x > 0, -x, -math.inf), start, lambda x: 1 - (-x).exp()


DENSITIES = {
    "much narrower than a width": normal(0.02),
    "wider than all steps out": normal(3.0),
    "the logarithm of a HalfNormal": log_half_normal(),
    "a hard edge": exponential(),
}


@pytest.mark.parametrize("which", DENSITIES)
def test_slice_sampler_leaves_a_density_as_it_is(which: str) -> None:
    """From exact draws, ten steps: a limit on stepping out that is not split at random gave distance 0.04 when wide."""
    density, x, cdf = DENSITIES[which]
    random = generator(1)
    for _ in range(10):
        x = slice_sample(density, x, random)
    below = cdf(x.sort().values)
    rank = torch.arange(1, N_ELEMENTS + 1) / N_ELEMENTS
    distance = float(torch.maximum((rank - below).abs(), (below - rank + 1 / N_ELEMENTS).abs()).max())
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by one sample in a thousand; the seed is fixed.
    assert distance < 1.95 / math.sqrt(N_ELEMENTS)


def test_slice_sampler_forgets_its_start() -> None:
    x, random = torch.full((20_000,), 5.0), generator(3)
    for _ in range(30):
        x = slice_sample(lambda x: -0.5 * ((x + 2) / 0.3) ** 2, x, random)
    assert float(x.mean()) == pytest.approx(-2, abs=4 * 0.3 / math.sqrt(20_000))
    # The sd of n normals is known to 1 / sqrt(2 n).
    assert float(x.std()) == pytest.approx(0.3, rel=4 / math.sqrt(2 * 20_000))
