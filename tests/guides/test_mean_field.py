"""The mean-field guide: which densities it has, in which batches, and what it converges to."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from ragged import CPU, F64, LOCAL, log_joint, part_of, ragged_screen, site_values

from vihier.errors import VihierError
from vihier.guides.mean_field import SHARED, MeanField
from vihier.inference.batches import RowParts, full_batch, gene_blocks
from vihier.inference.device import generator, run_on, seeded
from vihier.inference.mean_field_fit import fit_mean_field
from vihier.inference.progress import Silent
from vihier.models.batch import Batch
from vihier.models.program import load_program

NOISE = 0.5


def conjugate(batch: Batch) -> None:
    """Gene means with known noise: the posterior is independent Normals, so mean field is exact."""
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-1):
            mu = pyro.sample("mu", dist.Normal(0.3, 2.0))
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(mu[batch.gene], NOISE), obs=batch.lfc)


def conjugate_posterior(screen) -> tuple[np.ndarray, np.ndarray]:
    n = np.bincount(screen.gene)
    precision = n / NOISE**2 + 1 / 2.0**2
    total = np.bincount(screen.gene, weights=screen.lfc)
    return (total / NOISE**2 + 0.3 / 2.0**2) / precision, precision**-0.5


def random_guide(name: str, screen, **options) -> MeanField:
    guide = MeanField(load_program(name).model, full_batch(screen), **options)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random, dtype=parameter.dtype))
    return guide


@pytest.mark.parametrize("name", ["additive", "crossed", "gene_lineage"])
def test_elbo_is_unbiased_over_gene_blocks(name: str) -> None:
    # log p - log q at given values: the mean over blocks is the value of the whole screen, whatever the values.
    screen = ragged_screen()
    model = load_program(name).model
    values = site_values(model, screen)
    with run_on(CPU, F64):
        guide = random_guide(name, screen)

    def elbo(batch: Batch) -> float:
        part = part_of(values, LOCAL[name], batch)
        return log_joint(model, batch, part) - log_joint(guide, batch, part)

    for genes_per_block in (1, 2, 3):
        parts = [elbo(batch) for batch in gene_blocks(screen, genes_per_block)]
        assert np.mean(parts) == pytest.approx(elbo(full_batch(screen)), rel=1e-12)
    rows = [elbo(batch) for batch in RowParts(screen, 60, seed=0)]
    assert np.mean(rows) == pytest.approx(elbo(full_batch(screen)), rel=1e-12)


def test_log_density_is_that_of_independent_normals_and_log_normals() -> None:
    screen = ragged_screen()
    batch = full_batch(screen)
    with run_on(CPU, F64):
        guide = random_guide("additive", screen)
        values = site_values(load_program("additive").model, screen)
        expected = 0.0
        for table in (SHARED, "gene", "sgrna"):
            loc, sd = guide.locations(table, guide.rows_of(table, batch))
            for columns in guide.columns[table]:
                kind = dist.LogNormal if "sigma" in columns.site.name else dist.Normal
                normal = kind(columns.to_site(loc), columns.to_site(sd))
                expected += float(normal.log_prob(values[columns.site.name]).sum().detach())
    assert log_joint(guide, batch, values) == pytest.approx(expected, rel=1e-12)


def test_density_of_its_own_draws_is_the_density_of_given_values() -> None:
    # The guide keeps the density of what it drew; given the same values from outside it computes it anew.
    screen = ragged_screen()
    batch = gene_blocks(screen, 2)[0]
    with run_on(CPU, F64), seeded(CPU, 0):
        guide = random_guide("additive", screen)
        trace = pyro.poutine.trace(guide).get_trace(batch)
        own = float(trace.log_prob_sum().detach())
    values = {name: trace.nodes[name]["value"].detach().clone() for name in guide.sites.names}
    assert log_joint(guide, batch, values) == pytest.approx(own, rel=1e-10)


def test_draws_have_the_locations_sds_and_density_of_the_guide() -> None:
    screen = ragged_screen()
    batch = full_batch(screen)
    with run_on(CPU, F64):
        guide = random_guide("additive", screen)
        draws, log_q = guide.draw("gene", batch.gene_idx, 20_000, generator(CPU, 0))
        shared, log_q_shared = guide.draw(SHARED, torch.zeros(1, dtype=torch.int64), 20_000, generator(CPU, 1))
        sgrna, log_q_sgrna = guide.draw("sgrna", batch.sgrna_idx, 20_000, generator(CPU, 2))
        loc, sd = guide.locations("gene", batch.gene_idx)
    columns = {entry.site.name: entry for entry in guide.columns["gene"]}
    mean, spread = (columns["gamma"].to_site(x).detach() for x in (loc, sd))
    # Means and sds of 20,000 draws: standard errors 0.7 % and 0.5 % of the sd; five of them.
    assert ((draws["gamma"].mean(0) - mean) / spread).abs().max() < 5 / 20_000**0.5
    assert (draws["gamma"].std(0) / spread - 1).abs().max() < 5 / 40_000**0.5
    assert (draws["sigma_gamma"] > 0).all()
    every = {**shared, **draws, **sgrna}
    one = {name: value[7] for name, value in every.items()}
    expected = float((log_q + log_q_shared + log_q_sgrna)[7])
    assert log_joint(guide, batch, one) == pytest.approx(expected, rel=1e-12)


def test_it_reaches_the_analytic_posterior_of_a_conjugate_program_from_a_bad_start() -> None:
    screen = ragged_screen()
    mean, sd = conjugate_posterior(screen)
    blocks = gene_blocks(screen, 2, dtype=F64)
    with run_on(CPU, F64), seeded(CPU, 0):
        guide = MeanField(conjugate, blocks[0])
        optimiser = torch.optim.Adam(guide.parameters(), lr=0.3)
        elbo = Trace_ELBO()
        for step in range(900):
            optimiser.param_groups[0]["lr"] = 0.3 * 0.003 ** (step / 900)
            optimiser.zero_grad()
            elbo.differentiable_loss(conjugate, guide, blocks[step % len(blocks)]).backward()
            optimiser.step()
        loc, spread = guide.locations("gene", torch.arange(screen.n_genes))
    # At this optimum the gradient has no noise (the guide is the posterior), so only the last rate, 0.001, remains.
    assert np.abs((loc.detach().numpy()[:, 0] - mean) / sd).max() < 0.02
    assert np.abs(spread.detach().numpy()[:, 0] / sd - 1).max() < 0.02


def test_start_values_of_a_conjugate_program_are_its_posterior() -> None:
    screen = ragged_screen()
    mean, sd = conjugate_posterior(screen)
    blocks = gene_blocks(screen, 2, dtype=F64)
    fit = fit_mean_field(
        load_program(conjugate), screen, batches=blocks, seed=0, device=CPU, dtype=F64, progress=Silent(), max_steps=1
    )
    start = fit.guide.gene_start.numpy()
    np.testing.assert_allclose(start[:, 0], mean, rtol=1e-10)
    np.testing.assert_allclose(np.exp(start[:, 1]), sd, rtol=1e-10)


def test_it_works_in_plain_pyro_svi_without_touching_what_is_not_in_the_batch() -> None:
    screen = ragged_screen()
    blocks = gene_blocks(screen, 2, dtype=torch.float32)
    pyro.clear_param_store()
    with seeded(CPU, 0):
        model = load_program("additive").model
        guide = MeanField(model, blocks[0])
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        with pyro.validation_enabled(True):
            losses = [svi.step(blocks[0]) for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert (guide.gene[:2] != 0).any() and (guide.gene[2:] == 0).all()
    pyro.clear_param_store()


def vectors(batch: Batch) -> None:
    """Sites of every kind of support: a vector, a simplex, an interval, and a plate of a user's own."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    level = pyro.sample("level", dist.Uniform(-1.0, 2.0))
    with pyro.plate("kind", 2, dim=-1):
        pair = pyro.sample("pair", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-1)
        with pyro.plate("kind_of_gene", 2, dim=-2), genes:
            slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with genes:
            shift = pyro.sample("shift", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = level + weights[0] * pair[0, 0] + slope.sum(0)[batch.gene] + shift[:, 0][batch.gene]
            pyro.sample("lfc", dist.Normal(mean, 1.0), obs=batch.lfc)


def test_vectors_simplices_intervals_and_plates_of_a_users_own() -> None:
    screen = ragged_screen()
    with run_on(CPU, F64, validate=True), seeded(CPU, 0):
        blocks = gene_blocks(screen, 2)
        guide = MeanField(vectors, blocks[0])
        nodes = pyro.poutine.trace(guide).get_trace(blocks[2]).nodes  # the short block
        assert nodes["slope"]["value"].shape == (2, 1) and nodes["shift"]["value"].shape == (1, 2)
        assert float(nodes["weights"]["value"].detach().sum()) == pytest.approx(1.0)
        assert -1 < float(nodes["level"]["value"].detach()) < 2
        assert np.isfinite(Trace_ELBO().loss(vectors, guide, blocks[2]))
        draws, _ = guide.draw("gene", torch.arange(5), 6, generator(CPU, 0))
        assert draws["slope"].shape == (6, 2, 5) and draws["shift"].shape == (6, 5, 2)
        one = {name: value[0] for name, value in {**draws, **guide.draw(SHARED, torch.zeros(1).long(), 6,
               generator(CPU, 1))[0]}.items()}  # fmt: skip
        batch = full_batch(screen)
    rows = [log_joint(guide, block, {k: v[:, block.gene_idx] if k == "slope" else v[block.gene_idx] if k == "shift"
            else v for k, v in one.items()}) for block in gene_blocks(screen, 2)]  # fmt: skip
    assert np.mean(rows) == pytest.approx(log_joint(guide, batch, one), rel=1e-12)


def test_a_discrete_site_is_refused_by_name() -> None:
    def program(batch: Batch) -> None:
        kind = pyro.sample("kind", dist.Bernoulli(0.5))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(kind, 1.0), obs=batch.lfc)

    with pytest.raises(VihierError, match="'kind'"):
        MeanField(program, full_batch(ragged_screen(), dtype=torch.float32))
