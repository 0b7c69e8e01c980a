"""The tree of shared tables given the genes, held to dense linear algebra."""

from __future__ import annotations

import itertools

import pytest
import torch
from dense_rows import F64, LINEAGE, make_shared

from vihier.kernels.shared_tree import (
    SharedVariances,
    draw_above_lines,
    draw_lines,
    lineage_level,
    log_evidence,
    tree_log_evidence,
)

SIZES = (5, 3, 1)


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=3)))
def test_draws_and_evidence_are_those_of_the_dense_normal(present: tuple[bool, bool, bool]) -> None:
    """The map from standard normals to draws is affine, so zeros and unit vectors give it exactly."""
    random = torch.Generator().manual_seed(6)
    weight, rhs = 3 * torch.rand(5, 1, generator=random, dtype=F64), torch.randn(5, 1, generator=random, dtype=F64)
    full = make_shared("line").columns
    prior = [
        torch.rand(n, generator=random, dtype=F64) + 0.2 if x else None for n, x in zip(SIZES, present, strict=True)
    ]
    spread = [None if x is None else x[:, None].expand(-1, 10) for x in prior]
    variances = SharedVariances(spread[0], spread[1], None if spread[2] is None else spread[2][0])
    units = torch.cat([torch.zeros(9, 1, dtype=F64), torch.eye(9, dtype=F64)], 1)

    level = lineage_level(weight.expand(-1, 10), rhs.expand(-1, 10), variances, LINEAGE)
    groups, top, above = draw_above_lines(level, variances, LINEAGE, units[5:])
    lines = draw_lines(weight, rhs, variances, above, units[:5])
    drawn = torch.cat([lines, groups, top[None]])

    variance = torch.cat([torch.zeros(n, dtype=F64) if x is None else x for n, x in zip(SIZES, prior, strict=True)])
    whitened = torch.eye(9, dtype=F64) + variance.sqrt()[:, None] * (full.T * weight.T) @ full * variance.sqrt()
    covariance = variance.sqrt()[:, None] * torch.linalg.inv(whitened) * variance.sqrt()
    pull = full.T @ rhs[:, 0]
    root = drawn[:, 1:] - drawn[:, :1]
    torch.testing.assert_close(drawn[:, 0], covariance @ pull, atol=1e-12, rtol=0)
    torch.testing.assert_close(root @ root.T, covariance, atol=1e-12, rtol=0)
    expected = 0.5 * (pull @ covariance @ pull - torch.logdet(whitened))
    torch.testing.assert_close(tree_log_evidence(level, variances), expected.expand(10), atol=1e-12, rtol=0)


def test_evidence_of_one_element_is_the_integral() -> None:
    t = torch.linspace(-30, 30, 200_001, dtype=F64)
    weight, rhs, variance = (torch.tensor(x, dtype=F64) for x in (0.7, -1.3, 2.5))
    density = (rhs * t - 0.5 * weight * t**2 - 0.5 * t**2 / variance).exp() / (2 * torch.pi * variance).sqrt()
    expected = torch.trapezoid(density, t).log()
    torch.testing.assert_close(log_evidence(weight, rhs, variance), expected, atol=1e-9, rtol=0)
