"""Draw the own deviations of every location from draws of the tables that they add up to."""

from __future__ import annotations

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, deviation_sd, shared_design
from vihier.guides.evidence import shared_posterior
from vihier.guides.structure import Plates, Structure
from vihier.kernels.elimination import NaturalParameters, Variances, draw_shared
from vihier.kernels.shared_tree import SharedVariances


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


def normal_like(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normals in the shape, dtype and device of a tensor."""
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
    structure: Structure, theta: Theta, block: Block, dense: Tensor, leaf: Tensor, generator: torch.Generator
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
    structure: Structure, plates: Plates, theta: Theta, block: Block, total: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the deviations of a table's locations given what they sum to (Matheron's rule)."""
    locations = structure.table(plates)
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


def shift_genes(
    spread: Variances,
    dense: Tensor,
    tables: list[Tensor],
    shared: SharedVariances,
    filled: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Shift a table of all genes up and the coarsest shared one down: only their priors have a say.

    Parameters
    ----------
    spread, dense
        Variances of the genes' tables, and draws of d, [B, N, D].
    tables : list of Tensor
        Shared deviations over lines, lineages and nothing; the coarsest that there is gets the shift taken off.
    shared : SharedVariances
        Their variances.
    filled : Tensor
        Which places of [B, K, 1] have an sgRNA.

    Returns
    -------
    dense, shift
        d after the shift, and the shift, [N].
    """
    prior = (shared.line, shared.lineage, shared.top)
    at = max(i for i, variance in enumerate(prior) if variance is not None)
    top, top_variance = tables[at], prior[at]
    n_slots = filled.shape[1]
    if spread.gene is not None:
        columns, present = slice(dense.shape[-1] - 1, None), None
        part, variance = dense[..., columns], spread.gene[..., None]
    elif spread.sgrna is not None:
        columns, present = slice(0, n_slots), filled.transpose(1, 2)
        part, variance = dense[..., columns], spread.sgrna.transpose(1, 2)
    elif spread.gene_lineage is not None:
        columns, present = slice(0, None), None
        part, variance = dense, spread.gene_lineage.transpose(1, 2)
    else:
        return dense, torch.zeros_like(tables[2])
    assert top_variance is not None
    weights = torch.ones_like(part) / variance if present is None else present / variance.expand_as(part)
    top_weights = torch.ones_like(top) / top_variance
    over = (0,) if top.dim() == 2 else ()
    precision = weights.sum((0, 2)) + (top_weights.sum(over) if over else top_weights)
    pull = (top * top_weights).sum(over) if over else top * top_weights
    mean = (pull - (part * weights).sum((0, 2))) / precision
    shift = mean + precision.rsqrt() * normal_like(mean, generator)
    tables[at] = top - shift
    moved = dense.clone()
    moved[..., columns] += shift[:, None]
    return moved, shift
