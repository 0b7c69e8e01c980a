"""Sweeps over rows that are read counts: beside quadrature where that is possible, and beside long NUTS runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from agreement import assert_agrees
from dense_model import CPU, F64, uneven_screen, whole

import vihier
from vihier.errors import VihierError
from vihier.guides.block import make_block
from vihier.guides.interweave import Sweeper
from vihier.guides.structure import read_structure
from vihier.inference.device import generator
from vihier.models.batch import Batch
from vihier.models.counts import COUNTS, EXPECTED, ReadCounts
from vihier.screen import Screen
from vihier.screen.importing import MappedFiles, Normalisation, import_chronos

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCE = Path(__file__).resolve().parents[1] / "reference"


NOISE = ("sigma.", "sigma_replicate", "sigma_line_screen", "sigma_sigma.", "abundance_power", "noisy_rows")


def level_and_noise(batch: Batch) -> None:
    """Counts of one level and one noise scale."""
    sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
    top = pyro.sample("top", dist.Normal(0.0, 2.0))
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        rows = ReadCounts(top, sigma, expected=batch.covariates[EXPECTED])
        pyro.sample("counts", rows, obs=batch.covariates[COUNTS])


def assert_marginals(grid: torch.Tensor, points: dict[str, torch.Tensor], kept: dict[str, list[torch.Tensor]]) -> None:
    """Hold some 2,000 independent draws to a log density on a grid: a mean errs by 0.02 sd, an sd by 2 %."""
    weights = (grid - grid.max()).exp()
    for axis, (name, at) in enumerate(points.items()):
        density = weights.sum(1 - axis) / weights.sum()
        mean = float(density @ at)
        sd = math.sqrt(float(density @ at.square()) - mean**2)
        draws = torch.cat(kept[name]).double()
        assert float(draws.mean()) == pytest.approx(mean, abs=0.08 * sd), name
        assert float(draws.std()) == pytest.approx(sd, rel=0.08), name


@pytest.mark.parametrize(("depth", "noise"), [(4.0, 0.3), (400.0, 0.7)])
def test_level_and_noise_have_their_posterior(depth: float, noise: float) -> None:
    """Beside quadrature on a grid of (level, log sigma): of few reads, where Poisson noise is most, and of many."""
    batch = whole(uneven_screen(sgrnas=(2,) * 6, n_lines=4))
    random = np.random.default_rng(1)
    n = len(batch.gene)
    expected = torch.tensor(random.uniform(0.5, 1.5, n) * depth)
    rate = expected.numpy() / 2 * random.gamma(noise**-2, noise**2, n)
    counts = torch.tensor(random.poisson(rate)).double()
    batch = replace(batch, covariates={**batch.covariates, COUNTS: counts, EXPECTED: expected})
    structure = read_structure(level_and_noise, batch)
    sweeper = Sweeper(structure, [make_block(structure, batch)], lambda *keys: generator(CPU, 2, *keys))
    torch.manual_seed(1)
    theta = {"sigma": 0.3 * torch.randn(400, dtype=F64) - 1}
    kept: dict[str, list[torch.Tensor]] = {"sigma": [], "top": []}
    for sweep in range(160):
        theta = sweeper.sweep(theta)
        if sweep >= 40 and sweep % 6 == 5:
            kept["sigma"].append(theta["sigma"])
            kept["top"].append(sweeper.shared["top"])
    # 8,000 draws of 400 chains, of which some 2,000 are independent.
    top, log_sigma = torch.linspace(-2.5, 0.5, 241, dtype=F64), torch.linspace(-9.0, 0.8, 393, dtype=F64)
    grid = torch.zeros(len(top), len(log_sigma), dtype=F64)
    for i, level in enumerate(top):
        rows = ReadCounts(level, log_sigma.exp()[:, None], expected=expected).log_prob(counts).sum(1)
        grid[i] = rows + dist.Normal(0.0, 2.0).log_prob(level)
    grid = grid + dist.HalfNormal(3.0).log_prob(log_sigma.exp()) + log_sigma
    assert_marginals(grid, {"top": top, "sigma": log_sigma}, kept)


def noisy_rows_alone(batch: Batch) -> None:
    """Counts of which some are noisier, around a mean that is known to be what is expected."""
    sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
    noisy_rows = pyro.sample("noisy_rows", dist.HalfNormal(1.0))
    top = pyro.sample("top", dist.Normal(0.0, 1e-4))
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        rows = ReadCounts(top, sigma, expected=batch.covariates[EXPECTED], excess=noisy_rows)
        pyro.sample("counts", rows, obs=batch.covariates[COUNTS])


def test_noise_and_noisier_rows_have_their_posterior() -> None:
    """Beside quadrature on a grid of (log sigma, log excess)."""
    batch = whole(uneven_screen(sgrnas=(4,) * 6, n_lines=6))
    random = np.random.default_rng(4)
    n = len(batch.gene)
    expected = torch.tensor(random.uniform(50, 500, n))
    noise = 0.2 * np.exp(1.2 * (random.random(n) < 0.1))
    counts = torch.tensor(random.poisson(expected.numpy() * random.gamma(noise**-2, noise**2))).double()
    batch = replace(batch, covariates={**batch.covariates, COUNTS: counts, EXPECTED: expected})
    structure = read_structure(noisy_rows_alone, batch)
    sweeper = Sweeper(structure, [make_block(structure, batch)], lambda *keys: generator(CPU, 2, *keys))
    torch.manual_seed(1)
    theta = {name: 0.3 * torch.randn(200, dtype=F64) - 1 for name in ("sigma", "noisy_rows")}
    kept: dict[str, list[torch.Tensor]] = {"sigma": [], "noisy_rows": []}
    for sweep in range(180):
        theta = sweeper.sweep(theta)
        if sweep >= 60 and sweep % 3 == 2:
            for name, draws in kept.items():
                draws.append(theta[name])
    log_sigma, log_excess = torch.linspace(-2.6, -0.7, 191, dtype=F64), torch.linspace(-9.0, 1.2, 205, dtype=F64)
    grid = torch.zeros(len(log_sigma), len(log_excess), dtype=F64)
    for i, at in enumerate(log_sigma):
        rows = ReadCounts(torch.zeros(n, dtype=F64), at.exp(), expected=expected, excess=log_excess.exp()[:, None])
        grid[i] = rows.log_prob(counts).sum(1) + dist.HalfNormal(3.0).log_prob(at.exp()) + at
    grid = grid + dist.HalfNormal(1.0).log_prob(log_excess.exp()) + log_excess
    # 8,000 draws of 200 chains, of which some 2,000 are independent.
    assert_marginals(grid, {"sigma": log_sigma, "noisy_rows": log_excess}, kept)


def test_a_scale_by_sgrna_of_anything_but_counts_is_refused() -> None:
    def of_alpha(batch: Batch) -> None:
        sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
        with batch.local():
            with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
                wide = pyro.sample("wide", dist.HalfNormal(1.0))
                alpha = pyro.sample("alpha", dist.Normal(0.0, wide))
            with pyro.plate("row", len(batch.gene), dim=-1):
                pyro.sample("lfc", dist.Normal(alpha[batch.sgrna], sigma), obs=batch.lfc)

    with pytest.raises(VihierError, match="site 'wide': a scale indexed by sgrna"):
        read_structure(of_alpha, whole(uneven_screen(sgrnas=(2, 2), n_lines=3)))


def test_a_scale_of_counts_and_of_locations_is_refused() -> None:
    def shared_scale(batch: Batch) -> None:
        sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
        top = pyro.sample("top", dist.Normal(0.0, sigma))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            rows = ReadCounts(top, sigma, expected=batch.covariates[EXPECTED])
            pyro.sample("counts", rows, obs=batch.covariates[COUNTS])

    batch = whole(uneven_screen(sgrnas=(2, 2), n_lines=3))
    ones = torch.ones(len(batch.gene), dtype=F64)
    batch = replace(batch, covariates={**batch.covariates, COUNTS: ones, EXPECTED: ones})
    with pytest.raises(VihierError, match="site 'sigma': it is of the rows' noise, and the sd of 'top'"):
        read_structure(shared_scale, batch)


def simulated(folder: Path, reference: dict[str, np.ndarray]) -> tuple[Screen, dict[str, str]]:
    columns = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", COUNTS, EXPECTED]
    table = pd.DataFrame({name: reference[f"row.{name}"] for name in columns})
    return vihier.read_screen(table.assign(lfc=0.0)), {}


def of_avana(folder: Path, reference: dict[str, np.ndarray]) -> tuple[Screen, dict[str, str]]:
    matrix = SHARED / "chronos_format" / "AvanaReadcounts.hdf5"
    if not matrix.exists():
        pytest.skip("the read counts (../shared/data) are not here")
    out, how = folder / "avana.parquet", Normalisation(keep_counts=True)
    import_chronos(MappedFiles((matrix,)), out, normalisation=how, line_map=SHARED / "lineage_map.csv")
    screen = vihier.read_screen(out).subset(genes=reference["genes"].tolist(), lines=reference["lines"].tolist())
    by = "gene_abundance" if "dispersion_gene.mean" in reference else "sgrna_abundance_row"
    return screen, {"noise": "replicate", "dispersion": by}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "screen_of"), [("simulated", simulated), ("avana", of_avana), ("avana_rows", of_avana)]
)
def test_agrees_with_nuts_on_the_whole_model(case: str, screen_of: object, tmp_path: Path) -> None:
    """Long NUTS runs of the program as it stands, nothing integrated out; see tests/reference/README.md."""
    with np.load(REFERENCE / f"counts.{case}.npz") as file:
        reference = {name: file[name] for name in file.files}
    screen, options = screen_of(tmp_path, reference)  # type: ignore[operator]
    post = vihier.fit(screen, likelihood="negative_binomial", draws=4000, quiet=True, **options)
    assert post.converged
    of_noise = {
        name.removesuffix(".mean")
        for name in reference
        if name.endswith(".mean") and ("dispersion" in name or name.startswith(NOISE))
    }
    assert_agrees(post, reference, sorted(of_noise))
