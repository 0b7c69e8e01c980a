"""Draws of the genes' own scales from a coarse grid, against quadrature on a fine one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vihier
from vihier.guides import own_scales
from vihier.guides.block import Block, Theta, make_block
from vihier.guides.deviations import shared_columns
from vihier.guides.interweave import Sweeper
from vihier.guides.own_scales import OwnScales, draw_own, refined
from vihier.guides.streamed_start import dispersed
from vihier.guides.structure import Structure, read_structure
from vihier.inference.batches import GeneBlocks, full_batch
from vihier.inference.device import generator
from vihier.models.program import load_program
from vihier.screen import Screen

N_GENES, N_DRAWS = 20, 4000
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    path = tmp_path_factory.mktemp("screen") / "screen.parquet"
    vihier.simulate(path, genes=N_GENES, lines=12, lineages=2, seed=5, model="additive")
    return vihier.read_screen(path)


# Largest distance of distribution functions, mean over genes: 0.016 and 0.005, of which the evenly spread uniform
# numbers' own is 0.001. The scale of the gene x line table falls off as steeply as rows bound it.
@pytest.mark.parametrize(
    ("model", "most"), [("additive", {"sigma_gamma": 0.025, "sigma_alpha": 0.01}), ("gene_lineage", {})]
)
def test_draws_have_the_density_that_a_fine_grid_has(
    screen: Screen, model: str, most: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every gene, what genes share held: two scales of a gene, and one."""
    structure = read_structure(load_program(model).model, GeneBlocks(screen, 2, "cpu", torch.float64)[0])
    block = make_block(structure, full_batch(screen, "cpu", torch.float64))
    own, drawn = _drawn(structure, block)
    monkeypatch.setattr(own_scales, "POINTS", {1: 401, 2: 81})
    nodes, _, log_density = own_scales._grid(structure, block, own)
    m, n = len(own.sites), own_scales.POINTS[len(own.sites)]
    weights = (log_density - log_density.max(1, keepdim=True).values).exp().unflatten(1, (n,) * m)
    for i, scale in enumerate(own.sites):
        mass = weights.sum([1 + axis for axis in range(m) if axis != i]) if m > 1 else weights
        mass = mass / mass.sum(1, keepdim=True)
        # Along axis i, the other at its first point.
        x = nodes[:, i].unflatten(1, (n,) * m).movedim(1 + i, 1).reshape(N_GENES, n, -1)[..., 0]
        below = mass.cumsum(1) - mass / 2
        distances = []
        for gene in range(N_GENES):
            at = np.sort(np.interp(drawn[scale.name][gene].numpy(), x[gene].numpy(), below[gene].numpy()))
            distances.append(np.abs(at - (np.arange(N_DRAWS) + 0.5) / N_DRAWS).max())
        assert np.mean(distances) < most.get(scale.name, 0.01), scale.name


def test_what_is_between_the_points_of_a_grid() -> None:
    """Exact for a parabola; beside a cliff no higher than either side."""
    x = torch.linspace(-4, 4, 16, dtype=torch.float64)
    fine = torch.linspace(-4, 4, 61, dtype=torch.float64)
    bell = refined(-0.5 * x.square()[None])
    torch.testing.assert_close(bell / bell.max(), (-0.5 * fine.square()).exp()[None], atol=1e-3, rtol=0)
    cliff = refined(torch.tensor([[-3.0, -2.0, -1.0, 0.0, -50.0, -200.0]], dtype=torch.float64))[0]
    assert float(cliff.max()) == float(cliff[12])  # the point 0.0
    both = refined(-0.5 * (x[:, None].square() + x.square())[None])
    torch.testing.assert_close(both, bell[:, :, None] * bell[:, None])


def _drawn(structure: Structure, block: Block) -> tuple[OwnScales, Theta]:
    sweeper = Sweeper(structure, [block], lambda *keys: generator(CPU, 0, *keys))
    theta = dispersed(structure, block, N_GENES, 16, torch.Generator().manual_seed(0))
    kept = []
    for sweep in range(90):
        theta = sweeper.sweep(theta)
        if sweep >= 40:
            kept.append(theta)
    pooled = {name: torch.cat([each[name] for each in kept], -1) for name in theta}
    leaf = {location.scale for location in structure.table(("gene", "line"))}
    sites = sorted((x for x in structure.scales if x.plates == ("gene",)), key=lambda x: x.name not in leaf)
    names = {scale.name for scale in sites}
    shared = {name: value.mean(-1, keepdim=True) for name, value in pooled.items() if name not in names}
    column = shared_columns(structure, sweeper.shared, block) if sweeper.shared else None
    own = OwnScales(
        tuple(sites),
        torch.stack([pooled[scale.name].mean(-1) for scale in sites], -1),
        torch.stack([pooled[scale.name].std(-1) for scale in sites], -1),
        shared,
        None if column is None else column.mean(1, keepdim=True),
    )
    held = {name: value.expand(*value.shape[:-1], N_DRAWS) for name, value in shared.items()}
    return own, draw_own(structure, block, own, held, torch.Generator().manual_seed(1))
