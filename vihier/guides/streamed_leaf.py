"""How the gene x line table of a program follows from all else, as a posterior file says it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vihier.guides.block import Block
from vihier.guides.structure import Structure
from vihier.inference.sites import FILE_DIMS
from vihier.models.batch import Batch
from vihier.posterior.linear_forms import LinearForm, Places, Term
from vihier.posterior.regeneration import Cells, Regeneration

EXACT = 1e-12


def regeneration_of(structure: Structure, variables: Mapping[str, LinearForm], seed: int) -> Regeneration | None:
    """Say how draws of a program's gene x line table are made from draws of all else; None where it has not just one.

    Where rows are not Normal with one noise scale it does not follow from all else, and its draws are kept.

    Parameters
    ----------
    variables : mapping
        Other variables over genes and lines, as sums.
    seed : int
        Of the noise.
    """
    leaves = structure.table(("gene", "line"))
    if len(leaves) != 1:
        return None
    leaf = leaves[0]
    scale = None if leaf.scale is None else structure.site(leaf.scale)
    if scale is not None and scale.plates == ("line",):
        return None
    rest = []
    for location in structure.locations:
        through = sum(
            coefficient * child.reach
            for child in structure.locations
            for parent, coefficient in child.parents
            if parent == location.name
        )
        direct = location.reach - through
        if location is not leaf and abs(direct) > EXACT:
            rest.append(Term(location.name, round(direct, 12)))
    offset = structure.row_offset - sum(location.reach * location.offset for location in structure.locations)
    return Regeneration(
        leaf=leaf.name,
        coefficient=leaf.reach,
        mean=LinearForm(leaf.offset, tuple(Term(*parent) for parent in leaf.parents)),
        sd=(leaf.scale, leaf.factor),
        noise=(structure.noise, structure.noise_factor),
        rest=LinearForm(round(offset, 12), tuple(rest)),
        variables={leaf.name: LinearForm(0.0, (Term(leaf.name, 1.0),)), **variables},
        seed=seed,
        kept=not structure.is_plain,
    )


def dims_in_file(structure: Structure, name: str) -> tuple[str, ...]:
    """Dims that a posterior file gives a location or scale."""
    return tuple(FILE_DIMS.get(plate, plate) for plate in structure.site(name).plates)


def places_of(batch: Batch) -> Places:
    """Return a batch's genes and sgRNAs, and all lines, as places."""
    lineages = None if batch.lineages_of_lines is None else batch.lineages_of_lines.cpu().numpy()
    return Places(
        genes=batch.gene_idx.cpu().numpy(),
        lines=np.arange(batch.n_lines),
        sgrnas=batch.sgrna_idx.cpu().numpy(),
        gene_of_sgrna=batch.gene_of_sgrna.cpu().numpy(),
        lineage_of_line=lineages,
        lineage_of_all=lineages,
    )


def cells_of(block: Block) -> Cells:
    """Return a block's cells as a posterior file has them; counts by sgRNA mean nothing where no table is of sgRNAs."""
    data, batch = block.data, block.batch
    count = data.count[batch.gene_of_sgrna, block.slot % data.count.shape[1]].cpu().numpy()
    line_count = data.line_count[..., 0].cpu().numpy().astype(np.uint16)
    return Cells(data.line_total[..., 0].cpu().numpy().astype(np.float32), count, line_count)
