"""The gene x line table of chains drawn once more given all else, after their scales have moved."""

from __future__ import annotations

import torch
from torch import Tensor

from vihier.guides.block import Theta, noise_variance, table_variance
from vihier.guides.gene_chains import GeneChains
from vihier.guides.structure import Location


def leaf_given_rest(chains: GeneChains, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and sd of e, the gene x line table, given all else, [B, C, N], and how little of a change the rows undo.

    The last is 1 / (1 + tau v N[c]): where the rest of a line's mean moves by one, the mean of e moves against it, and
    of their sum so much is left.
    """
    noise = noise_variance(chains.structure, theta, chains.block)
    variance = table_variance(chains.structure, ("gene", "line"), theta, chains.block)
    assert variance is not None
    relative = variance / noise
    shrink = (1.0 + relative * chains.cell_count).reciprocal()
    location = leaf_of(chains)
    left = torch.addcmul(chains.residual, chains.cell_count, location.reach * chains.deviations[location.name])
    return relative * shrink * left, (variance * shrink).sqrt(), shrink


def leaf_of(chains: GeneChains) -> Location:
    """Return the one location of the table."""
    (location,) = chains.structure.table(("gene", "line"))
    return location


def take_leaf(chains: GeneChains, leaf: Tensor) -> None:
    """Put e, [B, C, N], in the place of what it was."""
    location = leaf_of(chains)
    chains.move_location(location, leaf / location.reach - chains.deviations[location.name])
