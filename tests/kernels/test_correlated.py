"""Correlated coefficients: what elimination asks of a factor, and the densities of a factor."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from vihier.kernels.correlated import Mixing, factor_of, gain_of_vectors, inverse_factor, log_prior
from vihier.models.lkj import LKJCholesky

F64 = torch.float64
RANDOM = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=RANDOM, dtype=F64)


def test_mixing_is_multiplication_by_a_matrix_that_is_the_identity_elsewhere() -> None:
    columns, chol = torch.tensor([4, 1, 2]), factor_of(normal(3, 2))
    whole = torch.eye(6, dtype=F64).repeat(2, 1, 1)
    whole[:, columns[:, None], columns] = chol
    mixing = Mixing(columns, chol)
    vectors, matrices = normal(5, 2, 6), normal(5, 2, 6, 6)
    matrices = matrices + matrices.mT
    torch.testing.assert_close(mixing.times(vectors), (whole @ vectors[..., None])[..., 0])
    torch.testing.assert_close(mixing.transposed_times(vectors), (whole.mT @ vectors[..., None])[..., 0])
    torch.testing.assert_close(mixing.right(matrices), matrices @ whole)
    torch.testing.assert_close(mixing.around(matrices), whole.mT @ matrices @ whole)


def test_any_numbers_are_a_correlation_matrix() -> None:
    chol = factor_of(3 * normal(6, 20))
    torch.testing.assert_close(chol.square().sum(-1), torch.ones(20, 4, dtype=F64))
    assert bool((chol.diagonal(dim1=-2, dim2=-1) > 0).all()) and bool((chol.triu(1) == 0).all())
    torch.testing.assert_close(inverse_factor(chol) @ chol, torch.eye(4, dtype=F64).expand(20, 4, 4))


def test_the_prior_of_one_correlation_is_that_of_its_tanh() -> None:
    """LKJ(c) of two is p(r) ~ (1 - r^2)^(c - 1), and dr = (1 - r^2) dx for r = tanh x: a logistic density for c = 1."""
    x = torch.linspace(-3, 3, 7, dtype=F64)[None]
    logistic = torch.log(torch.tensor(2.0, dtype=F64)) - 2 * x[0] - 2 * torch.log1p((-2 * x[0]).exp())
    torch.testing.assert_close(log_prior(x, factor_of(x), 1.0), logistic)
    tilted = log_prior(x, factor_of(x), 2.5) - 1.5 * (1 - x[0].tanh().square()).log() - logistic
    torch.testing.assert_close(tilted, tilted[:1].expand(7))


def test_the_prior_of_several_integrates_to_one() -> None:
    """Weights of a wide Normal proposal have mean one, and give correlations the spread that drawn ones have."""
    x = 1.2 * normal(3, 20_000)
    proposal = torch.distributions.Normal(0.0, 1.2).log_prob(x).sum(0)
    weights = (log_prior(x, factor_of(x), 2.0) - proposal).exp()
    # The weights' sd is about 1.
    assert float(weights.mean()) == pytest.approx(1, abs=0.05)
    correlation = (factor_of(x) @ factor_of(x).mT)[:, 2, 0]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        direct = LKJCholesky(3, torch.tensor(2.0, dtype=F64)).sample((20_000,))
    spread = (direct @ direct.mT)[:, 2, 0].std()
    assert float((weights * correlation.square()).mean().sqrt()) == pytest.approx(float(spread), rel=0.05)


def test_vectors_have_the_density_of_a_multivariate_normal() -> None:
    vectors, chol = normal(9, 3), factor_of(normal(3, 2))
    found = gain_of_vectors(chol, vectors.T @ vectors, 9)
    expected = torch.stack(
        [MultivariateNormal(torch.zeros(3, dtype=F64), scale_tril=x).log_prob(vectors).sum() for x in chol]
    )
    torch.testing.assert_close(found - found[0], expected - expected[0])
