"""The genes' own scales given what genes share: quadrature on a grid for each gene, all its locations integrated out.

Many of these scales pile up at zero, where no simple family has their shape; a gene has one or two, and its evidence at
every point of a grid costs about as much as as many draws.
"""

from __future__ import annotations

from collections.abc import Sequence
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
FINER, LEAST = 4, -60.0


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
    shifts = _shifts(structure, block, own, nodes, weights / weights.sum(1, keepdim=True), theta)
    uniform = tuple(_even(len(genes), n_draws, weights, random) for _ in own.sites)
    m, n = len(own.sites), POINTS[len(own.sites)]
    drawn = {}
    for i, place in enumerate(_draw_places(refined(log_density.unflatten(1, (n,) * m)), uniform)):
        within = torch.rand(len(genes), n_draws, generator=random, dtype=nodes.dtype, device=genes.device) - 0.5
        at = (place + within) / FINER
        drawn[own.sites[i].name] = nodes[:, i, :1] + steps[:, i, None] * at + shifts[i]
    return drawn


def refined(log_density: Tensor) -> Tensor:
    """Weights at `FINER` times as many points a step, [B, P', ...], from a log density at some, [B, P, ...].

    A piecewise cubic in each axis in turn. Where neighbouring differences are as unlike as at the edge of a scale that
    the rows bound, slopes are harmonic means of them, which do not overshoot (Fritsch & Butland 1984, SIAM J. Sci.
    Stat. Comput. 5, 300).
    """
    axes = tuple(range(1, log_density.dim()))
    fine = (log_density - log_density.amax(axes, keepdim=True)).clamp_min(LEAST)
    for axis in axes:
        fine = _interpolated(fine.movedim(axis, -1)).movedim(-1, axis)
    return fine.double().exp()


def _interpolated(values: Tensor) -> Tensor:
    """Interpolate along the last axis, [..., P] to [..., (P - 1) FINER + 1]."""
    secant = values.diff(dim=-1)
    one, other = secant[..., :-1], secant[..., 1:]
    small, large = torch.minimum(one.abs(), other.abs()), torch.maximum(one.abs(), other.abs())
    product = one * other
    harmonic = torch.where(product > 0, 2 * product / (one + other), torch.zeros_like(product))
    smooth = (one + other) / 2
    # Where there are two points on either side, of fourth order: 4 / 3 of that less 1 / 3 of that over two steps.
    outer = secant[..., :-3], secant[..., 3:]
    over_two = (smooth[..., 1:-1] + (outer[0] + outer[1]) / 2) / 2
    near = torch.maximum(outer[0].abs(), outer[1].abs()) <= 12 * small[..., 1:-1] + 3
    smooth[..., 1:-1] += torch.where(near, (smooth[..., 1:-1] - over_two) / 3, 0.0)
    inner = torch.where(large > 4 * small + 1, harmonic, smooth)
    slope = torch.cat([secant[..., :1], inner, secant[..., -1:]], -1)[..., None]
    t = torch.arange(FINER, dtype=values.dtype, device=values.device) / FINER
    start, end = values[..., :-1, None], values[..., 1:, None]
    rise = t * (1 - t) * ((1 - t) * slope[..., :-1, :] - t * slope[..., 1:, :])
    fine = start + (end - start) * t.square() * (3 - 2 * t) + rise
    return torch.cat([fine.flatten(-2), values[..., -1:]], -1)


def _draw_places(weights: Tensor, uniform: Sequence[Tensor]) -> list[Tensor]:
    """Draw places on a grid of weights, [B, P, ...]: [B, N] for each axis, from uniform numbers of that shape."""
    places: list[Tensor] = []
    before, width = torch.zeros_like(uniform[0]), weights.flatten(1).sum(1, keepdim=True).expand_as(uniform[0])
    for axis in range(weights.dim() - 1):
        # The rows of the axes so far, one after another: a place among them is one in its own, those before it known.
        mass = weights.flatten(axis + 2).sum(-1) if axis + 2 < weights.dim() else weights
        mass = mass.flatten(1)
        ends = mass.cumsum(1)
        found = torch.searchsorted(ends, (before + uniform[axis] * width).contiguous()).clamp_max(mass.shape[1] - 1)
        before, width = (ends - mass).gather(1, found), mass.gather(1, found)
        places.append(found % weights.shape[axis + 1])
    return places


def _even(n_genes: int, n_draws: int, like: Tensor, random: torch.Generator) -> Tensor:
    """Uniform numbers, [B, N], of which each gene has one in each of as many strata as a group has draws."""
    parts = []
    for at in groups_of(n_draws):
        n = at.stop - at.start
        uniform = torch.rand(2, n_genes, n, generator=random, dtype=torch.float64, device=like.device)
        parts.append((uniform[0].argsort(1) + uniform[1]) / n)
    return torch.cat(parts, 1)


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
