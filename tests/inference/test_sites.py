"""What is read off a program, and the mistakes in programs that are refused by the name of the site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from ragged import CPU, F64, ragged_screen

from vihier.errors import VihierError
from vihier.inference.batches import gene_blocks
from vihier.inference.columns import columns_read
from vihier.inference.device import run_on
from vihier.inference.sites import Sites, read_sites
from vihier.models.batch import Batch
from vihier.models.program import load_program
from vihier.screen import read_screen


def read(model: Callable[[Batch], Any]) -> Sites:
    with run_on(CPU, F64):
        return read_sites(model, gene_blocks(ragged_screen(), 2)[0])


def test_sites_of_additive() -> None:
    sites = read(load_program("additive").model)
    assert {site.name: site.local_plate for site in sites.local} == {
        **dict.fromkeys(("mu_alpha", "sigma_alpha", "sigma_gamma", "gamma"), "gene"),
        "alpha": "sgrna",
    }
    assert len(sites.shared) == 12 and sites.observed == ("lfc",)
    axes = {site.name: site.axis_dims() for site in (*sites.latent, *sites.deterministic)}
    assert axes["gamma"] == axes["effect"] == ("hugo_symbol", "depmap_id")
    assert axes["mu_alpha"] == ("hugo_symbol", None) and axes["sigma_beta"] == ("lineage",) and axes["sigma"] == ()


def test_a_gene_plate_in_any_place_is_found() -> None:
    def program(batch: Batch) -> None:
        with batch.local():
            genes = pyro.plate("gene", len(batch.gene_idx), dim=-1)
            with pyro.plate("line", batch.n_lines, dim=-2), genes:
                gamma = pyro.sample("gamma", dist.Normal(0.0, 1.0))
                pyro.deterministic("effect", gamma)
            with pyro.plate("row", len(batch.gene), dim=-1):
                pyro.sample("lfc", dist.Normal(gamma[batch.line, batch.gene], 1.0), obs=batch.lfc)

    (gamma,) = read(program).latent
    assert gamma.axis_dims() == ("depmap_id", "hugo_symbol") and gamma.local_axis == 1
    assert gamma.full_shape(gene_blocks(ragged_screen(), 2)[0]) == (4, 5)


def rows(batch: Batch, mean: Any) -> None:
    with pyro.plate("row", len(batch.gene), dim=-1):
        pyro.sample("lfc", dist.Normal(mean, 1.0), obs=batch.lfc)


def gene_site_outside_local(batch: Batch) -> None:
    with pyro.plate("gene", len(batch.gene_idx), dim=-1):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with batch.local():
        rows(batch, mu[batch.gene])


def shared_site_inside_local(batch: Batch) -> None:
    with batch.local():
        rows(batch, pyro.sample("mu", dist.Normal(0.0, 1.0)))


def rows_outside_local(batch: Batch) -> None:
    rows(batch, pyro.sample("mu", dist.Normal(0.0, 1.0)))


def rows_in_a_plate_that_scales(batch: Batch) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    index = torch.arange(len(batch.gene))
    with batch.local(), pyro.plate("row", batch.n_rows, subsample=index, dim=-1):
        pyro.sample("lfc", dist.Normal(mu, 1.0), obs=batch.lfc)


def genes_in_a_plate_that_scales(batch: Batch) -> None:
    with batch.local():
        with pyro.plate("gene", batch.n_genes, subsample=batch.gene_idx, dim=-1):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows(batch, mu[batch.gene])


def gene_plate_of_a_wrong_length(batch: Batch) -> None:
    with batch.local():
        with pyro.plate("gene", batch.n_genes, dim=-1):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows(batch, mu[batch.gene_idx][batch.gene])


def latent_in_rows(batch: Batch) -> None:
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("lfc", dist.Normal(mu, 1.0), obs=batch.lfc)


def gene_and_sgrna(batch: Batch) -> None:
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-2), pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows(batch, mu[batch.gene, batch.sgrna])


def discrete(batch: Batch) -> None:
    mu = pyro.sample("mu", dist.Poisson(3.0))
    with batch.local():
        rows(batch, mu)


@pytest.mark.parametrize(
    ("program", "what"),
    [
        (gene_site_outside_local, "'mu'.*move it inside"),
        (shared_site_inside_local, "'mu'.*move it out"),
        (rows_outside_local, "'lfc'.*inside"),
        (rows_in_a_plate_that_scales, "'lfc'.*no subsample"),
        (genes_in_a_plate_that_scales, "'mu'"),
        (gene_plate_of_a_wrong_length, "'mu'.*5 long and the batch holds 2"),
        (latent_in_rows, "'mu'.*every row"),
        (gene_and_sgrna, "'mu'.*leave 'gene' out"),
        (discrete, "'mu'.*discrete"),
    ],
)
def test_mistakes_are_refused_by_the_name_of_the_site(program: Callable[[Batch], Any], what: str) -> None:
    with pytest.raises(VihierError, match=what) as refused:
        read(program)
    assert "\n" not in str(refused.value)


def test_a_program_that_observes_or_samples_nothing_is_refused() -> None:
    def nothing_observed(batch: Batch) -> None:
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    def nothing_sampled(batch: Batch) -> None:
        with batch.local():
            rows(batch, torch.zeros(()))

    with pytest.raises(VihierError, match="observes nothing"):
        read(nothing_observed)
    with pytest.raises(VihierError, match="no latent site"):
        read(nothing_sampled)


def test_a_parameter_without_a_prior_is_refused() -> None:
    def point_estimate(batch: Batch) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with batch.local():
            rows(batch, mu + pyro.param("shift", torch.zeros(())))

    with pytest.raises(VihierError, match=r"'shift': a pyro\.param"):
        read(point_estimate)


def test_columns_that_a_program_reads() -> None:
    screen = ragged_screen()
    frame = screen.to_frame().assign(copy_number=1.0)
    batch = gene_blocks(read_screen(frame), 2)[0]

    def uses_copies(batch: Batch) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with batch.local():
            rows(batch, slope * batch.covariates["copy_number"])

    with run_on(CPU, F64):
        assert columns_read(load_program("additive").model, batch) == ("lineage",)
        assert columns_read(uses_copies, batch) == ("copy_number",)
        assert columns_read(rows_outside_local, batch) == ()
        with pytest.raises(VihierError, match="column 'copy_number'"):
            columns_read(uses_copies, gene_blocks(screen, 2)[0])
