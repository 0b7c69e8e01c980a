"""Vectors of genes' coefficients: how a program says them, what is refused, and moves of their sds and correlations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from dense_model import CPU, F64
from design_programs import covariate_screen, vectors

from vihier.errors import VihierError
from vihier.guides.correlation_moves import draw_shifts, held_products
from vihier.guides.mixed_model import Correlation, members_of
from vihier.guides.structure import read_structure
from vihier.inference.batches import GeneBlocks
from vihier.kernels.correlated import factor_of
from vihier.models.batch import Batch

PROBE = GeneBlocks(covariate_screen(), 2, CPU, F64)[0]


def program(
    scale_tril: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda sds, chol: sds[:, None] * chol,
    *,
    plate: str = "gene",
    sds: Callable[[torch.Tensor], list[Any]] = lambda spread: [spread, 0.5],
    concentration: Callable[[torch.Tensor], Any] = lambda spread: 2.0,
    mean: Callable[[torch.Tensor, torch.Tensor], Any] = lambda spread, chol: 0.0,
    rows: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda first, second: first + second,
    noise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda sigma, spread: sigma,
) -> Callable[[Batch], None]:
    """Two coefficients, of 1 and of copy number, with something changed."""

    def model(batch: Batch) -> None:
        sigma, spread = (pyro.sample(x, dist.HalfNormal(1.0)) for x in ("sigma", "spread"))
        chol = pyro.sample("chol", dist.LKJCholesky(2, concentration(spread)))
        both = torch.stack([torch.as_tensor(x) for x in sds(spread)])
        means = torch.stack([torch.as_tensor(mean(spread, chol)), torch.zeros(())])
        size = len(batch.gene_idx) if plate == "gene" else batch.size_of(plate)
        with batch.local():
            with pyro.plate(plate, size, dim=-2):
                own = pyro.sample("own", dist.MultivariateNormal(means, scale_tril=scale_tril(both, chol)))
            at = batch.gene if plate == "gene" else batch.rows_in(plate)
            with pyro.plate("row", len(batch.gene), dim=-1):
                value = rows(own[at, 0, 0], batch.covariates["copy_number"] * own[at, 0, 1])
                pyro.sample("lfc", dist.Normal(value, noise(sigma, spread)), obs=batch.lfc)

    return model


def test_components_are_locations_and_what_correlates_them_is_read_off_the_program() -> None:
    structure = read_structure(vectors, PROBE)
    names = ("own[0]", "own[1]", "own[2]")
    assert structure.correlations == (Correlation("chol", 1.5, "own", names),)
    members = members_of(structure, structure.correlations[0])
    found = [(x.plates, x.parents, x.offset, x.scale, x.factor, x.reach) for x in members]
    assert found == [
        (("gene",), (("top", 0.5),), 0.0, "first_sd", 1.0, -2.0),
        (("gene",), (("slope", 1.0),), 0.0, "second_sd", 1.0, 1.0),
        (("gene",), (), 0.1, None, pytest.approx(0.7, abs=1e-7), 1.0),
    ]
    assert read_structure(program(), PROBE).correlations[0].concentration == 2.0


REFUSED: dict[str, tuple[Callable[[Batch], None], str, str]] = {
    "sds of columns": (program(lambda sds, chol: chol * sds), r"own\[1\]", "its scale is not one scale times a const"),
    "another factor": (
        program(lambda sds, chol: sds[:, None] * torch.nn.functional.normalize(chol @ chol, dim=-1)),
        "own",
        "not its sds, a column, times an LKJCholesky",
    ),
    "a known factor": (
        program(lambda sds, chol: torch.linalg.cholesky(torch.tensor([[1.0, 0.3], [0.3, 1.0]]))),
        "own",
        "not its sds, a column, times an LKJCholesky",
    ),
    "a vector of lines": (program(plate="line"), "own", "a vector indexed by line, not gene"),
    "one sd for both": (program(sds=lambda spread: [spread, spread]), "spread", r"the sd of 'own\[0\]', part of a"),
    "an sd of the rows": (program(noise=lambda sigma, spread: spread), "spread", "of the rows' noise, and the sd of"),
    "two of one design": (
        program(rows=lambda first, second: first + 0 * second + 0.5 * first),
        "own\\[1\\]",
        "no row depends on it",
    ),
    "a prior of a scale": (program(concentration=lambda spread: 1 + spread), "chol", "concentration is not a constant"),
    "a mean of it": (program(mean=lambda spread, chol: chol[1, 0]), "chol", r"the loc of 'own\[0\]' depends on it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_the_name_of_the_site_in_one_line(what: str) -> None:
    model, site, said = REFUSED[what]
    with pytest.raises(VihierError, match=rf"^site '{site}': .*{said}.*mean_field") as caught:
        read_structure(model, PROBE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("alike", "said"),
    [
        (True, "site 'own[0]': rows move with it as with 'own[1]', and it is part of a vector"),
        (False, "site 'first': it is the sd of 'own[0]', part of a vector, and differs between genes"),
    ],
)
def test_components_of_one_design_and_sds_of_genes_are_refused(alike: bool, said: str) -> None:
    def model(batch: Batch) -> None:
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        chol = pyro.sample("chol", dist.LKJCholesky(2, 1.0))
        with batch.local():
            with pyro.plate("gene", len(batch.gene_idx), dim=-2):
                first = torch.ones(()) if alike else pyro.sample("first", dist.HalfNormal(1.0))
                sds = torch.stack([first, torch.ones_like(first)], -1)
                own = pyro.sample("own", dist.MultivariateNormal(torch.zeros(2), scale_tril=sds[..., None] * chol))
            with pyro.plate("row", len(batch.gene), dim=-1):
                copies = batch.covariates["copy_number"]
                value = own[batch.gene, 0, 0] * copies + own[batch.gene, 0, 1] * (copies if alike else 1.0)
                pyro.sample("lfc", dist.Normal(value, sigma), obs=batch.lfc)

    with pytest.raises(VihierError, match=f"^{re.escape(said)};") as caught:
        read_structure(model, PROBE)
    assert "\n" not in str(caught.value)


def test_sds_are_asked_for_by_the_density_of_the_whole_vector() -> None:
    """What a move of some sds is told, beside the multivariate Normal at those sds, grown by one factor."""
    random = torch.Generator().manual_seed(1)
    structure = read_structure(vectors, PROBE)
    members = members_of(structure, *structure.correlations)
    chol = factor_of(torch.randn(3, 1, generator=random, dtype=F64))
    standard = torch.randn(12, 3, generator=random, dtype=F64)
    scatter = (standard.T @ standard)[None]
    sds = torch.tensor([0.5, 1.2, 0.7], dtype=F64)
    for moved in (["first_sd"], ["second_sd"], ["first_sd", "second_sd"]):
        scales = [structure.scale(name) for name in moved]
        more, products = held_products(members, chol, scatter, scales)
        among = torch.tensor([x.scale in moved for x in members])
        squares = float(standard[:, among].square().sum() + more)

        def told(shift: float, squares: float = squares, products: float = float(products), n: int = 12 * len(moved)):
            factor = math.exp(-shift)
            return -n * shift - 0.5 * squares * factor**2 - products * factor

        def density(shift: float, among: torch.Tensor = among) -> float:
            grown = torch.where(among, sds * torch.tensor(shift, dtype=F64).exp(), sds)
            normal = dist.MultivariateNormal(torch.zeros(3, dtype=F64), scale_tril=grown[:, None] * chol[0])
            return float(normal.log_prob(standard * sds).sum())

        for shift in (-0.6, 0.4):
            assert told(shift) - told(0.0) == pytest.approx(density(shift) - density(0.0), rel=1e-6), moved


def test_shifts_against_what_genes_share_are_drawn_from_priors_alone() -> None:
    """Mean and covariance of the shifts beside those of a dense Normal; noise is the identity: draws are its root."""
    random = torch.Generator().manual_seed(2)
    sds = torch.tensor([0.5, 1.2, 0.7], dtype=F64)
    root = sds[:, None] * factor_of(torch.randn(3, 1, generator=random, dtype=F64))[0]
    genes = torch.randn(5, 3, generator=random, dtype=F64)
    weights, values = torch.tensor([0.3, 2.0], dtype=F64), torch.tensor([1.0, -0.4], dtype=F64)
    n = 3
    shared = {i: (weights[k].expand(n), values[k].expand(n)) for k, i in enumerate((0, 2))}
    noise = torch.cat([torch.zeros(1, 2, dtype=F64), torch.eye(2, dtype=F64)])
    sums = genes.sum(0)[:, None].expand(-1, n)
    drawn = draw_shifts(root.expand(n, -1, -1), sums, torch.tensor([[5.0]], dtype=F64), shared, noise)
    # log p = - sum_g (d_g + E b)' P (d_g + E b) / 2 - sum_k w_k (v_k - b_k)^2 / 2
    prior = torch.cholesky_inverse(root)
    precision = 5 * prior[[0, 2]][:, [0, 2]] + torch.diag(weights)
    mean = torch.linalg.solve(precision, weights * values - (prior @ genes.sum(0))[[0, 2]])
    torch.testing.assert_close(drawn[[0, 2], 0], mean)
    spread = drawn[[0, 2], 1:] - mean[:, None]
    torch.testing.assert_close(spread @ spread.T, torch.linalg.inv(precision))
    assert bool((drawn[1] == 0).all())
