"""Draw the own deviations of every location from draws of the tables that they add up to."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, align, deviation_sd, shared_design
from vihier.guides.evidence import shared_posterior
from vihier.guides.structure import Plates, Structure
from vihier.kernels.elimination import NaturalParameters, Variances, draw_shared


def draw_shared_deviations(
    structure: Structure, theta: Theta, block: Block, natural: NaturalParameters, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Draw the shared locations' deviations given all genes, their sum for each line, [C, N], and element, [R, N].

    The last is in float64, as `natural` is.
    """
    design = shared_design(structure, block)
    assert design is not None
    posterior = shared_posterior(structure, theta, block, natural)
    totals = draw_shared(posterior, normal_like(posterior.scale, generator)).T
    resolution, coarse = design
    elements = totals[: len(coarse)] + coarse @ totals[len(coarse) :]
    column = elements if resolution is None else resolution @ elements
    like = block.data.square
    return split_shared(structure, theta, block, totals.to(like), generator), column.to(like), elements


Normals = torch.Generator | Callable[[Tensor], Tensor]
"""Where standard normals come from: a generator, or a function of the tensor that they are to be like."""


def normal_like(like: Tensor, generator: Normals) -> Tensor:
    """Draw standard normals in the shape, dtype and device of a tensor."""
    if not isinstance(generator, torch.Generator):
        return generator(like)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def split_shared(
    structure: Structure, theta: Theta, block: Block, totals: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Split the totals of the shared tables, shape [P, N], into the deviations of their locations."""
    sizes = {("line",): block.data.lineage.shape[0], ("lineage",): block.data.lineage.shape[1], (): 1}
    deviations: dict[str, Tensor] = {}
    start = 0
    for plates in SHARED:
        if structure.table(plates):
            part = totals[start : start + sizes[plates]]
            start += sizes[plates]
            deviations |= split_table(structure, plates, theta, block, part if plates else part[0], generator)
    return deviations


def split_genes(
    structure: Structure, theta: Theta, block: Block, dense: Tensor, leaf: Tensor, generator: Normals
) -> dict[str, Tensor]:
    """Split d = (a, m, b), shape [B, D, N], and e, shape [B, C, N], into the deviations of their locations."""
    deviations: dict[str, Tensor] = {}
    start = 0
    n_slots, n_lineages = block.data.count.shape[1], block.data.lineage.shape[1]
    for plates, size in ((("sgrna",), n_slots), (("gene", "lineage"), n_lineages), (("gene",), 1)):
        if structure.table(plates):
            part = dense[:, start : start + size]
            start += size
            total = part[:, 0] if plates == ("gene",) else part
            deviations |= split_table(structure, plates, theta, block, total, generator)
    if structure.table(("gene", "line")):
        deviations |= split_table(structure, ("gene", "line"), theta, block, leaf, generator)
    return deviations


def split_table(
    structure: Structure,
    plates: Plates,
    theta: Theta,
    block: Block,
    total: Tensor,
    generator: Normals,
    design: str = "",
) -> dict[str, Tensor]:
    """Draw the deviations of a table's locations given what they sum to (Matheron's rule)."""
    locations = structure.table(plates, design)
    if len(locations) == 1:
        return {locations[0].name: total / locations[0].reach}
    sds = [deviation_sd(structure, location, theta, block) for location in locations]
    free = [sd * normal_like(total, generator) for sd in sds]
    missing = total - sum(location.reach * x for location, x in zip(locations, free, strict=True))
    variance = sum((location.reach * sd).square() for location, sd in zip(locations, sds, strict=True))
    return {
        location.name: x + location.reach * sd.square() / variance * missing
        for location, x, sd in zip(locations, free, sds, strict=True)
    }


def gene_level(spread: Variances, block: Block) -> tuple[slice, Tensor] | None:
    """Return which columns of d = (a, m, b) a shift of all genes moves, and their prior precisions.

    The latter are [B, N or 1, columns or 1]. None where genes have no table to shift.
    """
    if spread.gene is not None:
        return slice(-1, None), 1.0 / spread.gene[..., None]
    if spread.sgrna is not None:
        filled = block.filled.to(spread.sgrna)[:, None]
        return slice(0, block.data.count.shape[1]), filled / spread.sgrna.transpose(1, 2)
    if spread.gene_lineage is not None:
        return slice(0, None), 1.0 / spread.gene_lineage.transpose(1, 2)
    return None


def shared_columns(structure: Structure, deviations: Theta, block: Block) -> Tensor | None:
    """Add the shared locations' deviations up to the shared part of each line's mean, [C, N]; None where none is."""
    parts = [
        align(location.reach * deviations[location.name], location.plates, ("line",), block)
        for location in structure.locations
        if location.plates in SHARED
    ]
    return reduce(add, parts).expand(block.batch.n_lines, -1) if parts else None
