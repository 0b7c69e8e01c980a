"""Sweeps over rows that are Student-t or of several noise scales."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from agreement import assert_agrees
from dense_model import CPU, F64, dense_model, uneven_screen, whole
from torch import Tensor

import vihier
from vihier.errors import VihierError
from vihier.guides.block import Block, make_block, split_by_sgrnas
from vihier.guides.evidence import collapsed_log_joint
from vihier.guides.interweave import Sweeper
from vihier.guides.mixed_model import Structure, log_joint
from vihier.guides.structure import read_structure
from vihier.guides.structured import StructuredGuide
from vihier.guides.values import centre, locations_of, unpad
from vihier.inference.device import generator
from vihier.models.batch import Batch
from vihier.models.counts import COUNTS, EXPECTED
from vihier.models.likelihood import Likelihood
from vihier.models.program import load_program

SCREEN = uneven_screen()
CHOICES = [
    Likelihood("student_t", "replicate"),
    Likelihood("student_t", "global", 4.0),
    Likelihood("student_t", "line"),
    Likelihood("student_t", "line", "screen"),
    Likelihood("normal", "replicate"),
    Likelihood("normal", "line"),
    Likelihood("negative_binomial"),
    Likelihood("negative_binomial", "replicate", dispersion="gene_abundance"),
    Likelihood("negative_binomial", "line", dispersion="abundance"),
    Likelihood("negative_binomial", "replicate", dispersion="sgrna_abundance_row"),
    Likelihood("negative_binomial", dispersion="row"),
]
N = 3
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def with_counts(batch: Batch) -> Batch:
    """Counts of some hundreds for the fold changes of a batch."""
    random = np.random.default_rng(5)
    assert batch.lfc is not None
    expected = torch.tensor(random.lognormal(5, 1, len(batch.gene)))
    counts = torch.tensor(random.poisson(expected * 2**batch.lfc)).double()
    return replace(batch, covariates={**batch.covariates, COUNTS: counts, EXPECTED: expected})


def random_scales(structure: Structure, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    sizes = {"gene": batch.n_genes, "sgrna": batch.n_sgrnas}
    found = {}
    for scale in structure.scales:
        shape = [sizes.get(plate) or batch.size_of(plate) for plate in scale.plates]
        found[scale.name] = 0.3 * torch.randn(*shape, N, dtype=F64) - 0.5
    return found


def sites_of(structure: Structure, sweeper: Sweeper, block: Block, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """Value of every site as the sweeper's deviations have it, draws last."""
    shared = centre(structure, locations_of(structure, True), sweeper.shared, {}, block)
    deviations: dict[str, Tensor] = {}
    for location in locations_of(structure, False):
        for part in sweeper.parts:
            values, batch = part.deviations[location.name].double(), part.block.batch
            sgrnas = location.plates == ("sgrna",)
            at = batch.sgrna_idx if sgrnas else batch.gene_idx
            n = block.batch.n_sgrnas if sgrnas else block.batch.n_genes
            values = unpad(values, part.block) if sgrnas else values
            deviations.setdefault(location.name, values.new_zeros(n, *values.shape[1:]))[at] = values
    own = centre(structure, locations_of(structure, False), deviations, shared, block)
    return {name: value.exp() for name, value in theta.items()} | shared | own


@pytest.mark.filterwarnings("ignore:.*sequences in more than one screen")
@pytest.mark.parametrize("likelihood", CHOICES, ids=lambda x: x.label)
@pytest.mark.parametrize("model", ["additive", "gene_lineage", "crossed"])
def test_the_log_density_of_a_state_is_that_of_the_program(model: str, likelihood: Likelihood) -> None:
    """Rows, weights integrated out, and all sites: the state that sweeps leave behind hangs together."""
    batch = whole(uneven_screen(screens=likelihood.nu == "screen"))
    batch = with_counts(batch) if likelihood.is_of_counts else batch
    structure = read_structure(load_program(model, None, likelihood).model, batch)
    block = make_block(structure, batch)
    sweeper = Sweeper(structure, split_by_sgrnas(block, 8), lambda *keys: generator(CPU, 1, *keys))
    theta = random_scales(structure, batch)
    for _ in range(3):
        theta = sweeper.sweep(theta)
    mine, values = sweeper.log_joint(theta), sites_of(structure, sweeper, block, theta)
    for draw in range(N):
        at = {name: value[..., draw] for name, value in values.items()}
        logs = sum(float(value[..., draw].sum()) for value in theta.values())
        # Rows are in float32: 60 log densities, of residuals rounded by 1e-7; of counts of some hundreds, times these.
        tolerance = 2e-2 if likelihood.is_of_counts else 2e-3
        assert float(mine[draw]) == pytest.approx(float(log_joint(structure, at, batch)) + logs, abs=tolerance)


