"""Programs whose rows have covariates, or tables by screen and batch: read off, exact, and swept exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from dense_model import CORRELATION, CPU, F64, dense_model, random_log_scales, whole
from design_programs import DESIGNS, covariate_screen
from torch import Tensor
from unit_noise import UnitNoise

import vihier.guides.correlation_moves
import vihier.guides.design_chains
import vihier.guides.design_sweeps
import vihier.guides.deviations
import vihier.guides.gene_chains
import vihier.guides.interweave
from vihier.guides.block import Theta, make_block
from vihier.guides.design_block import SharedLayout, design_block
from vihier.guides.design_sweeps import DesignSweeper
from vihier.guides.evidence import gene_log_prior, global_log_prior
from vihier.guides.mixed_model import Argument, Structure, log_joint
from vihier.guides.structure import check_structure, read_structure
from vihier.guides.values import centre, locations_of, to_sites, unpad
from vihier.inference.batches import GeneBlocks
from vihier.inference.device import generator
from vihier.kernels import correlated
from vihier.kernels.bordered import factor
from vihier.kernels.design import eliminate
from vihier.models.batch import Batch
from vihier.models.likelihood import Likelihood
from vihier.models.program import load_program

SCREEN = covariate_screen()
PROBE = GeneBlocks(SCREEN, 2, CPU, F64)[0]
Model = Callable[[Batch], object]


def sweeper_of(structure: Structure, genes_in_block: int = 3, seed: int = 1) -> DesignSweeper:
    layout = SharedLayout.of(structure, whole(SCREEN))
    blocks = GeneBlocks(SCREEN, genes_in_block, CPU, F64)
    designs = [design_block(structure, batch, layout) for batch in blocks]
    return DesignSweeper(structure, designs, layout, lambda *keys: generator(CPU, seed, *keys))


def deviations_of(sweeper: DesignSweeper) -> Theta:
    """Deviations of every location over the whole screen, as the last sweep left them, draws last."""
    found: Theta = dict(sweeper.shared)
    for location in locations_of(sweeper.structure, False):
        sgrnas = location.plates == ("sgrna",)
        for part in sweeper.parts:
            values, batch = part.deviations[location.name], part.block.batch
            values = unpad(values, part.block) if sgrnas else values
            size = batch.n_sgrnas if sgrnas else batch.n_genes
            at = batch.sgrna_idx if sgrnas else batch.gene_idx
            found.setdefault(location.name, values.new_zeros(size, *values.shape[1:]))[at] = values
    return found


def evidence(sweeper: DesignSweeper, theta: Theta) -> Tensor:
    """Log p(rows | scales), every location integrated out."""
    at_zero, precision, rhs = sweeper.collapse(theta)
    if not sweeper.layout.size:
        return at_zero
    return at_zero + factor(precision, rhs, sweeper._scale(theta, sweeper.layout.tables).T).log_evidence


def scale_values(structure: Structure, theta: Theta) -> tuple[Theta, Tensor]:
    """Return scales and factors of correlation matrices, draws last, and the log Jacobians of what they are held as."""
    found, jacobian = {}, torch.zeros((), dtype=F64)
    for scale in structure.scales:
        found[scale.name] = theta[scale.name].exp()
        jacobian = jacobian + theta[scale.name].reshape(-1, theta[scale.name].shape[-1]).sum(0)
    for correlation in structure.correlations:
        free = theta[correlation.name].T
        chol = CORRELATION(free)
        found[correlation.name] = chol.movedim(0, -1)
        jacobian = jacobian + CORRELATION.log_abs_det_jacobian(free, chol)
    return found, jacobian


def log_prior(sweeper: DesignSweeper, theta: Theta) -> Tensor:
    total = global_log_prior(sweeper.structure, theta, sweeper.block)
    for correlation in sweeper.structure.correlations:
        free = theta[correlation.name]
        total = total + correlated.log_prior(free, correlated.factor_of(free), correlation.concentration)
    if sweeper.parts[0].own_scales:
        for part, at in zip(sweeper.parts, sweeper.of_parts(theta), strict=True):
            total = total + gene_log_prior(sweeper.structure, at, part.block).sum(0)
    return total


def test_what_rows_move_with_is_read_off_the_program() -> None:
    structure = read_structure(DESIGNS["slopes"], PROBE)
    found = {x.name: (x.plates, x.reach, x.design) for x in structure.locations}
    assert found["line_mean"] == (("line",), -2.0, "")
    # The mean of gene_slope is slope: rows move alike with both, by copy number plus half of expression.
    assert found["slope"] == ((), 1.0, "slope")
    assert found["gene_slope"] == (("gene",), 1.0, "slope")
    assert found["expr_slope"] == (("gene", "lineage"), 1.0, "expr_slope")
    assert structure.design is not None
    designs, offset = structure.design.of(whole(SCREEN))
    x = whole(SCREEN).covariates
    expected = {
        "slope": x["copy_number"] + 0.5 * x["rna_expr"],
        "expr_slope": x["rna_expr"],
        "line_slope": x["copy_number"],
        "purity_slope": x["purity"],
        "gene_days": 0.5 * x["days"],
    }
    assert set(designs) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(designs[name], values, atol=1e-12, rtol=0)
    # Offsets of priors come with their reach: top 0.3, slope 0.1 and purity 0.2.
    mean = 0.1 + 0.3 * x["days"] + 0.3 + 0.1 * expected["slope"] + 0.2 * x["purity"]
    torch.testing.assert_close(offset, mean, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", DESIGNS)
def test_evidence_is_that_of_a_dense_normal(name: str) -> None:
    model, batch = DESIGNS[name], whole(SCREEN)
    structure = read_structure(model, PROBE)
    check_structure(structure, model, batch)
    theta = random_log_scales(model, batch, 3)
    sweeper = sweeper_of(structure)
    mine, prior = evidence(sweeper, theta), log_prior(sweeper, theta)
    for draw in range(3):
        dense = dense_model(model, batch, {site: value[..., draw] for site, value in theta.items()})
        # Float64 throughout.
        assert float(mine[draw]) == pytest.approx(float(dense.log_evidence), abs=1e-9)
        assert float(prior[draw]) == pytest.approx(float(dense.log_prior), abs=1e-9)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_sweep_with_scales_held_draws_from_the_dense_posterior(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared tables, then the genes' given them, then both again: mean and covariance of all locations."""
    model, batch = DESIGNS[name], whole(SCREEN)
    structure = read_structure(model, PROBE)
    one = random_log_scales(model, batch, 1)
    held = lambda density, start, random, width=0.0: start  # noqa: E731
    guides = vihier.guides
    for module in (guides.interweave, guides.gene_chains, guides.design_sweeps, guides.correlation_moves):
        monkeypatch.setattr(module, "slice_sample", held)
    # One block after the other, so that the noise comes in order.
    monkeypatch.setattr(vihier.guides.interweave, "in_threads", lambda function, items, _: map(function, items))

    def sweep(n: int) -> tuple[Theta, int]:
        noise = UnitNoise(n)
        for module in (vihier.guides.deviations, vihier.guides.design_chains, vihier.guides.design_sweeps):
            monkeypatch.setattr(module, "normal_like", noise)
        sweeper = sweeper_of(structure)
        sweeper.sweep({site: value.expand(*value.shape[:-1], n) for site, value in one.items()})
        return deviations_of(sweeper), noise.used

    n = 1 + sweep(997)[1]
    drawn, _ = sweep(n)
    block = make_block(structure, batch)
    sites = to_sites(structure, centre(structure, structure.locations, drawn, {}, block))
    dense = dense_model(model, batch, {site: value[..., 0] for site, value in one.items()})
    flat = torch.cat([sites[site].reshape(n, -1) for site in dense.shapes], 1)
    root = flat[1:] - flat[:1]
    torch.testing.assert_close(flat[0], dense.mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(root.T @ root, dense.covariance, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_log_density_of_a_state_is_that_of_the_program(name: str) -> None:
    """What sweeps leave behind hangs together: rows' residuals, kept up to date by every move, and all sites."""
    structure = read_structure(DESIGNS[name], PROBE)
    theta = random_log_scales(DESIGNS[name], whole(SCREEN), 3)
    sweeper = sweeper_of(structure)
    for _ in range(3):
        theta = sweeper.sweep(theta)
    block = make_block(structure, whole(SCREEN))
    scales, jacobian = scale_values(structure, theta)
    values = centre(structure, structure.locations, deviations_of(sweeper), {}, block) | scales
    mine = sweeper.log_joint(theta)
    for draw in range(3):
        at = {name: value[..., draw] for name, value in values.items()}
        expected = float(log_joint(structure, at, whole(SCREEN)) + jacobian[draw])
        assert float(mine[draw]) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    "likelihood",
    [Likelihood("student_t", "replicate"), Likelihood("normal", "screen"), Likelihood("student_t", "line", 4.0)],
    ids=lambda x: x.label,
)
@pytest.mark.parametrize("name", ["covariate", "covariate_correlated", "multi_screen"])
def test_the_log_density_of_weighted_rows_is_that_of_the_program(name: str, likelihood: Likelihood) -> None:
    """Student-t rows, their weights integrated out, and rows of several noise scales."""
    model = load_program(name, None, likelihood).model
    structure = read_structure(model, PROBE)
    sizes = {"gene": SCREEN.n_genes}
    random = torch.Generator().manual_seed(0)
    theta = {}
    for scale in structure.scales:
        shape = [sizes.get(plate) or whole(SCREEN).size_of(plate) for plate in scale.plates]
        theta[scale.name] = 0.3 * torch.randn(*shape, 3, generator=random, dtype=F64) - 0.5
    for correlation in structure.correlations:
        theta[correlation.name] = 0.5 * torch.randn(correlation.n_pairs, 3, generator=random, dtype=F64)
    sweeper = sweeper_of(structure)
    for _ in range(3):
        theta = sweeper.sweep(theta)
    block = make_block(structure, whole(SCREEN))
    scales, jacobian = scale_values(structure, theta)
    values = centre(structure, structure.locations, deviations_of(sweeper), {}, block) | scales
    mine = sweeper.log_joint(theta)
    for draw in range(3):
        at = {site: value[..., draw] for site, value in values.items()}
        expected = float(log_joint(structure, at, whole(SCREEN)) + jacobian[draw])
        # Rows are in float32: 60 log densities, of residuals rounded by 1e-7.
        assert float(mine[draw]) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", DESIGNS)
def test_rows_of_one_weight_say_what_rows_that_count_equally_say(name: str) -> None:
    """Precision 1 / noise of every row, in every sum that elimination asks for."""
    plain = read_structure(DESIGNS[name], PROBE)
    layout = SharedLayout.of(plain, whole(SCREEN))
    noise = torch.tensor([0.3, 0.5], dtype=F64)
    # Degrees of freedom make rows weighted; they are not looked at here.
    weighted = replace(plain, freedom=Argument("df", None, 5.0))
    one, other = (design_block(structure, whole(SCREEN), layout) for structure in (plain, weighted))
    assert one.cells is None and other.cells is not None and other.block.rows is not None
    rows = other.block.rows
    lfc, count = (torch.segment_reduce(x.double(), "sum", lengths=rows.lengths) for x in (rows.lfc, rows.lfc * 0 + 1))
    precision = (1 / noise) * count[:, None]
    sums = other.cells.weigh(precision, lfc[:, None] / noise)
    random = torch.Generator().manual_seed(0)
    scale = torch.rand(SCREEN.n_genes, one.size, 2, generator=random, dtype=F64)
    leaf = torch.rand(SCREEN.n_genes, 1, 2, generator=random, dtype=F64)
    shared = torch.randn(layout.size, 2, generator=random, dtype=F64)
    dense = torch.randn(SCREEN.n_genes, one.size, 2, generator=random, dtype=F64)
    given = eliminate(one.data, noise, scale, leaf, shared)
    same = eliminate(sums, torch.ones(2, dtype=F64), scale, leaf, shared)
    said, too = one.data.said(given, 1 / noise, dense), sums.said(same, torch.ones(2, dtype=F64), dense)
    fitted = other.cells.fitted(dense, torch.zeros_like(given.shrink), shared)
    rest, left = one.data.rest(shared, 2), lfc[:, None] / noise - precision * fitted
    # What is left of the rows, summed by line with z: to the rest less z x' d.
    expected = (rest.leaf - one.data.to_leaf(dense, slice(None))) / noise
    for mine, theirs in (
        (given.chol, same.chol),
        (given.solution, same.solution),
        (given.shrink, same.shrink),
        (said.precision, too.precision),
        (said.rhs, too.rhs),
        (one.data.gram_times(dense, slice(None)) / noise, sums.gram_times(dense, slice(None))),
        (one.data.diagonal(slice(None)) / noise, sums.diagonal(slice(None))),
        (expected, other.cells.to_leaf(other.cells.to_units(left))),
    ):
        # Rows themselves are in single precision.
        torch.testing.assert_close(theirs, mine.expand_as(theirs), atol=1e-4, rtol=1e-5)


def test_blocks_are_in_double_from_when_single_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep in single precision, of rows that move by line alone, and one that finds it too coarse at once."""
    model = load_program("covariate", likelihood=Likelihood("student_t", "global"), covariates={"copy_number": "asis"})
    structure = read_structure(model.model, PROBE)
    layout = SharedLayout.of(structure, whole(SCREEN))
    double = design_block(structure, whole(SCREEN), layout)
    assert double.cells is not None and double.cells.by_line
    theta = random_log_scales(model.model, whole(SCREEN), 4)
    swept = {}
    for limit in (vihier.guides.gene_chains.SINGLE_ERROR, 0.0):
        monkeypatch.setattr(vihier.guides.gene_chains, "SINGLE_ERROR", limit)
        for design in (double, double.to(torch.float32)):
            sweeper = DesignSweeper(structure, [design], layout, lambda *keys: generator(CPU, 1, *keys))
            chains = sweeper.chains[0]
            chains.weigh_rows(sweeper.of_parts(theta)[0])
            shared = torch.zeros(layout.size, 4, dtype=F64)
            given = chains.eliminate(sweeper.of_parts(theta)[0], shared)
            swept[limit, design is double] = given, chains.data.count.dtype
            for _ in range(2):
                theta_after = sweeper.sweep(theta)
            assert all(bool(value.isfinite().all()) for value in theta_after.values())
    (exact, _), (single, single_dtype), (same, same_dtype) = swept[0.03, True], swept[0.03, False], swept[0.0, False]
    assert (single.chol.dtype, single_dtype) == (torch.float32, torch.float32)
    assert (same.chol.dtype, same_dtype) == (F64, F64)
    torch.testing.assert_close(single.chol.double(), exact.chol, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same.chol, exact.chol, atol=1e-5, rtol=1e-5)  # rows are in single as they are


def few_scales(batch: Batch) -> None:
    """A scale of each kind of move: the rows', of genes' slopes, of lines' slopes, of batches."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    slope_sd, line_sd, batch_sd = (pyro.sample(x, dist.HalfNormal(1.0)) for x in ("slope_sd", "line_sd", "batch_sd"))
    top = pyro.sample("top", dist.Normal(0.0, 1.0))
    lines = pyro.plate("line", batch.n_lines, dim=-1)
    with lines:
        line_slope = pyro.sample("line_slope", dist.Normal(0.0, line_sd))
    with pyro.plate("p_dna_batch", batch.size_of("p_dna_batch"), dim=-1):
        of_batch = pyro.sample("batch_mean", dist.Normal(0.0, batch_sd))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            gene_slope = pyro.sample("gene_slope", dist.Normal(top, slope_sd))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(0.0, 0.3))
        with pyro.plate("row", len(batch.gene), dim=-1):
            copies, days = batch.covariates["copy_number"], batch.covariates["days"]
            mean = pair[batch.gene, batch.line] + of_batch[batch.rows_in("p_dna_batch")]
            mean = mean + copies * gene_slope[batch.gene, 0] + days * line_slope[batch.line]
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


