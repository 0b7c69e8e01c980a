"""What moves of scales ask of locations and other scales: who uses whom, counts and squares by element, densities."""

from __future__ import annotations

import math

import torch
from pyro.distributions import HalfCauchy, HalfNormal
from torch import Tensor

from vihier.guides.block import Block, Theta, deviation_sd, plates_of, scale_log_prior
from vihier.guides.structure import Location, Plates, Scale, Structure

SCALE_FAMILIES = (HalfNormal, HalfCauchy)
"""Priors that stay the same when a scale and what it is around grow by one factor, and are wide in its logarithm."""


def children_of(structure: Structure, scale: Scale) -> list[Scale]:
    """Return the scales in whose prior a scale is."""
    return [child for child in structure.scales if scale.name in child.sources]


def users_of(structure: Structure, scale: Scale) -> list[Location]:
    """Return the locations whose deviations a scale scales."""
    return [location for location in structure.locations if location.scale == scale.name]


def element_sums(plates: Plates, cells: Tensor, block: Block) -> Tensor:
    """Sum a quantity of each gene and line, [B, C, ...], over the elements of a table of genes' columns."""
    if plates == ("gene", "line"):
        return cells
    return cells.sum(1) if plates == ("gene",) else block.data.lineage.T @ cells


def sum_to(child: Plates, parent: Plates, values: Tensor, block: Block) -> Tensor:
    """Sum a table's elements, any axes after them, by the element of `parent` that each belongs to."""
    if child == parent:
        return values
    axes = tuple(range(len(child) + (child == ("sgrna",))))
    if parent == ():
        return values.sum(axes)
    if parent == ("gene",):
        return values.sum(axes[1:])
    if child[0] == "gene":
        values, child = values.sum(0), child[1:]
    if child == ("replicate",):
        zeros = values.new_zeros(block.batch.size_of("line_screen"), *values.shape[1:])
        values, child = zeros.index_add(0, block.batch.line_screen_of_replicate, values), ("line_screen",)
    return values if child == parent else torch.tensordot(block.data.lineage.T.to(values), values, 1)


def sum_scales(child: Plates, parent: Plates, values: Tensor, block: Block) -> Tensor:
    """Sum a table of scales as `sum_to` does; those by sgRNA are of the whole screen, [S, ...]."""
    return values.sum(0) if (child, parent) == (("sgrna",), ()) else sum_to(child, parent, values, block)


def at_points(theta: Theta) -> Theta:
    """Give log-scales, draws last, an axis before it that holds the points of a slice sampler, [..., 1, N]."""
    return {name: value.unsqueeze(-2) for name, value in theta.items()}


def log_prior(structure: Structure, theta: Theta, scale: Scale, x: Tensor, block: Block) -> Tensor:
    """Log prior of a scale's elements at points x, [..., P, N], with that of the scales in whose prior they are."""
    at = {**at_points(theta), scale.name: x}
    total = scale_log_prior(structure, scale, at, block)
    for child in children_of(structure, scale):
        prior = scale_log_prior(structure, child, at, block)
        total = total + sum_scales(child.plates, scale.plates, prior, block)
    return total


def number_of(structure: Structure, block: Block, location: Location) -> Tensor:
    """Count a location's elements by element of its scale, draws last (one)."""
    if location.plates == ("sgrna",):
        one = block.filled[..., None].to(block.data.square)
    else:
        sizes = {"gene": block.data.count.shape[0], "line": block.data.count.shape[2]}
        sizes |= {plate: block.batch.size_of(plate) for plate in location.plates if plate not in sizes}
        one = block.data.square.new_ones(*(sizes[plate] for plate in location.plates), 1)
    return sum_to(location.plates, plates_of_scale(structure, location), one, block)


def squares_of(structure: Structure, block: Block, location: Location, deviations: Tensor) -> Tensor:
    """Sum a location's squared deviations by element of its scale."""
    squares = deviations.square()
    if location.plates == ("sgrna",):
        squares = squares * block.filled[..., None].to(squares)
    return sum_to(location.plates, plates_of_scale(structure, location), squares, block)


def plates_of_scale(structure: Structure, location: Location) -> Plates:
    """Return the plates of the scale of a location that has one."""
    assert location.scale is not None
    return plates_of(structure, location.scale)


def standardised(
    structure: Structure, theta: Theta, location: Location, counted: tuple[Tensor, Tensor], scale: Scale, block: Block
) -> tuple[Tensor, Tensor]:
    """Count and sum the squares of a location's standardised deviations by element of a scale.

    `counted` are `number_of` and `squares_of` the location.
    """
    assert location.scale is not None
    own = plates_of_scale(structure, location)
    squares = counted[1] * (-2 * theta[location.scale]).exp() / location.factor**2
    return sum_to(own, scale.plates, counted[0], block), sum_to(own, scale.plates, squares, block)


def log_density_of(structure: Structure, theta: Theta, block: Block, location: Location, deviations: Tensor) -> Tensor:
    """Log prior density of a location's deviations, summed over its elements, [N]; sgRNAs padded."""
    sd = deviation_sd(structure, location, theta, block)
    density = -0.5 * (deviations / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)
    if location.plates == ("sgrna",):
        density = density * block.filled.to(density)[..., None]
    return density.double().reshape(-1, density.shape[-1]).sum(0)
