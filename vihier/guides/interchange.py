"""Swaps of scales that the rows cannot tell apart: two locations that enter every row together, as a sum.

Where both have one prior the posterior is symmetric and has two humps, between which no small step leads. The locations
are then integrated over given their sum, of which the density stays the same when their scales trade places; what
changes is the scales' own prior.
"""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, scale_log_prior
from vihier.guides.scale_terms import children_of, users_of
from vihier.guides.structure import Scale, Structure

Pairs = tuple[tuple[Scale, Scale], ...]


def interchangeable(structure: Structure) -> list[Pairs]:
    """Return which scales can trade places, each with the scales of scales that do so along with it."""
    found = []
    for first, second in combinations(structure.scales, 2):
        families = _family(structure, first), _family(structure, second)
        alike = [x.plates for x in families[0]] == [x.plates for x in families[1]]
        if alike and not {first.name, second.name} & set(structure.of_rows) and _same_table(structure, first, second):
            found.append(tuple(zip(*families, strict=True)))
    return found


def _same_table(structure: Structure, first: Scale, second: Scale) -> bool:
    """Whether two scales are each of one location, and a row's variance has both in the same way."""
    users = users_of(structure, first), users_of(structure, second)
    if [len(x) for x in users] != [1, 1]:
        return False
    (one,), (other,) = users
    same = (one.plates, one.design) == (other.plates, other.design)
    return same and abs(one.reach * one.factor) == abs(other.reach * other.factor)


def _family(structure: Structure, scale: Scale) -> list[Scale]:
    """Return a scale and, where it is the only child of a scale of no location, that one."""
    for source in scale.sources:
        parent = structure.site(source)
        if isinstance(parent, Scale) and not users_of(structure, parent) and children_of(structure, parent) == [scale]:
            return [scale, parent]
    return [scale]


def swap(structure: Structure, theta: Theta, pairs: Pairs, block: Block, generator: torch.Generator) -> Theta:
    """Swap scales in every other chain, at random, where their prior lets it (Metropolis).

    Parameters
    ----------
    theta : dict
        Log-scales of the whole screen, draws last. What locations they scale must be drawn again from their sum.
    """
    swapped = dict(theta)
    for first, second in pairs:
        swapped[first.name], swapped[second.name] = theta[second.name], theta[first.name]
    members = [scale for pair in pairs for scale in pair]
    asked = {x.name: x for scale in members for x in (scale, *children_of(structure, scale))}

    def prior(at: Theta) -> Tensor:
        parts = [scale_log_prior(structure, scale, at, block) for scale in asked.values()]
        return reduce(add, (part.reshape(-1, part.shape[-1]).sum(0) for part in parts))

    gain = prior(swapped) - prior(theta)
    coin, chance = torch.rand((2, *gain.shape), generator=generator, dtype=gain.dtype, device=gain.device)
    accept = (coin < 0.5) & (chance.log() < gain)
    return {**theta, **{x.name: torch.where(accept, swapped[x.name], theta[x.name]) for x in members}}
