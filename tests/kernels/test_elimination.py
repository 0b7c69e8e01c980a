"""Elimination held to dense linear algebra: one matrix for all rows, one column for every element of every table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dense_rows import (
    CASES,
    F64,
    LINEAGE,
    RESOLUTIONS,
    ROWS,
    TABLES,
    Shared,
    dense_log_evidence,
    design_of,
    draws_by_gene,
    make_rows,
    make_shared,
    make_variances,
    one_draw,
    repeated,
    shared_sds,
)
from torch import Tensor

from vihier.kernels.cells import GeneData
from vihier.kernels.elimination import (
    NaturalParameters,
    Variances,
    draw_genes,
    draw_shared,
    eliminate,
    natural_parameters,
    solve_shared,
)


@pytest.mark.parametrize(("sgrna", "gene", "gene_lineage", "gene_line", "shared"), CASES)
def test_log_evidence_is_that_of_the_dense_normal(
    sgrna: bool, gene: bool, gene_lineage: bool, gene_line: bool, shared: str
) -> None:
    variances = make_variances(sgrna, gene, gene_lineage, gene_line, 2)
    tables = make_shared(shared)
    sd = shared_sds(tables, 2)
    block = eliminate(ROWS.data, variances)
    natural = natural_parameters(ROWS.data, variances, block, tables.resolution)
    mine = block.log_evidence.sum(0) + solve_shared(natural, sd, tables.coarse).log_evidence
    for draw in range(2):
        columns = tables.columns[ROWS.line] * sd[draw]
        expected = dense_log_evidence(
            ROWS, one_draw(variances, draw), torch.zeros_like(ROWS.lfc), extra=columns @ columns.T
        )
        # Float64 through and through; 1e-9 is what issue 3 asks for.
        assert float(mine[draw]) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(("sgrna", "gene", "gene_lineage", "gene_line"), TABLES)
def test_log_evidence_given_the_shared_part(sgrna: bool, gene: bool, gene_lineage: bool, gene_line: bool) -> None:
    variances = make_variances(sgrna, gene, gene_lineage, gene_line, 2)
    t = torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=F64)
    mine = eliminate(ROWS.data, variances, t).log_evidence
    for draw in range(2):
        expected = dense_log_evidence(ROWS, one_draw(variances, draw), t[ROWS.line, draw])
        assert float(mine[:, draw].sum()) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(("sgrna", "gene", "gene_lineage", "gene_line", "shared"), CASES)
def test_draws_have_the_dense_mean_and_covariance(
    sgrna: bool, gene: bool, gene_lineage: bool, gene_line: bool, shared: str
) -> None:
    """The map from standard normals to draws is affine, so zeros and unit vectors give it exactly.

    First the shared tables are drawn with every gene integrated out, then the genes given them.
    """
    first = make_variances(sgrna, gene, gene_lineage, gene_line, 1)
    tables = make_shared(shared)
    block = eliminate(ROWS.data, first)
    n_genes, n_lines, n_dense = block.weight.shape[0], block.weight.shape[1], block.scale.shape[2]
    n_shared, n_own = tables.columns.shape[1], n_dense + n_lines
    n_units = n_shared + n_genes * n_own
    units = torch.cat([torch.zeros(1, n_units, dtype=F64), torch.eye(n_units, dtype=F64)])
    own = units[:, n_shared:].reshape(-1, n_genes, n_own)
    variances = repeated(first, len(units))
    sd = shared_sds(tables, 1).expand(len(units), -1)
    natural = natural_parameters(ROWS.data, first, block, tables.resolution)
    natural = NaturalParameters(natural.precision.expand(len(units), -1, -1), natural.rhs.expand(len(units), -1))
    u = draw_shared(solve_shared(natural, sd, tables.coarse), units[:, :n_shared])
    given = eliminate(ROWS.data, variances, tables.columns @ u.T)
    dense, leaf = draw_genes(
        ROWS.data, variances, given, own[..., :n_dense].transpose(0, 1), own[..., n_dense:].permute(1, 2, 0)
    )
    drawn = torch.cat([u.T, draws_by_gene(dense, leaf, variances)])

    design, prior = design_of(ROWS, first)
    design = torch.cat([tables.columns[ROWS.line], design], 1)
    prior = torch.cat([sd[0].square(), prior])
    rows = design @ (prior[:, None] * design.T) + first.noise[0] * torch.eye(len(ROWS.lfc), dtype=F64)
    gain = torch.linalg.solve(rows, design * prior).T
    expected_mean = gain @ ROWS.lfc
    expected_covariance = torch.diag(prior) - gain @ (design * prior)
    root = drawn[:, 1:] - drawn[:, :1]
    torch.testing.assert_close(drawn[:, 0], expected_mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(root @ root.T, expected_covariance, atol=1e-9, rtol=0)


def test_few_and_many_draws_take_different_ways_to_the_same_answer() -> None:
    variances = make_variances(True, True, False, True, 40)
    n_slots = ROWS.data.count.shape[1]
    together = eliminate(ROWS.data, variances)
    alone = [eliminate(ROWS.data, one_draw(variances, draw)) for draw in range(40)]
    assert 2 * 40 > n_slots >= 2  # the two branches of the sgRNA block
    torch.testing.assert_close(together.log_evidence, torch.cat([x.log_evidence for x in alone], 1), atol=1e-10, rtol=0)
    torch.testing.assert_close(together.solution, torch.cat([x.solution for x in alone], 1), atol=1e-10, rtol=0)


def log_evidence_of(data: GeneData, logs: dict[str, Tensor], shared: Shared) -> Tensor:
    """Log evidence of a block with everything integrated out, from the logarithms of all variances."""
    variances = Variances(*(logs[name].exp() if name in logs else None for name in Variances.__dataclass_fields__))
    block = eliminate(data, variances)
    natural = natural_parameters(data, variances, block, shared.resolution)
    posterior = solve_shared(natural, (0.5 * logs["shared"]).exp(), shared.coarse)
    return block.log_evidence.sum() + posterior.log_evidence.sum()


@pytest.mark.parametrize("absent", ["", "sgrna", "gene", "gene_lineage", "gene_line"])
@pytest.mark.parametrize("shared", RESOLUTIONS)
def test_gradients_are_those_of_finite_differences(absent: str, shared: str) -> None:
    """The gradient of a Cholesky factor is that of a symmetric matrix: with one triangle filled it came out wrong."""
    rows = make_rows((1, 3), replicates=2)
    tables = make_shared(shared)
    random = torch.Generator().manual_seed(7)
    shapes = {"noise": (), "sgrna": (2, 3), "gene": (2,), "gene_lineage": (2, 3), "gene_line": (2, 5)}
    logs = {
        name: (0.5 * torch.randn(*shape, 2, generator=random, dtype=F64) - 0.5).requires_grad_()
        for name, shape in shapes.items()
        if name != absent
    }
    logs["shared"] = torch.randn(2, tables.columns.shape[1], generator=random, dtype=F64).requires_grad_()
    # Central differences with step 1e-6 of a sum near 100: 1e-8 of rounding, hence 1e-6.
    assert torch.autograd.gradcheck(
        lambda *values: log_evidence_of(rows.data, dict(zip(logs, values, strict=True)), tables),
        tuple(logs.values()),
        atol=1e-6,
        rtol=1e-6,
    )


def test_gradient_in_the_shared_part() -> None:
    variances = make_variances(True, True, True, True, 2)
    t = torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=F64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: eliminate(ROWS.data, variances, t).log_evidence, (t,), atol=1e-6)


TABLE_NAMES = ["sgrna", "gene", "gene_lineage", "gene_line"]


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_a_scale_of_zero_is_a_table_that_is_absent(name: str) -> None:
    """Nothing is divided by a scale: with variance zero the answers are exact, and the table's draws are zero."""
    variances = make_variances(True, True, True, True, 3)
    present = getattr(variances, name)
    assert present is not None
    zero, absent = replace(variances, **{name: 0 * present}), replace(variances, **{name: None})
    t = torch.randn(5, 3, generator=torch.Generator().manual_seed(4), dtype=F64)
    block = eliminate(ROWS.data, zero, t)
    expected = eliminate(ROWS.data, absent, t).log_evidence
    torch.testing.assert_close(block.log_evidence, expected, atol=1e-10, rtol=0)
    dense, leaf = draw_genes(ROWS.data, zero, block, torch.ones_like(block.scale), torch.ones_like(block.weight))
    columns = {"sgrna": slice(0, 30), "gene_lineage": slice(30, 33), "gene": slice(33, 34)}
    drawn = leaf if name == "gene_line" else dense[..., columns[name]]
    assert torch.equal(drawn, torch.zeros_like(drawn))
    assert bool(dense.isfinite().all()) and bool(leaf.isfinite().all())
    natural = natural_parameters(ROWS.data, zero, eliminate(ROWS.data, zero), None)
    without = natural_parameters(ROWS.data, absent, eliminate(ROWS.data, absent), None)
    torch.testing.assert_close(natural.precision, without.precision, atol=1e-10, rtol=0)
    torch.testing.assert_close(natural.rhs, without.rhs, atol=1e-10, rtol=0)


