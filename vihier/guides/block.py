"""A gene block as the structured guide sees it: its cells, and the variances that given scales mean for its tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from pyro.distributions import HalfNormal
from torch import Tensor

from vihier.guides.structure import Location, Plates, Scale, Structure, index_of
from vihier.kernels.cells import GeneData, gene_data
from vihier.kernels.elimination import Variances
from vihier.kernels.rows import ROW_DTYPE, CountTable, RowTable, row_table
from vihier.models.batch import Batch
from vihier.models.counts import COUNTS, EXPECTED

Theta = dict[str, Tensor]
"""Log-scales by site, each over its plates and then N draws; those of genes cover a block's genes."""


@dataclass(frozen=True)
class Block:
    """A batch of whole genes with its sufficient statistics.

    `slot` [Sb] is each sgRNA's place among its gene's, `member` [B, K] the sgRNA in each place (0 where there is none,
    `filled` says where there is one). `rows` are the rows themselves where sums over cells do not say all: where they
    are not Normal with one noise scale.
    """

    batch: Batch
    data: GeneData
    slot: Tensor
    member: Tensor
    filled: Tensor
    rows: RowTable | None = None


def make_block(structure: Structure, batch: Batch) -> Block:
    """Sum a batch's rows into the cells that the structure needs.

    Where no table is indexed by sgRNA, all rows of a gene and line are one cell.
    """
    of_sgrna = batch.gene_of_sgrna
    n_genes, n_sgrnas = len(batch.gene_idx), len(of_sgrna)
    device = of_sgrna.device
    order = torch.argsort(of_sgrna, stable=True)
    per_gene = torch.bincount(of_sgrna, minlength=n_genes)
    first = torch.cumsum(per_gene, 0) - per_gene
    slot = torch.empty_like(of_sgrna)
    slot[order] = torch.arange(n_sgrnas, device=device) - first[of_sgrna[order]]
    n_slots = int(per_gene.max())
    member = torch.zeros(n_genes, n_slots, dtype=torch.long, device=device)
    member[of_sgrna, slot] = torch.arange(n_sgrnas, device=device)
    filled = torch.arange(n_slots, device=device) < per_gene[:, None]
    assert batch.lfc is not None
    if structure.table(("sgrna",)):
        row_slot = slot[batch.sgrna]
    else:
        row_slot, n_slots = torch.zeros_like(batch.sgrna), 1
    dtype = batch.lfc.dtype
    lineage = torch.zeros(batch.n_lines, 0, dtype=dtype, device=device)
    if batch.lineages_of_lines is not None:
        lineage = torch.nn.functional.one_hot(batch.lineage_of_line, batch.n_lineages).to(dtype)
    shape = (n_genes, n_slots, batch.n_lines)
    counts, lfc = None, batch.lfc
    if structure.counts is not None:
        reads, expected = batch.covariates[COUNTS], batch.covariates[EXPECTED]
        lfc = ((reads + 0.5) / expected).log2()
        offset = torch.full_like(lfc, structure.row_offset)
        floats = [x.to(ROW_DTYPE) for x in (reads, expected.log(), offset)]
        counts = CountTable(floats[0], floats[1], floats[2], batch.gene, batch.sgrna_idx[batch.sgrna])
    lfc = lfc - structure.row_offset
    data = gene_data(batch.gene, row_slot, batch.line, lfc, shape, lineage)
    if structure.is_plain:
        return Block(batch, data, slot, member, filled)
    cell = (batch.gene * n_slots + row_slot) * batch.n_lines + batch.line
    noise = _row_elements(structure, structure.noise, batch)
    freedom = None if structure.freedom is None else _row_elements(structure, structure.freedom.source, batch)
    return Block(batch, data, slot, member, filled, row_table(cell, lfc, noise, freedom, shape, counts))


def _row_elements(structure: Structure, scale: str | None, batch: Batch) -> Tensor | None:
    """Which element of a scale each row has, [n]; None where all have one."""
    plates = () if scale is None else plates_of(structure, scale)
    return batch.rows_in(plates[0]) if plates else None


