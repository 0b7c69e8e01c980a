"""Programs of the structured guide's family: the models, and two that say the same sort of thing in other words."""

from __future__ import annotations

import pyro
import pyro.distributions as dist

from vihier.models.batch import Batch
from vihier.models.program import load_program


def renamed(batch: Batch) -> None:
    """`additive` with other names, lines at dim -2 and genes at dim -1, and means of genes in the interaction."""
    noise = pyro.sample("noise", dist.HalfNormal(3.0))
    top = pyro.sample("top", dist.Normal(0.0, 3.0))
    spread = pyro.sample("spread", dist.HalfNormal(3.0))
    reagent_hyper = pyro.sample("reagent_hyper", dist.HalfNormal(3.0))
    cell_top = pyro.sample("cell_top", dist.Normal(0.0, 3.0))
    cell_spread = pyro.sample("cell_spread", dist.HalfNormal(3.0))
    cell_hyper = pyro.sample("cell_hyper", dist.HalfNormal(3.0))
    pair_top = pyro.sample("pair_top", dist.Normal(0.0, 5.0))
    pair_spread = pyro.sample("pair_spread", dist.HalfNormal(1.0))
    pair_hyper = pyro.sample("pair_hyper", dist.HalfNormal(1.0))
    lines = pyro.plate("line", batch.n_lines, dim=-2)
    with pyro.plate("lineage", batch.n_lineages, dim=-2):
        tissue = pyro.sample("tissue", dist.Normal(cell_top, cell_spread))
        tissue_sd = pyro.sample("tissue_sd", dist.HalfNormal(cell_hyper))
    with lines:
        of_line = batch.lineage_of_line
        cell = pyro.sample("cell", dist.Normal(tissue[of_line], tissue_sd[of_line]))
    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-1), batch.gene_of_sgrna
        with genes:
            gene_mean = pyro.sample("gene_mean", dist.Normal(top, spread))
            reagent_sd = pyro.sample("reagent_sd", dist.HalfNormal(reagent_hyper))
            pair_mean = pyro.sample("pair_mean", dist.Normal(pair_top, pair_spread))
            pair_sd = pyro.sample("pair_sd", dist.HalfNormal(pair_hyper))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            reagent = pyro.sample("reagent", dist.Normal(gene_mean[of_sgrna], reagent_sd[of_sgrna]))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(pair_mean, pair_sd))
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = reagent[batch.sgrna] + cell[batch.line, 0] + pair[batch.line, batch.gene]
            pyro.sample("value", dist.Normal(mean, noise), obs=batch.lfc)


def constants(batch: Batch) -> None:
    """Offsets, factors and coefficients everywhere; known sds; a scale that two locations and the rows share."""
    noise = pyro.sample("noise", dist.HalfCauchy(2.0))
    hyper = pyro.sample("hyper", dist.Exponential(0.5))
    top = pyro.sample("top", dist.Normal(-0.5, 2.0))
    with pyro.plate("line", batch.n_lines, dim=-1):
        line_sd = pyro.sample("line_sd", dist.HalfNormal(0.5 * hyper))
        line = pyro.sample("line_mean", dist.Normal(0.25 + top / 3, 1.5 * line_sd))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            gene_sd = pyro.sample("gene_sd", dist.Gamma(2.0, 3.0))
            gene = pyro.sample("gene_mean", dist.Normal(1.0 - 2 * top, noise))
            late = pyro.sample("late", dist.Normal(0.5 * gene, 0.7))
        with genes, pyro.plate("lineage", batch.n_lineages, dim=-1):
            tissue = pyro.sample("tissue", dist.Normal(gene - late, 2 * gene_sd))
        with pyro.plate("row", len(batch.gene), dim=-1):
            of_line = batch.lineage_of_line[batch.line]
            mean = 0.1 - 0.5 * line[batch.line] + 2 * tissue[batch.gene, of_line] + late[batch.gene, 0]
            pyro.sample("value", dist.Normal(mean, 0.8 * noise), obs=batch.lfc)


def deep(batch: Batch) -> None:
    """Scales in three levels, one that the rows and scales share, one of two tables, one that nothing uses."""
    grand = pyro.sample("grand", dist.HalfNormal(1.0))
    middle = pyro.sample("middle", dist.HalfNormal(grand))
    noise = pyro.sample("noise", dist.HalfCauchy(grand))
    pyro.sample("unused", dist.HalfNormal(2.0))
    lines = pyro.plate("line", batch.n_lines, dim=-1)
    lineages, of_line = pyro.plate("lineage", batch.n_lineages, dim=-1), batch.lineage_of_line
    with lineages:
        tissue_sd = pyro.sample("tissue_sd", dist.HalfNormal(1.0))
    with lines:
        line_sd = pyro.sample("line_sd", dist.HalfCauchy(middle))
        line_mean = pyro.sample("line_mean", dist.Normal(0.1, line_sd))
    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        with genes:
            gene_sd = pyro.sample("gene_sd", dist.HalfNormal(middle))
            gene_mean = pyro.sample("gene_mean", dist.Normal(0.2, 1.0))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            first = pyro.sample("first", dist.Normal(gene_mean[of_sgrna, 0], gene_sd[of_sgrna, 0]))
            second = pyro.sample("second", dist.Normal(0.0, 0.5 * gene_sd[of_sgrna, 0]))
        with genes, lineages:
            tissue = pyro.sample("tissue", dist.Normal(0.0, tissue_sd))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(tissue[:, of_line], 0.6 * line_sd))
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = first[batch.sgrna] - 2 * second[batch.sgrna] + line_mean[batch.line] + pair[batch.gene, batch.line]
            pyro.sample("value", dist.Normal(mean, noise), obs=batch.lfc)


PROGRAMS = {name: load_program(name).model for name in ("additive", "crossed", "gene_lineage")}
PROGRAMS |= {"renamed": renamed, "constants": constants, "deep": deep}