def few_vectors(batch: Batch) -> None:
    """Two coefficients of genes, correlated: one is well known from the rows, the other hardly, or by the first."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    sds = torch.stack([pyro.sample(x, dist.HalfNormal(spread)) for x in ("level_sd", "slope_sd")])
    tops = torch.stack([pyro.sample(x, dist.Normal(0.0, 1.0)) for x in ("level", "slope")])
    chol = pyro.sample("chol", dist.LKJCholesky(2, 1.5))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-2):
            own = pyro.sample("own", dist.MultivariateNormal(tops, scale_tril=sds[:, None] * chol))
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = own[batch.gene, 0, 0] + 0.2 * batch.covariates["days"] * own[batch.gene, 0, 1]
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


@pytest.mark.parametrize("model", [few_scales, few_vectors])
def test_sweeps_reach_the_posterior_of_the_scales(model: Model) -> None:
    """Beside importance sampling with the closed-form evidence, which a dense Normal agrees with."""
    structure = read_structure(model, PROBE)
    sweeper = sweeper_of(structure)
    names = [scale.name for scale in structure.scales] + [correlation.name for correlation in structure.correlations]
    shapes = {correlation.name: (correlation.n_pairs,) for correlation in structure.correlations}
    random = torch.Generator().manual_seed(0)
    theta = {name: 0.3 * torch.randn(*shapes.get(name, ()), 200, generator=random, dtype=F64) - 1 for name in names}
    kept = []
    for sweep in range(60):
        theta = sweeper.sweep(theta)
        if sweep >= 20:
            kept.append(torch.stack([theta[name].reshape(-1) for name in names], -1))
    draws = torch.cat(kept)
    # A wide Student-t around them, whose weights are the posterior's.
    chol = torch.linalg.cholesky(torch.cov(draws.T))
    normal = torch.randn(6000, len(names), generator=random, dtype=F64)
    spread = 1.2 * (5 / (2 * torch._standard_gamma(torch.full((6000, 1), 2.5, dtype=F64), generator=random))).sqrt()
    points = draws.mean(0) + (normal * spread) @ chol.T
    proposal = dist.MultivariateStudentT(5.0, draws.mean(0), 1.2 * chol).log_prob(points)
    at = {name: points[:, i].reshape(*shapes.get(name, ()), -1).contiguous() for i, name in enumerate(names)}
    weights = torch.softmax(evidence(sweeper, at) + log_prior(sweeper, at) - proposal, 0)
    assert float(1 / weights.square().sum()) > 1000  # of 6,000: the comparison below has some 3 % of an sd of its own
    mean = (weights[:, None] * points).sum(0)
    sd = (weights[:, None] * (points - mean).square()).sum(0).sqrt()
    # 8,000 draws of 200 chains: an error of some 0.03 sd, as that of the weights.
    torch.testing.assert_close(draws.mean(0) / sd, mean / sd, atol=0.12, rtol=0)
    torch.testing.assert_close(draws.std(0), sd, atol=0, rtol=0.08)
