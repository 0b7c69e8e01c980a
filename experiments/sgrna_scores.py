"""A program of one's own: an sgRNA shows as much of its gene's effect as its on-target score says. Prints JSON.

The gene's effect in a line enters each row times the score of the row's sgRNA, which is known: with scores of 0.2 to 1,
a plain mean over sgRNAs is half of the effect. Two libraries have a shift each, and lines one in each library.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist

import vihier
from vihier.models.batch import Batch


def scored(batch: Batch) -> None:
    """Pyro program: `lfc ~ N(line in library + score (gene + gene x line), sigma)`."""
    sigma, top = pyro.sample("sigma", dist.HalfNormal(1.0)), pyro.sample("top", dist.Normal(0.0, 1.0))
    genes_sd, pairs_sd = pyro.sample("genes_sd", dist.HalfNormal(1.0)), pyro.sample("pairs_sd", dist.HalfNormal(0.5))
    with pyro.plate("line_screen", batch.size_of("line_screen"), dim=-1):
        shift = pyro.sample("shift", dist.Normal(0.0, 0.5))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            gene = pyro.sample("gene_mean", dist.Normal(top, genes_sd))
        with genes, pyro.plate("line", batch.n_lines, dim=-1):
            pair = pyro.sample("pair", dist.Normal(0.0, pairs_sd))
            pyro.deterministic("effect", gene + pair)
        with pyro.plate("row", len(batch.gene), dim=-1):
            effect = gene[batch.gene, 0] + pair[batch.gene, batch.line]
            mean = shift[batch.rows_in("line_screen")] + batch.covariates["score"] * effect
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


def simulate(n_genes: int, n_lines: int, random: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw a screen, and the true effect of each gene and line."""
    effect = random.normal(-0.6, 0.6, (n_genes, 1)) + random.normal(0, 0.3, (n_genes, n_lines))
    gene, sgrna, line = (x.ravel() for x in np.meshgrid(range(n_genes), range(6), range(n_lines), indexing="ij"))
    score, library = random.uniform(0.2, 1.0, (n_genes, 6))[gene, sgrna], sgrna % 2
    mean = random.normal(0, 0.2, (n_lines, 2))[line, library] + score * effect[gene, line]
    table = pd.DataFrame(
        {
            "sgrna": [f"S{g:03}-{s}" for g, s in zip(gene, sgrna, strict=True)],
            "hugo_symbol": [f"G{g:03}" for g in gene],
            "depmap_id": [f"ACH-{c:03}" for c in line],
            "screen": np.array(["avana", "ky"])[library],
            "lfc": mean + 0.3 * random.normal(size=len(mean)),
            "score": score,
        }
    )
    return table, effect


def main() -> None:
    """Simulate, fit, hold the effects to the truth, beside plain means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=60)
    parser.add_argument("--lines", type=int, default=20)
    parser.add_argument("--draws", type=int, default=400)
    given = parser.parse_args()
    table, truth = simulate(given.genes, given.lines, np.random.default_rng(0))
    means = table.pivot_table(index="hugo_symbol", columns="depmap_id", values="lfc").to_numpy()
    with vihier.fit(table, scored, draws=given.draws, quiet=True) as post:
        found = post.moments("effect").sel(hugo_symbol=post.labels("hugo_symbol"))
        mean, low, high = (found[name].to_numpy() for name in ("mean", "q05", "q95"))
        record = {
            "genes": given.genes,
            "converged": post.converged,
            "rms_error": round(float(np.sqrt(((mean - truth) ** 2).mean())), 3),
            "rms_error_of_plain_means": round(float(np.sqrt(((means - truth) ** 2).mean())), 3),
            "covered_by_90%": round(float(((low <= truth) & (truth <= high)).mean()), 3),
        }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