def take_genes(block: Block, genes: Tensor) -> Block:
    """Return the part of a block that some of its genes make, by position; it holds no rows."""
    n_slots = int(block.filled[genes].sum(1).max())
    padded = min(n_slots, block.data.count.shape[1])
    position = torch.full_like(block.batch.gene_idx, -1)
    position[genes] = torch.arange(len(genes), device=genes.device)
    sgrnas = (position[block.batch.gene_of_sgrna] >= 0).nonzero()[:, 0]
    renumbered = torch.zeros_like(block.slot)
    renumbered[sgrnas] = torch.arange(len(sgrnas), device=genes.device)
    none = block.slot[:0]
    batch = replace(
        block.batch,
        gene_idx=block.batch.gene_idx[genes],
        sgrna_idx=block.batch.sgrna_idx[sgrnas],
        gene_of_sgrna=position[block.batch.gene_of_sgrna[sgrnas]],
        gene=none,
        sgrna=none,
        line=none,
        lfc=None,
        covariates={},
        replicate=None,
    )
    data = replace(
        block.data,
        count=block.data.count[genes, :padded],
        total=block.data.total[genes, :padded],
        pairs=None if block.data.pairs is None else block.data.pairs[genes, : padded * (padded + 1) // 2],
        square=block.data.square[genes],
    )
    member = renumbered[block.member[genes, :n_slots]]
    rows = None if block.rows is None else block.rows.take_genes(genes, padded)
    return Block(batch, data, block.slot[sgrnas], member, block.filled[genes, :n_slots], rows)


def in_single(block: Block) -> Block:
    """Return a block with its sufficient statistics in float32."""
    return replace(block, data=block.data.to(torch.float32))


def split_by_sgrnas(block: Block, most_cells: int, waste: float = 1.15) -> list[Block]:
    """Split a block so that no gene is padded to more than `waste` times its number of sgRNAs, and one.

    One gene with 19 sgRNAs would otherwise have all others computed as if they had 19. No part has more than about
    `most_cells` pairs of a gene and a line, so that several can be worked on at once. The parts hold no rows.
    """
    per_gene = block.filled.sum(1)
    parts = []
    left = per_gene > 0
    while bool(left.any()):
        chosen = left & (per_gene * waste + 1 >= per_gene[left].max())
        left &= ~chosen
        genes = chosen.nonzero()[:, 0]
        n_parts = -(-len(genes) * block.batch.n_lines // most_cells)
        parts += [take_genes(block, some) for some in genes.tensor_split(n_parts)]
    return parts


def align(values: Tensor, parent: Plates, child: Plates, block: Block) -> Tensor:
    """Bring a table over `parent`, draws last, to the elements of `child`, draws last.

    The elements of `("sgrna",)` are the padded ones, [B, K]; every axis that the parent does not vary over has size 1.
    """
    if not parent:
        return values[(None,) * (len(child) + (child == ("sgrna",)))]
    if child == ("sgrna",):
        return values[:, None] if parent == ("gene",) else values[block.member]
    index = index_of(parent, child, block.batch)
    assert index is not None
    if parent == child:
        return values
    missing = [axis for axis in range(len(child)) if all(i.shape[axis] == 1 for i in index)]
    aligned = values[index]
    assert all(aligned.shape[axis] == 1 for axis in missing)
    return aligned


def deviation_sd(structure: Structure, location: Location, theta: Theta, block: Block) -> Tensor:
    """Prior sd of a location's own deviation over its table's elements, draws last."""
    if location.scale is None:
        n_draws = next(iter(theta.values())).shape[-1]
        constant = next(iter(theta.values())).new_full((n_draws,), location.factor)
        return align(constant, (), location.plates, block)
    return location.factor * align(
        theta[location.scale].exp(), plates_of(structure, location.scale), location.plates, block
    )


def plates_of(structure: Structure, site: str) -> Plates:
    """Return the plates of a location or scale."""
    return structure.site(site).plates


def table_variance(structure: Structure, plates: Plates, theta: Theta, block: Block, design: str = "") -> Tensor | None:
    """Variance that all locations of a table together give a row's mean; None where there are none."""
    total: Tensor | None = None
    for location in structure.table(plates, design):
        variance = (location.reach * deviation_sd(structure, location, theta, block)).square()
        total = variance if total is None else total + variance
    return total


def noise_variance(structure: Structure, theta: Theta, block: Block) -> Tensor:
    """Variance of rows around their mean for N draws, [N]; 1 where each row is weighted by its own precision."""
    n_draws = next(iter(theta.values())).shape[-1]
    if not structure.is_plain:
        return block.data.square.new_ones(n_draws)
    noise = block.data.square.new_full((n_draws,), structure.noise_factor)
    if structure.noise is not None:
        noise = noise * theta[structure.noise].exp()
    return noise.square()


def variances(structure: Structure, theta: Theta, block: Block) -> Variances:
    """Return the prior variances of a block's tables for N draws of the scales."""
    return Variances(
        noise=noise_variance(structure, theta, block),
        sgrna=table_variance(structure, ("sgrna",), theta, block),
        gene=table_variance(structure, ("gene",), theta, block),
        gene_lineage=table_variance(structure, ("gene", "lineage"), theta, block),
        gene_line=table_variance(structure, ("gene", "line"), theta, block),
    )


SHARED: tuple[Plates, ...] = (("line",), ("lineage",), ())


def shared_design(structure: Structure, block: Block) -> tuple[Tensor | None, Tensor] | None:
    """Return the resolution at which genes see what they share, and what makes it up; None where they share nothing.

    Both are in float64, as all is that concerns several genes at once.

    Returns
    -------
    resolution : Tensor or None
        One-hot, shape [C, R]; None where every line has its own element.
    coarse : Tensor
        Shape [R, P - R]: the elements of the coarser shared tables that each element is also a sum of.
    """
    lineage = block.data.lineage.double()
    ones = lineage.new_ones(len(lineage), 1)
    present = [plates for plates in SHARED if structure.table(plates)]
    if not present:
        return None
    if present[0] == ("line",):
        resolution, columns = None, {("lineage",): lineage, (): ones}
    elif present[0] == ("lineage",):
        resolution, columns = lineage, {(): lineage.new_ones(lineage.shape[1], 1)}
    else:
        resolution, columns = ones, {}
    coarse = [columns[plates] for plates in present[1:]]
    n_elements = len(lineage) if resolution is None else resolution.shape[1]
    return resolution, torch.cat([lineage.new_zeros(n_elements, 0), *coarse], 1)


def shared_sd(structure: Structure, theta: Theta, block: Block) -> Tensor:
    """Prior sds of the shared elements, shape [N, P], in the order of `shared_design`."""
    n_draws = next(iter(theta.values())).shape[-1]
    parts = [block.data.square.new_zeros(0, n_draws)]
    sizes: dict[Plates, int] = {("line",): block.data.lineage.shape[0], ("lineage",): block.data.lineage.shape[1]}
    for plates in SHARED:
        variance = table_variance(structure, plates, theta, block)
        if variance is not None:
            parts.append(variance.sqrt().expand(sizes[plates], n_draws) if plates else variance.sqrt()[None])
    return torch.cat(parts).T


def scale_log_prior(structure: Structure, scale: Scale, theta: Theta, block: Block) -> Tensor:
    """Log prior density of a site's log-scales, over its plates and N draws.

    In log space, x = log(scale) has the density of the scale times the scale.
    """
    x = theta[scale.name]
    # Nearly every scale is half-Normal, and slices ask for its density often.
    if scale.family is HalfNormal and not scale.arguments[0].logarithm:
        (argument,) = scale.arguments
        standard = x - math.log(argument.factor)
        if argument.source is not None:
            source = _around(theta[argument.source], plates_of(structure, argument.source), scale.plates, block)
            standard = standard - source
        return standard - 0.5 * (2 * standard).exp() + 0.5 * math.log(2 / math.pi)
    arguments = {}
    for argument in scale.arguments:
        if argument.source is None:
            arguments[argument.name] = x.new_full((), argument.factor)
        else:
            plates = plates_of(structure, argument.source)
            arguments[argument.name] = argument.value_at(_around(theta[argument.source], plates, scale.plates, block))
    prior = scale.family(**arguments, validate_args=False)
    return prior.log_prob(x.exp()) + x


def _around(values: Tensor, parent: Plates, child: Plates, block: Block) -> Tensor:
    """Bring a scale to the elements of one around it; tables of scales by sgRNA are of the whole screen, [S, ...]."""
    return values[None] if child == ("sgrna",) else align(values, parent, child, block)


def of_genes(structure: Structure, theta: Theta, batch: Batch) -> Theta:
    """Return the log-scales that a batch has: those of its genes, and all shared ones."""
    return {
        scale.name: theta[scale.name][batch.gene_idx] if scale.plates == ("gene",) else theta[scale.name]
        for scale in structure.scales
    }
