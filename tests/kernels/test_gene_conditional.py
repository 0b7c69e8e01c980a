"""Leave-one-out densities of a gene, held to dense Gaussian conditioning and to quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm
from scipy.stats import t as student

from vihier.kernels.gene_conditional import (
    GenePrior,
    RowDesign,
    cavity,
    conditional,
    normal_cells,
    normal_density,
    student_cells,
    student_density,
)

K, C, L, N = 3, 4, 2, 2
LINEAGE = torch.tensor([0, 1, 1, 0])


def tensor(*shape: int, seed: int) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).uniform(0.2, 1.5, shape))


PRIORS = {
    "additive": GenePrior(tensor(K, N, seed=1), tensor(N, seed=2), None, tensor(C, N, seed=3)),
    "gene_lineage": GenePrior(None, tensor(N, seed=4), tensor(L, N, seed=5), tensor(C, N, seed=6), LINEAGE),
    "no leaf": GenePrior(tensor(K, N, seed=1), tensor(N, seed=2), None, None),
    "leaf only": GenePrior(None, None, None, tensor(C, N, seed=3)),
}


def covariance(prior: GenePrior, slot: np.ndarray, line: np.ndarray, draw: int) -> np.ndarray:
    """Covariance of f between rows."""

    def same(one: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.equal.outer(one, one) * of[one]

    total = np.zeros((len(slot), len(slot)))
    if prior.sgrna is not None:
        total += same(slot, prior.sgrna[:, draw].numpy())
    if prior.gene is not None:
        total += float(prior.gene[draw])
    if prior.gene_lineage is not None:
        total += same(LINEAGE.numpy()[line], prior.gene_lineage[:, draw].numpy())
    if prior.gene_line is not None:
        total += same(line, prior.gene_line[:, draw].numpy())
    return total


@pytest.mark.parametrize("name", PRIORS)
def test_rows_and_cells_left_out_equal_dense_conditioning(name: str) -> None:
    prior, random = PRIORS[name], np.random.default_rng(0)
    cell = np.sort(random.integers(0, K * C, 14))
    slot, line = cell // C, cell % C
    y, noise = random.normal(0, 1.5, 14), random.uniform(0.1, 1.0, (14, N))
    weight = np.zeros((K * C, N))
    weighted = np.zeros((K * C, N))
    np.add.at(weight, cell, 1 / noise)
    np.add.at(weighted, cell, y[:, None] / noise)
    shape = (K, C, N)
    mean, variance = (
        x.reshape(-1, N)[cell]
        for x in conditional(prior, *(torch.as_tensor(x).reshape(shape) for x in (weight, weighted)))
    )
    rows, var = torch.as_tensor(y)[:, None].expand(-1, N), torch.as_tensor(noise)
    by_row = normal_density(rows, var, *cavity(mean, variance, 1 / var, rows / var))
    code = torch.as_tensor(np.unique(cell, return_inverse=True)[1])
    first = torch.as_tensor(np.unique(cell, return_index=True)[1])
    sums = [torch.as_tensor(x[cell])[first] for x in (weight, weighted)]
    by_cell = normal_cells(code, len(first), rows, var, *cavity(mean[first], variance[first], *sums))
    for draw in range(N):
        full = covariance(prior, slot, line, draw) + np.diag(noise[:, draw])

        def left_out(out: np.ndarray, full: np.ndarray = full) -> float:
            gain = full[np.ix_(out, ~out)] @ np.linalg.inv(full[np.ix_(~out, ~out)])
            return float(
                multivariate_normal.logpdf(
                    y[out], gain @ y[~out], full[np.ix_(out, out)] - gain @ full[np.ix_(~out, out)]
                )
            )

        expected = [left_out(np.arange(14) == i) for i in range(14)]
        np.testing.assert_allclose(by_row[:, draw].numpy(), expected, rtol=1e-9, atol=1e-9)
        expected = [left_out(cell == each) for each in np.unique(cell)]
        np.testing.assert_allclose(by_cell[:, draw].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("freedom", [1.0, 4.0, 60.0])
@pytest.mark.parametrize("variance", [0.02, 0.5, 20.0])
@pytest.mark.parametrize("y", [0.1, 2.0, 5.0])
def test_student_rows_equal_quadrature(freedom: float, variance: float, y: float) -> None:
    scale, mean, sd = 0.6, -0.2, variance**0.5

    def integrand(f: float) -> float:
        return float(student.pdf(y, freedom, f, scale) * norm.pdf(f, mean, sd))

    expected = np.log(quad(integrand, mean - 9 * sd, mean + 9 * sd, points=[mean, y], limit=500)[0])
    arguments = [torch.full((1, 1), x, dtype=torch.float64) for x in (y, freedom, scale, mean, variance)]
    # Nats, of at most 25: the rule has 24 nodes. Gauss-Hermite's 31 do where f is not much wider than the row's scale.
    assert float(student_density(*arguments)) == pytest.approx(expected, abs=6e-3)
    if variance < 1:
        one = student_cells(torch.tensor([0]), 1, *arguments)
        assert float(one) == pytest.approx(expected, abs=2e-2)


@pytest.mark.parametrize("with_leaf", [True, False])
def test_rows_of_any_design_given_all_rows_equal_dense_conditioning(with_leaf: bool) -> None:
    random = np.random.default_rng(1)
    n, d = 15, 4
    x, z, line = random.normal(size=(n, d)), random.normal(size=n), random.integers(0, C, n)
    sd, leaf = tensor(d, N, seed=7), tensor(C, N, seed=8)
    noise, y = tensor(n, N, seed=9), tensor(n, N, seed=10)
    design = RowDesign(torch.as_tensor(x), torch.as_tensor(z) if with_leaf else None, torch.as_tensor(line))
    mean, variance = design.conditional(sd, leaf if with_leaf else None, 1 / noise, y)
    for draw in range(N):
        prior = x * sd[:, draw].numpy() ** 2 @ x.T
        if with_leaf:
            prior = prior + np.equal.outer(line, line) * np.outer(z, z) * leaf[:, draw].numpy()[line]
        gain = prior @ np.linalg.inv(prior + np.diag(noise[:, draw].numpy()))
        np.testing.assert_allclose(mean[:, draw], gain @ y[:, draw].numpy(), atol=1e-12)
        np.testing.assert_allclose(variance[:, draw], np.diag(prior - gain @ prior), atol=1e-12)


def test_student_rows_of_several_screens_are_those_of_each_by_itself() -> None:
    y, scale, mean, variance = (tensor(6, N, seed=seed) for seed in (11, 12, 13, 14))
    freedom = torch.tensor([[3.0, 2.5], [40.0, 30.0]], dtype=torch.float64)[[0, 1, 1, 0, 1, 0]]
    together = student_density(y, freedom, scale, mean, variance)
    for row in range(6):
        alone = student_density(*(x[row : row + 1] for x in (y, freedom, scale, mean, variance)))
        torch.testing.assert_close(together[row : row + 1], alone)
