"""Programs whose rows have covariates or tables by screen and batch, and a small screen to run them on."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from dense_model import uneven_screen

from vihier.models.batch import Batch
from vihier.screen import Screen, read_screen


def covariate_screen(seed: int = 0, **uneven: object) -> Screen:
    """`uneven_screen` with covariates of gene x line, of lines and of rows, two screens and three batches."""
    frame = uneven_screen(seed=seed, **uneven).to_frame()  # type: ignore[arg-type]
    random = np.random.default_rng(seed + 1)
    pair = frame["hugo_symbol"] + frame["depmap_id"]
    line = frame["depmap_id"]
    for name, of in (("copy_number", pair), ("rna_expr", pair), ("purity", line)):
        codes = of.astype("category").cat.codes.to_numpy()
        frame[name] = random.normal(size=codes.max() + 1)[codes]
    frame["is_mutated"] = (frame["rna_expr"] > 0.5).astype(float)
    frame["days"] = random.normal(size=len(frame))
    frame["screen"] = np.where(frame["sgrna"].str[0].isin(["T", "G"]), "broad", "sanger")
    frame["p_dna_batch"] = np.where(frame["screen"] == "broad", "b1", np.where(line < "ACH-2", "s1", "s2"))
    return read_screen(frame)


def slopes(batch: Batch) -> None:
    """Slopes by gene, line and gene x lineage, of covariates of gene x line, lines and rows; an offset; a constant."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    top, line_sd = pyro.sample("top", dist.Normal(0.3, 2.0)), pyro.sample("line_sd", dist.HalfNormal(1.0))
    slope, slope_sd = pyro.sample("slope", dist.Normal(0.1, 1.0)), pyro.sample("slope_sd", dist.HalfNormal(1.0))
    gene_sd, tissue_sd = pyro.sample("gene_sd", dist.HalfNormal(1.0)), pyro.sample("tissue_sd", dist.HalfNormal(1.0))
    lines, lineages = pyro.plate("line", batch.n_lines, dim=-1), pyro.plate("lineage", batch.n_lineages, dim=-1)
    with lineages:
        tissue = pyro.sample("tissue", dist.Normal(0.0, tissue_sd))
        line_slope_sd = pyro.sample("line_slope_sd", dist.HalfNormal(line_sd))
    of_line = batch.lineage_of_line
    with lines:
        line = pyro.sample("line_mean", dist.Normal(tissue[of_line], line_sd))
        line_slope = pyro.sample("line_slope", dist.Normal(0.0, line_slope_sd[of_line]))
        purity = pyro.sample("purity_slope", dist.Normal(0.2, 0.5))
    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        with genes:
            gene = pyro.sample("gene_mean", dist.Normal(top, 1.0))
            gene_slope = pyro.sample("gene_slope", dist.Normal(slope, slope_sd))
            own_sd = pyro.sample("own_sd", dist.HalfNormal(gene_sd))
            pair_sd = pyro.sample("pair_sd", dist.HalfNormal(gene_sd))
            gene_days = pyro.sample("gene_days", dist.Normal(0.0, own_sd))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            sgrna = pyro.sample("sgrna_mean", dist.Normal(gene[of_sgrna, 0], own_sd[of_sgrna, 0]))
        with genes, lineages:
            expr = pyro.sample("expr_slope", dist.Normal(0.5 * gene_slope, tissue_sd))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(0.0, pair_sd))
        x = batch.covariates
        with pyro.plate("row", len(batch.gene), dim=-1):
            copies, c, g = x["copy_number"], batch.line, batch.gene
            mean = sgrna[batch.sgrna] - 2 * line[c] + pair[g, c] + 0.3 * x["days"] + 0.1
            mean = mean + copies * (gene_slope[g, 0] + line_slope[c]) + x["purity"] * purity[c]
            mean = mean + x["rna_expr"] * expr[g, of_line[c]] + x["days"] * 0.5 * gene_days[g, 0]
            pyro.sample("value", dist.Normal(mean, 0.7 * sigma), obs=batch.lfc)


