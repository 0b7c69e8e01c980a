"""What a program pools, in units of the spread that it assumes, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import torch

from vihier.diagnostics.checks.shrinkage import Scatter
from vihier.guides.probe import base_distribution
from vihier.inference.device import run_on
from vihier.inference.draws import Draws, over_draws
from vihier.inference.predictor import CPU, Predictor, RowBlock


def scatter_of_block(block: RowBlock, first: bool) -> Iterator[tuple[str, Scatter]]:
    """Yield the scatter of every Normal site of a block's genes, and in the first block also of what genes share."""
    predictor = block.predictor
    sites = [site for site in predictor.sites.latent if site.plates and (first or site.local_plate is not None)]
    standard = _standardised(predictor, block, [site.name for site in sites])
    for name, values in standard.items():
        yield name, Scatter.of(values.numpy())


def _standardised(predictor: Predictor, block: RowBlock, names: list[str]) -> Draws:
    """Return (value - mean) / sd of those sites that are Normal, [N, *shape]."""
    short = block.batch.with_one_row()

    def of_one(draw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nodes = pyro.poutine.trace(pyro.condition(predictor.program.model, data=draw)).get_trace(short).nodes
        found = {}
        for name in names:
            base = base_distribution(nodes[name]["fn"])
            if isinstance(base, dist.Normal):
                found[name] = ((draw[name] - base.loc) / base.scale).reshape(-1)
        return found

    with run_on(CPU, torch.float64), torch.no_grad():
        return over_draws(of_one, block.known[0])
