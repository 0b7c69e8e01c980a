"""Draws of what genes share, made from the kept states of chains over the whole screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta
from vihier.guides.deviations import split_table
from vihier.guides.draw_groups import groups_of
from vihier.guides.gene_chains import Said
from vihier.guides.interweave import Sweeper
from vihier.guides.settle_shared import settle_shared
from vihier.guides.streamed_chains import Random, zero_shared
from vihier.guides.structure import Structure
from vihier.inference.threads import in_threads
from vihier.inference.workers import Workers

INNER_SWEEPS = 20
SMALLEST_SD = 1e-6


@dataclass(frozen=True)
class Kept:
    """States of the chains that are kept: shared log-scales, and what the genes said of the shared locations."""

    theta: tuple[Theta, ...]
    said: tuple[Said, ...]

    def __len__(self) -> int:
        return len(self.theta)


def draw_globals(
    structure: Structure, block: Block, kept: Kept, n_draws: int, random: Random, workers: Workers
) -> tuple[Theta, Theta]:
    """Draw the shared log-scales and the deviations of the shared locations.

    Scales that the genes pin are drawn from the Normal with the moments of the kept states. The shared locations and
    their own scales are then drawn given what the genes said in one of these states each, by moves of the exact chain:
    their posteriors are wide where lines or lineages are few, and of no simple shape.

    Parameters
    ----------
    block : Block
        Any block, in float64.
    workers : Workers
        Who draw a part each.

    Returns
    -------
    theta, shared : dict
        Draws last, float64.
    """
    own = {scale.name for scale in structure.scales if scale.plates == ("gene",)}
    names = [scale.name for scale in structure.scales if scale.name not in own]
    pooled = {name: torch.cat([state[name] for state in kept.theta], -1).double() for name in names}
    theta = _matched(pooled, n_draws, random("globals"))
    workers.as_first(*theta.values())
    if not any(location.plates in SHARED for location in structure.locations):
        return theta, {}
    n_states = sum(said.rhs.shape[1] for said in kept.said)
    order = torch.randperm(n_states, generator=random("globals", "order"))

    def of_group(at: slice) -> tuple[Theta, Theta]:
        states = order[torch.arange(at.start, at.stop) % n_states]
        said = Said(*(_columns(name, kept.said, states) for name in ("weight", "rhs", "level_precision", "level_pull")))
        start = {name: value[..., at].clone() for name, value in theta.items()}
        return _settle(structure, block, start, said, lambda *keys: random("globals", at.start, *keys))

    drawn = (
        {name: value.new_zeros(value.shape) for name, value in theta.items()},
        zero_shared(structure, block, n_draws),
    )
    groups = groups_of(n_draws)
    mine = [groups[i] for i in workers.share(len(groups))]
    for at, found in zip(mine, in_threads(of_group, mine, block.slot.device), strict=True):
        for whole, part in zip(drawn, found, strict=True):
            for name, value in whole.items():
                value[..., at] = part[name]
    workers.add_up(*drawn[0].values(), *drawn[1].values())
    return drawn


def _columns(name: str, said: Sequence[Said], states: Tensor) -> Tensor:
    return torch.cat([getattr(each, name) for each in said], -1)[..., states.to(said[0].rhs.device)]


def _settle(structure: Structure, block: Block, theta: Theta, said: Said, random: Random) -> tuple[Theta, Theta]:
    """Move the shared locations and what concerns only them until they have forgotten where they started."""
    sweeper = Sweeper(structure, [block], random)
    settle_shared(sweeper, theta, said, INNER_SWEEPS)
    even = random("even")
    shared = dict(sweeper.shared)
    for plates in SHARED:
        locations = structure.table(plates)
        if len(locations) > 1:
            # What the rows do not tell apart is wide: split evenly over the group.
            total = sum(location.reach * shared[location.name] for location in locations)
            assert isinstance(total, Tensor)
            shared |= split_table(structure, plates, theta, block, total, lambda like: evenly_spread(like, even))
    return theta, shared


def evenly_spread(like: Tensor, random: torch.Generator) -> Tensor:
    """Draw standard normals of which each row, along the last axis, covers the distribution evenly.

    Latin hypercube sampling (McKay et al. 1979, Technometrics 21, 239): one number from each of N strata of equal
    probability, in random order.
    """
    order = torch.rand(like.shape, generator=random, dtype=torch.float64, device=like.device).argsort(-1)
    within = torch.rand(like.shape, generator=random, dtype=torch.float64, device=like.device)
    place = (order + within) / like.shape[-1]
    return torch.special.ndtri(place.clamp(1e-12, 1 - 1e-12)).to(like)


def _matched(pooled: Theta, n_draws: int, random: torch.Generator) -> Theta:
    """Draw from the Normal with the moments of some states, correlations shrunk by what so few states make up."""
    shapes = {name: value.shape[:-1] for name, value in pooled.items()}
    flat = torch.cat([value.reshape(-1, value.shape[-1]) for value in pooled.values()])
    size, n = flat.shape
    centre = flat.mean(1, keepdim=True)
    sd = flat.std(1, keepdim=True).clamp_min(SMALLEST_SD)
    standard = (flat - centre) / sd
    correlation = standard @ standard.T / max(1, n - 1) * (n / (n + size))
    correlation.fill_diagonal_(1.0)
    chol = torch.linalg.cholesky(correlation)
    noise = torch.cat(
        [evenly_spread(flat.new_empty(size, len(range(n_draws)[at])), random) for at in groups_of(n_draws)], 1
    )
    drawn = centre + sd * (chol @ noise)
    parts = drawn.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.reshape(*shape, n_draws) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
