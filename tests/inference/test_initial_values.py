"""Where mean_field starts: what the data say, whatever the blocks."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from ragged import CPU, F64, ragged_screen
from torch.testing import assert_close

from vihier.inference.batches import full_batch, gene_blocks
from vihier.inference.centres import centre_of
from vihier.inference.device import run_on
from vihier.inference.initial_values import InitialValues, Start
from vihier.inference.sites import read_sites
from vihier.models.program import load_program


def starts(name: str, genes_per_block: int) -> tuple[Start, list[Start]]:
    blocks = gene_blocks(ragged_screen(), genes_per_block)
    model = load_program(name).model
    with run_on(CPU, F64):
        initial = InitialValues(model, read_sites(model, gene_blocks(ragged_screen(), 2)[0]), blocks)
        return initial.find_shared(), [initial.find_locals(block) for block in blocks]


@pytest.mark.parametrize("name", ["additive", "crossed", "gene_lineage"])
def test_the_start_does_not_depend_on_the_blocks(name: str) -> None:
    (whole, whole_locals), (parts, parts_locals) = starts(name, 5), starts(name, 2)
    # The same sums in another order: float64 rounding, carried through six sweeps.
    for site, value in whole.loc.items():
        assert_close(parts.loc[site], value, rtol=1e-9, atol=1e-9)
        assert_close(parts.sd[site], whole.sd[site], rtol=1e-9, atol=1e-9)
    for site, value in whole_locals[0].loc.items():
        assert_close(torch.cat([part.loc[site] for part in parts_locals]).sum(), value.sum(), rtol=1e-9, atol=1e-9)


def test_the_start_of_additive_explains_the_rows_down_to_their_noise() -> None:
    screen = ragged_screen()
    shared, (local,) = starts("additive", 5)
    batch = full_batch(screen)
    mean = local.loc["alpha"][batch.sgrna] + shared.loc["beta"][batch.line] + local.loc["gamma"][batch.gene, batch.line]
    residual = (batch.lfc - mean).std()
    # The noise is 0.5; 31 sgRNAs and 20 cells take up part of the freedom of 164 rows.
    assert 0.38 < float(residual) < 0.5 < float(batch.lfc.std())
    assert float(shared.loc["sigma"].exp()) == pytest.approx(0.5, rel=0.1)


def test_a_prior_without_a_mean_starts_at_one_moderate_value() -> None:
    with run_on(CPU, F64):
        assert float(centre_of(dist.HalfCauchy(2.0))) == 1.0
        assert_close(centre_of(dist.LKJCholesky(3, 1.0)), torch.eye(3))
        assert_close(centre_of(dist.HalfNormal(3.0).expand([4])), torch.full((4,), dist.HalfNormal(3.0).mean.item()))
        assert float(centre_of(dist.Normal(1.5, 2.0))) == 1.5


def test_a_program_it_does_not_understand_starts_at_its_priors() -> None:
    def program(batch) -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 4.0))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Laplace(0.0, rate), obs=batch.lfc)

    blocks = gene_blocks(ragged_screen(), 5)
    with run_on(CPU, F64):
        start = InitialValues(program, read_sites(program, blocks[0]), blocks).find_shared()
    assert float(start.loc["rate"].exp()) == pytest.approx(0.5)