def libraries(batch: Batch) -> None:
    """Effects of screens and batches, of genes and lines within screens; scales by screen; nothing of covariates."""
    sigma, gene_sd = pyro.sample("sigma", dist.HalfNormal(1.0)), pyro.sample("gene_sd", dist.HalfNormal(1.0))
    top, batch_sd = pyro.sample("top", dist.Normal(0.0, 2.0)), pyro.sample("batch_sd", dist.HalfNormal(1.0))
    screens = pyro.plate("screen", batch.size_of("screen"), dim=-1)
    lines = pyro.plate("line", batch.n_lines, dim=-1)
    with screens:
        screen = pyro.sample("screen_mean", dist.Normal(top, 1.0))
        library_sd = pyro.sample("library_sd", dist.HalfNormal(gene_sd))
    with pyro.plate("p_dna_batch", batch.size_of("p_dna_batch"), dim=-1):
        of_batch = pyro.sample("batch_mean", dist.Normal(0.0, batch_sd))
    with pyro.plate("line_screen", batch.size_of("line_screen"), dim=-1):
        line_screen = pyro.sample("line_screen_mean", dist.Normal(0.0, batch_sd))
    with lines:
        line = pyro.sample("line_mean", dist.Normal(0.0, 1.0))
        pair_sd = pyro.sample("pair_sd", dist.HalfNormal(1.0))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            gene = pyro.sample("gene_mean", dist.Normal(0.0, gene_sd))
        with genes, screens:
            library = pyro.sample("library", dist.Normal(gene, library_sd))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(0.0, pair_sd))
        with pyro.plate("row", len(batch.gene), dim=-1):
            s, c = batch.rows_in("screen"), batch.line
            mean = library[batch.gene, s] + screen[s] + line[c] + pair[batch.gene, c]
            mean = mean + of_batch[batch.rows_in("p_dna_batch")] + line_screen[batch.rows_in("line_screen")]
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


def several_pairs(batch: Batch) -> None:
    """Two tables over genes and lines, each with a covariate, and nothing that genes share."""
    sigma, sd = pyro.sample("sigma", dist.HalfNormal(1.0)), pyro.sample("sd", dist.HalfNormal(1.0))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-2), pyro.plate("line", batch.n_lines, dim=-1):
            first = pyro.sample("first", dist.Normal(0.5, sd))
            second = pyro.sample("second", dist.Normal(0.0, 2.0))
        with pyro.plate("row", len(batch.gene), dim=-1):
            x, at = batch.covariates, (batch.gene, batch.line)
            mean = x["days"] * first[at] + x["copy_number"] * second[at]
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


def vectors(batch: Batch) -> None:
    """Three coefficients of genes, correlated, one of a constant sd: each reaches the rows in another way."""
    sigma, tissue_sd = (pyro.sample(x, dist.HalfNormal(1.0)) for x in ("sigma", "tissue_sd"))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    sds = torch.stack(
        [*(pyro.sample(x, dist.HalfNormal(spread)) for x in ("first_sd", "second_sd")), torch.tensor(0.7)]
    )
    top, slope = pyro.sample("top", dist.Normal(0.3, 2.0)), pyro.sample("slope", dist.Normal(0.1, 1.0))
    chol = pyro.sample("chol", dist.LKJCholesky(3, 1.5))
    lines, lineages = pyro.plate("line", batch.n_lines, dim=-1), pyro.plate("lineage", batch.n_lineages, dim=-1)
    with lines:
        line = pyro.sample("line_mean", dist.Normal(0.0, 0.4))
    with batch.local():
        genes, of_sgrna = pyro.plate("gene", len(batch.gene_idx), dim=-2), batch.gene_of_sgrna
        with genes:
            means = torch.stack([0.5 * top, slope, torch.tensor(0.1)])
            own = pyro.sample("own", dist.MultivariateNormal(means, scale_tril=sds[:, None] * chol))
            pair_sd = pyro.sample("pair_sd", dist.HalfNormal(1.0))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            sgrna = pyro.sample("sgrna_mean", dist.Normal(own[of_sgrna, 0, 0], 0.5))
        with genes, lineages:
            expr = pyro.sample("expr_slope", dist.Normal(0.5 * own[..., 1], tissue_sd))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(0.0, pair_sd))
        x = batch.covariates
        with pyro.plate("row", len(batch.gene), dim=-1):
            c, g = batch.line, batch.gene
            mean = line[c] - 2 * sgrna[batch.sgrna] + pair[g, c] - 1.5 * x["copy_number"] * own[g, 0, 1]
            mean = mean + x["rna_expr"] * expr[g, batch.lineage_of_line[c]] + x["days"] * own[g, 0, 2]
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


DESIGNS = {"slopes": slopes, "libraries": libraries, "several_pairs": several_pairs, "vectors": vectors}
