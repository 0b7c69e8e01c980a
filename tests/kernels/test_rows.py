"""Rows of unequal precision: sums over cells, elimination beside dense linear algebra, weights of Student-t rows."""

from __future__ import annotations

import pytest
import torch
from dense_rows import F64, LINEAGE, ROWS, TABLES, design_of, make_variances, one_draw
from scipy import stats
from torch import Tensor

from vihier.kernels.cells import GeneData
from vihier.kernels.elimination import Variances, draw_genes, eliminate, natural_parameters
from vihier.kernels.rows import (
    RowTable,
    row_table,
    step_weights,
    student_log_density,
    sum_log_tails,
    sum_rows,
    weighted_data,
)

N_GENES, N_SLOTS, N_LINES = ROWS.data.count.shape
PRECISION = torch.rand(len(ROWS.lfc), 2, generator=torch.Generator().manual_seed(9)) * 3 + 0.2


def table(order: Tensor | None = None) -> RowTable:
    order = torch.arange(len(ROWS.lfc)) if order is None else order
    cell = (ROWS.gene * N_SLOTS + ROWS.slot) * N_LINES + ROWS.line
    return row_table(cell[order], ROWS.lfc[order], ROWS.line[order], None, (N_GENES, N_SLOTS, N_LINES))


def weighted(evidence: bool = True) -> GeneData:
    rows = table()
    order = torch.argsort((ROWS.gene * N_SLOTS + ROWS.slot) * N_LINES + ROWS.line, stable=True)
    return weighted_data(rows, PRECISION[order], ROWS.data, evidence)


def unit_noise(variances: Variances) -> Variances:
    return Variances(torch.ones_like(variances.noise), *list(vars(variances).values())[1:])


def test_equal_precisions_are_counts() -> None:
    data = weighted_data(table(), torch.full((len(ROWS.lfc), 2), 4.0), ROWS.data, True)
    # The rows are rounded to float32, 6e-8 of values of a few units, 90 of them in a sum.
    for draw in range(2):
        torch.testing.assert_close(data.count[..., draw], 4 * ROWS.data.count, atol=1e-5, rtol=0)
        torch.testing.assert_close(data.total[..., draw], 4 * ROWS.data.total, atol=1e-5, rtol=0)
        torch.testing.assert_close(data.square[:, draw], 4 * ROWS.data.square, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("sgrna", "gene", "gene_lineage", "gene_line"), TABLES)
def test_evidence_is_that_of_a_dense_normal_with_these_precisions(
    sgrna: bool, gene: bool, gene_lineage: bool, gene_line: bool
) -> None:
    variances = unit_noise(make_variances(sgrna, gene, gene_lineage, gene_line, 2))
    t = torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=F64)
    mine = eliminate(weighted(), variances, t).log_evidence.sum(0)
    lfc = ROWS.lfc.float().double()
    for draw in range(2):
        design, prior = design_of(ROWS, one_draw(variances, draw))
        rows = design @ (prior[:, None] * design.T) + torch.diag(1 / PRECISION[:, draw].double())
        dense = torch.distributions.MultivariateNormal(t[ROWS.line, draw], rows).log_prob(lfc)
        # Sums over cells are made in float32: some 90 terms of up to 20, each rounded by 6e-8 of itself.
        assert float(mine[draw]) == pytest.approx(float(dense), abs=2e-3)


def test_draws_have_the_mean_of_a_dense_normal_with_these_precisions() -> None:
    variances = unit_noise(make_variances(True, True, True, True, 2))
    block = eliminate(weighted(False), variances)
    dense, leaf = draw_genes(
        weighted(False), variances, block, torch.zeros_like(block.scale), torch.zeros_like(block.weight)
    )
    for draw in range(2):
        design, prior = design_of(ROWS, one_draw(variances, draw))
        rows = design @ (prior[:, None] * design.T) + torch.diag(1 / PRECISION[:, draw].double())
        expected = (design * prior).T @ torch.linalg.solve(rows, ROWS.lfc)
        found = torch.cat([dense[:, draw], leaf[..., draw]], 1).flatten()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_what_rows_say_of_the_lines_is_what_dense_rows_say() -> None:
    variances = unit_noise(make_variances(True, True, False, True, 2))
    natural = natural_parameters(weighted(False), variances, eliminate(weighted(False), variances), None)
    lines = torch.nn.functional.one_hot(ROWS.line, 5).to(F64)
    for draw in range(2):
        design, prior = design_of(ROWS, one_draw(variances, draw))
        rows = design @ (prior[:, None] * design.T) + torch.diag(1 / PRECISION[:, draw].double())
        gain = torch.linalg.solve(rows, lines)
        torch.testing.assert_close(natural.precision[draw], lines.T @ gain, atol=1e-4, rtol=0)
        torch.testing.assert_close(natural.rhs[draw], gain.T @ ROWS.lfc, atol=1e-4, rtol=0)


