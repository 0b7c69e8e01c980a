"""The genes' own scales given what genes share: quadrature on a grid for each gene, all its locations integrated out.

Many of these scales pile up at zero, where no simple family has their shape; a gene has one or two, and its evidence at
every point of a grid costs about as much as as many draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, variances
from vihier.guides.draw_groups import groups_of
from vihier.guides.evidence import gene_log_prior
from vihier.guides.given_shared import log_evidence
from vihier.guides.structure import Scale, Structure

POINTS = {1: 33, 2: 16, 3: 9}
REACH_SDS = 4.0
STEP = 0.01


@dataclass(frozen=True)
class OwnScales:
    """Where each gene's own log-scales are, from the chains: centre and sd, [G, m]; what they share at its centre.

    The scale of the gene x line table comes first: draws of a group then cover it most evenly. `theta` holds the
    centres of the shared log-scales, one draw; `column` [C, 1] the centre of each line's shared part.
    """

    sites: tuple[Scale, ...]
    centre: Tensor
    sd: Tensor
    theta: Theta
    column: Tensor | None

    @property
    def has_grid(self) -> bool:
        """Whether a grid over so many scales is affordable."""
        return len(self.sites) in POINTS


def draw_own(structure: Structure, block: Block, own: OwnScales, theta: Theta, random: torch.Generator) -> Theta:
    """Draw the log-scales of a block's genes for N draws of the shared ones: site -> [B, N].

    The grid is at the centre of what genes share; its draws are shifted by how the mean moves with the scales that the
    prior depends on, to first order. These are known to a fraction of a percent in a screen of thousands of genes.

    Parameters
    ----------
    theta : dict
        Draws of the shared log-scales.
    """
    if not own.sites:
        return {}
    genes = block.batch.gene_idx
    n_draws = next(iter(theta.values())).shape[-1]
    nodes, steps, log_density = _grid(structure, block, own)
    weights = (log_density - log_density.max(1, keepdim=True).values).exp()
    weights = weights / weights.sum(1, keepdim=True)
    first, rest = (_even(len(genes), n_draws, weights, random) for _ in range(2))
    n = POINTS[len(own.sites)]
    by_first = weights.double().unflatten(1, (n, -1))
    row = _invert(by_first.sum(2), first)
    column = _invert(by_first.gather(1, row[..., None].expand(-1, -1, by_first.shape[2])), rest[..., None])[..., 0]
    chosen = row * by_first.shape[2] + column
    shifts = _shifts(structure, block, own, nodes, weights, theta)
    drawn = {}
    for i, scale in enumerate(own.sites):
        jitter = torch.rand(len(genes), n_draws, generator=random, dtype=nodes.dtype, device=genes.device) - 0.5
        drawn[scale.name] = nodes[:, i].gather(1, chosen) + steps[:, i, None] * jitter + shifts[i]
    return drawn


def _even(n_genes: int, n_draws: int, like: Tensor, random: torch.Generator) -> Tensor:
    """Uniform numbers, [B, N], of which each gene has one in each of as many strata as a group has draws."""
    parts = []
    for at in groups_of(n_draws):
        n = at.stop - at.start
        uniform = torch.rand(2, n_genes, n, generator=random, dtype=torch.float64, device=like.device)
        parts.append((uniform[0].argsort(1) + uniform[1]) / n)
    return torch.cat(parts, 1)


def _invert(weights: Tensor, place: Tensor) -> Tensor:
    """Return which of the weights, [..., P], a share of their sum falls in: places [..., N], N positions."""
    cumulative = weights.cumsum(-1)
    found = torch.searchsorted((cumulative / cumulative[..., -1:]).contiguous(), place.contiguous())
    return found.clamp_max(weights.shape[-1] - 1)


def _grid(structure: Structure, block: Block, own: OwnScales) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points [B, m, P], the steps between them [B, m], and the log density there, [B, P]."""
    genes = block.batch.gene_idx
    m, n = len(own.sites), POINTS[len(own.sites)]
    offset = torch.linspace(-REACH_SDS, REACH_SDS, n, dtype=own.centre.dtype, device=own.centre.device)
    axes = torch.meshgrid(*[offset] * m, indexing="ij")
    standard = torch.stack([axis.reshape(-1) for axis in axes])
    nodes = own.centre[genes][..., None] + own.sd[genes][..., None] * standard
    theta = _at_nodes(own, own.theta, nodes)
    evidence = log_evidence(block.data, variances(structure, theta, block), own.column)
    log_density = evidence + gene_log_prior(structure, theta, block)
    return nodes, own.sd[genes] * (2 * REACH_SDS / (n - 1)), log_density


def _at_nodes(own: OwnScales, shared: Theta, nodes: Tensor) -> Theta:
    n = nodes.shape[-1]
    theta = {name: value.expand(*value.shape[:-1], n) for name, value in shared.items()}
    return theta | {scale.name: nodes[:, i] for i, scale in enumerate(own.sites)}


def _shifts(
    structure: Structure, block: Block, own: OwnScales, nodes: Tensor, weights: Tensor, theta: Theta
) -> list[Tensor]:
    """How far the means of the own scales move with each draw of the scales in their priors, [B, N] each.

    The derivative of a posterior mean with respect to a parameter of the prior is the covariance of the variable with
    the derivative of the log prior.
    """
    n_draws = next(iter(theta.values())).shape[-1]
    shifts = [nodes.new_zeros(len(nodes), n_draws) for _ in own.sites]
    sources = {source for scale in own.sites for source in scale.sources}
    for source in sorted(sources):
        up, down = (
            gene_log_prior(structure, _at_nodes(own, {**own.theta, source: own.theta[source] + step}, nodes), block)
            for step in (STEP, -STEP)
        )
        slope = (up - down) / (2 * STEP)
        slope = slope - (weights * slope).sum(1, keepdim=True)
        moved = theta[source] - own.theta[source]
        for i in range(len(own.sites)):
            covariance = (weights * slope * nodes[:, i]).sum(1, keepdim=True)
            shifts[i] = shifts[i] + covariance * moved
    return shifts
