"""Draws of a posterior as prior variances and own deviations of a program's tables; draws first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vihier.guides.mixed_model import Location, Plates, Structure, from_program, index_of
from vihier.inference.draws import Draws
from vihier.kernels import gene_conditional as kernel
from vihier.models.batch import Batch


@dataclass(frozen=True)
class GenePriors:
    """Prior variances of a block's tables, draws first: [N, Sb], [N, B], [N, B, L], [N, B, C]."""

    tables: dict[Plates, Tensor]
    batch: Batch

    @classmethod
    def of(cls, structure: Structure, values: Draws, batch: Batch) -> GenePriors:
        """Take draws of all sites, draws first."""
        tables: dict[Plates, Tensor] = {}
        for plates in (("sgrna",), ("gene",), ("gene", "lineage"), ("gene", "line")):
            for location in structure.table(plates):
                variance = deviation_variance(structure, location, values, batch)
                tables[plates] = variance + tables[plates] if plates in tables else variance
        return cls(tables, batch)

    def gene(self, gene: int) -> kernel.GenePrior:
        """Return those of one gene, draws last."""
        tables = self.tables
        sgrnas = (self.batch.gene_of_sgrna == gene).nonzero()[:, 0]
        of_gene = {plates: table[:, gene].movedim(0, -1) for plates, table in tables.items() if plates[0] == "gene"}
        return kernel.GenePrior(
            sgrna=tables[("sgrna",)][:, sgrnas].T if ("sgrna",) in tables else None,
            gene=of_gene.get(("gene",)),
            gene_lineage=of_gene.get(("gene", "lineage")),
            gene_line=of_gene.get(("gene", "line")),
            lineage=self.batch.lineages_of_lines,
        )


def deviation_variance(
    structure: Structure, location: Location, values: Draws, batch: Batch, *, reach: bool = True
) -> Tensor:
    """Prior variance of a location's own deviation, or that it gives a row's mean, draws first, over its plates."""
    sizes = {"sgrna": len(batch.sgrna_idx), "gene": len(batch.gene_idx)}
    sizes |= {plate: batch.size_of(plate) for plate in location.plates if plate not in sizes}
    n_draws = len(next(iter(values.values())))
    shape = (n_draws, *(sizes[plate] for plate in location.plates))
    sd = torch.full((n_draws, *(1 for _ in location.plates)), location.factor, dtype=torch.float64)
    if location.scale is not None:
        sd = location.factor * _gathered(structure, location.scale, location.plates, values, batch)
    return (location.reach * sd if reach else sd).square().expand(shape)


def _gathered(structure: Structure, source: str, child: Plates, values: Draws, batch: Batch) -> Tensor:
    """Bring draws of a site to the elements of another table, draws first."""
    site = structure.site(source)
    tables = torch.vmap(lambda value: from_program(value, site.plates, site.dims))(values[source])
    index = index_of(site.plates, child, batch)
    assert index is not None
    everything: tuple[Any, ...] = (slice(None), *index)
    found = tables[everything] if index else tables
    return found.reshape(len(found), *found.shape[1:], *(1 for _ in range(len(child) - found.dim() + 1)))


def shared_part(structure: Structure, values: Draws, batch: Batch) -> Tensor:
    """Sum of the own deviations of what genes share in each line, [N, C]."""
    n_draws = len(next(iter(values.values())))
    total = torch.zeros(n_draws, batch.n_lines, dtype=torch.float64)
    for location in structure.locations:
        if set(location.plates) & {"gene", "sgrna"}:
            continue
        total = total + location.reach * deviation_draws(structure, location, values, batch, ("line",))
    return total


def deviation_draws(
    structure: Structure, location: Location, values: Draws, batch: Batch, child: Plates | None = None
) -> Tensor:
    """Return a location's own deviation, draws first, over its plates or the elements of another table."""
    child = location.plates if child is None else child
    deviation = _gathered(structure, location.name, child, values, batch) - location.offset
    for parent, coefficient in location.parents:
        deviation = deviation - coefficient * _gathered(structure, parent, child, values, batch)
    return deviation
