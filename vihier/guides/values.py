"""From deviations to the values of a program's sites: every location is its parents' sum plus its own deviation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, align, plates_of
from vihier.guides.mixed_model import is_shared
from vihier.guides.structure import Location, Plates, Structure, index_of, to_program


def locations_of(structure: Structure, shared: bool) -> list[Location]:
    """Return the locations shared by genes, or those of genes, parents first."""
    return [location for location in structure.locations if is_shared(location.plates) == shared]


def unpad(values: Tensor, block: Block) -> Tensor:
    """Bring padded sgRNA values, [B, K, N], to the batch's sgRNAs, [Sb, N]."""
    return values[block.batch.gene_of_sgrna, block.slot]


def centre(structure: Structure, locations: Sequence[Location], deviations: Theta, known: Theta, block: Block) -> Theta:
    """Add parents' values and offsets to the deviations of locations, parents first.

    Parameters
    ----------
    deviations : dict
        Own deviations over each table's elements, draws last; sgRNAs not padded.
    known : dict
        Values of the locations that are parents but not among `locations`.
    """
    values = dict(known)
    for location in locations:
        value = deviations[location.name] + location.offset
        for parent, coefficient in location.parents:
            value = value + coefficient * _take(values[parent], plates_of(structure, parent), location.plates, block)
        values[location.name] = value
    return {location.name: values[location.name] for location in locations}


def _take(values: Tensor, parent: Plates, child: Plates, block: Block) -> Tensor:
    if child == ("sgrna",):
        index = index_of(parent, child, block.batch)
        assert index is not None
        return values[index] if parent else values
    return align(values, parent, child, block)


def to_sites(structure: Structure, values: Theta) -> dict[str, Tensor]:
    """Bring tables with draws last to what the program's sites hold, draws first; of a vector, all components."""
    found = {}
    for name, value in values.items():
        site = structure.site(name)
        moved = value.movedim(-1, 0)
        found[name] = to_program_draws(moved, site.plates, site.dims)
    for correlation in structure.correlations:
        if correlation.members[0] in found:
            found[correlation.vector] = torch.stack([found.pop(name) for name in correlation.members], -1)
    return found


def to_program_draws(values: Tensor, plates: Plates, dims: tuple[int, ...]) -> Tensor:
    """Bring draws of a table, draws first, to the dims of the program's plates."""
    if not plates:
        return values
    one = to_program(values[0], plates, dims)
    order = sorted(range(len(plates)), key=lambda i: dims[i])
    return values.permute(0, *(i + 1 for i in order)).reshape(len(values), *one.shape)