def test_shared_scales_of_zero() -> None:
    variances, tables = make_variances(True, True, False, True, 1), make_shared("line")
    natural = natural_parameters(ROWS.data, variances, eliminate(ROWS.data, variances), None)
    posterior = solve_shared(natural, torch.zeros(1, 9, dtype=F64), tables.coarse)
    assert float(posterior.log_evidence) == 0
    assert torch.equal(draw_shared(posterior, torch.ones(1, 9, dtype=F64)), torch.zeros(1, 9, dtype=F64))


@pytest.mark.parametrize("shared", RESOLUTIONS)
def test_natural_parameters_of_blocks_add_up(shared: str) -> None:
    resolution = make_shared(shared).resolution
    variances = make_variances(True, True, True, True, 2)
    whole = natural_parameters(ROWS.data, variances, eliminate(ROWS.data, variances), resolution)
    parts = []
    for genes in (slice(0, 1), slice(1, 3)):
        data = GeneData(*(x[genes] for x in list(vars(ROWS.data).values())[:4]), LINEAGE)
        mine = Variances(variances.noise, *(x[genes] for x in list(vars(variances).values())[1:]))
        parts.append(natural_parameters(data, mine, eliminate(data, mine), resolution))
    total = parts[0] + parts[1]
    torch.testing.assert_close(total.precision, whole.precision, atol=1e-10, rtol=0)
    torch.testing.assert_close(total.rhs, whole.rhs, atol=1e-10, rtol=0)