def test_without_evidence_it_is_not_a_number() -> None:
    variances = unit_noise(make_variances(True, True, False, True, 2))
    assert bool(eliminate(weighted(False), variances).log_evidence.isnan().all())


def test_rows_in_any_order_and_of_some_genes() -> None:
    order = torch.randperm(len(ROWS.lfc), generator=torch.Generator().manual_seed(1))
    mixed, sorted_rows = table(order), table()
    assert torch.equal(mixed.cell, sorted_rows.cell)
    taken = sorted_rows.take_genes(torch.tensor([2, 0]), N_SLOTS)
    data = weighted_data(taken, torch.ones(len(taken.lfc), 1), ROWS.data)
    torch.testing.assert_close(data.count[..., 0], ROWS.data.count[[2, 0]], atol=1e-6, rtol=0)
    torch.testing.assert_close(data.total[..., 0], ROWS.data.total[[2, 0]], atol=1e-5, rtol=0)


def test_sums_by_element() -> None:
    values = PRECISION
    rows = sum_rows(values, ROWS.line, 5)
    for line in range(5):
        torch.testing.assert_close(rows[line], values[ROWS.line == line].double().sum(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(sum_rows(values, None, 1), values.double().sum(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_rows", [0, 3, 4, 8_191])
def test_log_tails_are_those_of_one_row_after_another(n_rows: int) -> None:
    squares = torch.randn(n_rows, 3, generator=torch.Generator().manual_seed(5)).square()
    squares[::7] *= 1e6  # gross outliers, a thousand noise scales away
    inverse_freedom = torch.tensor([2.0, 0.3, 0.01], dtype=F64)
    expected = (squares.double() * inverse_freedom).log1p().sum(0)
    # In float32 a product of four factors errs by some 4e-7 of itself: so much, of either sign, in each logarithm.
    torch.testing.assert_close(sum_log_tails(squares, inverse_freedom), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nu", [0.7, 4.0, 60.0])
def test_weights_settle_in_their_conditional(nu: float) -> None:
    random, squares = torch.Generator().manual_seed(0), 2.5
    weight, freedom = torch.ones(40_000, 2), torch.full((1, 2), nu)
    for _ in range(12):
        weight = step_weights(weight, freedom, torch.full((40_000, 2), squares), random)
    expected = stats.gamma((nu + 1) / 2, scale=2 / (nu + squares))
    # 80,000 draws: the Kolmogorov-Smirnov distance is above 1.95 / sqrt(n) = 0.0069 once in a thousand times.
    assert stats.kstest(weight.double().flatten().numpy(), expected.cdf).statistic < 0.0069


def test_one_step_leaves_the_conditional_as_it_is() -> None:
    nu, squares = 3.0, torch.rand(100_000, 1, generator=torch.Generator().manual_seed(5)) * 9
    gamma = torch.distributions.Gamma(torch.tensor((nu + 1) / 2), (nu + squares) / 2)
    torch.manual_seed(1)
    weight = step_weights(gamma.sample(), torch.tensor([[nu]]), squares, torch.Generator().manual_seed(2))
    uniform = stats.gamma((nu + 1) / 2).cdf((weight * (nu + squares) / 2).double().numpy()[:, 0])
    assert stats.kstest(uniform, "uniform").statistic < 1.95 / 100_000**0.5


def test_the_density_is_student_t() -> None:
    z = torch.linspace(-6, 6, 25, dtype=F64)[:, None]
    nu = torch.tensor([0.8, 3.0, 50.0], dtype=F64)
    mine = student_log_density(nu, (1 + z.square() / nu).log().sum(0), 25)
    expected = stats.t.logpdf(z.numpy(), nu.numpy()).sum(0)
    torch.testing.assert_close(mine, torch.tensor(expected))


def test_lineages_are_kept() -> None:
    assert weighted().lineage is LINEAGE