def test_evidence_of_several_noise_scales_is_that_of_a_dense_normal() -> None:
    """Normal rows of known scales by replicate: the weighted block's closed form, everything integrated out."""
    batch = whole(SCREEN)
    program = load_program("additive", None, Likelihood("normal", "replicate")).model
    structure = read_structure(program, batch)
    theta = random_scales(structure, batch)
    block = make_block(structure, batch)
    sweeper = Sweeper(structure, [block], lambda *keys: generator(CPU, 1, *keys))
    rows = sweeper.parts[0].rows
    assert rows is not None
    weighed = Block(batch, rows.data(theta, block.data, evidence=True), block.slot, block.member, block.filled)
    mine = collapsed_log_joint(structure, theta, weighed)
    for draw in range(N):
        dense = dense_model(program, batch, {name: value[..., draw] for name, value in theta.items()})
        assert float(mine[draw]) == pytest.approx(float(dense.log_evidence + dense.log_prior), abs=2e-3)


def noise_alone(batch: Batch) -> None:
    """Student-t rows around a mean that is known to be zero."""
    sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
    nu = pyro.sample("nu", dist.Gamma(2.0, 0.1))
    top = pyro.sample("top", dist.Normal(0.0, 1e-4))
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        pyro.sample("lfc", dist.StudentT(nu, top, sigma), obs=batch.lfc)


def test_noise_and_degrees_of_freedom_have_their_posterior() -> None:
    """Beside quadrature on a grid of (log sigma, log nu)."""
    screen = uneven_screen(sgrnas=(4,) * 12, n_lines=6)
    batch = whole(screen)
    random = np.random.default_rng(0)
    lfc = torch.tensor(0.5 * random.standard_t(3.0, len(batch.gene)))
    batch = Batch(**{**vars(batch), "lfc": lfc})
    structure = read_structure(noise_alone, batch)
    sweeper = Sweeper(structure, [make_block(structure, batch)], lambda *keys: generator(CPU, 2, *keys))
    torch.manual_seed(1)
    theta = {"sigma": 0.3 * torch.randn(400, dtype=F64) - 1, "nu": 0.3 * torch.randn(400, dtype=F64) + 1.5}
    kept = []
    for sweep in range(60):
        theta = sweeper.sweep(theta)
        if sweep >= 20 and sweep % 4 == 3:
            kept.append(theta)
    log_sigma, log_nu = torch.linspace(-1.4, 0.0, 141, dtype=F64), torch.linspace(0.0, 4.5, 226, dtype=F64)
    grid = torch.zeros(len(log_sigma), len(log_nu), dtype=F64)
    for i, x in enumerate(log_sigma):
        rows = dist.StudentT(log_nu.exp()[:, None], 0.0, x.exp()).log_prob(lfc).sum(1)
        grid[i] = rows + dist.HalfNormal(3.0).log_prob(x.exp()) + x
    grid = grid + dist.Gamma(2.0, 0.1).log_prob(log_nu.exp()) + log_nu
    weights = (grid - grid.max()).exp()
    for name, points, axis in (("sigma", log_sigma, 1), ("nu", log_nu, 0)):
        density = weights.sum(axis)
        lower = density.cumsum(0) / density.sum()
        draws = torch.cat([x[name] for x in kept])
        for p in (0.05, 0.5, 0.95):
            expected = float(points[int((lower < p).sum())])
            sd = float((density @ points.square() / density.sum() - (density @ points / density.sum()) ** 2).sqrt())
            # 4,000 draws, of which some 1,000 are independent: a 5 % quantile errs by about 0.07 sd; the grid by 0.05.
            assert float(draws.quantile(p)) == pytest.approx(expected, abs=0.3 * sd)


def test_the_pyro_guide_and_closed_forms_refuse_such_rows_by_name() -> None:
    program = load_program("additive", None, Likelihood("student_t", "replicate")).model
    with pytest.raises(VihierError, match="site 'lfc': its rows are not Normal with one noise scale"):
        StructuredGuide(program, [whole(SCREEN)])


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the data of the reference posteriors (../shared) are not here")
@pytest.mark.parametrize(("case", "noise"), [("A", "replicate"), ("S", "line")])
def test_agrees_with_nuts_on_the_whole_model(case: str, noise: str) -> None:
    """Long NUTS runs of the program as it stands, no weights, nothing integrated out; see tests/reference/README.md."""
    data = SHARED / "reference" / f"{case}.additive" / "data.csv.gz"
    post = vihier.fit(str(data), likelihood="student_t", noise=noise, draws=4000, quiet=True)
    assert post.converged
    levels = ["sigma_line_screen", "sigma_sigma_line_screen"] if noise == "replicate" else []
    with np.load(REFERENCE / f"{case}.student_t.{noise}.npz") as reference:
        assert_agrees(post, reference, ["nu", "sigma", "sigma_sigma", f"sigma_{noise}", *levels])
