"""A program of one's own: a gene is needed less where its paralogue is expressed. Simulates, fits, prints JSON.

Each gene has a slope on its paralogue's expression in the line (a covariate of gene and line, prepared within genes),
around a common slope; the structured guide reads the program and draws all of it exactly given the scales.
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


def paralogues(batch: Batch) -> None:
    """Pyro program: a line's and a gene's own mean, and a slope on the paralogue's expression, `buffering`."""
    sigma, spread = pyro.sample("sigma", dist.HalfNormal(1.0)), pyro.sample("spread", dist.HalfNormal(0.5))
    common, sd = pyro.sample("common", dist.Normal(0.0, 1.0)), pyro.sample("sd", dist.HalfNormal(1.0))
    lines = pyro.plate("line", batch.n_lines, dim=-1)
    with lines:
        line = pyro.sample("line_mean", dist.Normal(0.0, 0.5))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            gene = pyro.sample("gene_mean", dist.Normal(0.0, 1.0))
            buffering = pyro.sample("buffering", dist.Normal(common, spread))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            sgrna = pyro.sample("sgrna_mean", dist.Normal(gene[batch.gene_of_sgrna, 0], sd))
        with genes, lines:
            pair = pyro.sample("pair", dist.Normal(0.0, 0.2))
            pyro.deterministic("effect", batch.mean_over_sgrnas(sgrna) + line + pair)
        with pyro.plate("row", len(batch.gene), dim=-1):
            mean = sgrna[batch.sgrna] + line[batch.line] + pair[batch.gene, batch.line]
            mean = mean + buffering[batch.gene, 0] * batch.covariates["paralogue_expr"]
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


def simulate(n_genes: int, n_lines: int, random: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw a screen in which half of the genes are buffered, and the slope of each gene per sd of expression."""
    slope = np.where(np.arange(n_genes) % 2, 0.4, 0.0)
    expression = random.gamma(4.0, 1.0, (n_genes, n_lines))
    score = (expression - expression.mean(1, keepdims=True)) / expression.std(1, keepdims=True)
    gene, sgrna, line = (x.ravel() for x in np.meshgrid(range(n_genes), range(4), range(n_lines), indexing="ij"))
    mean = random.normal(-0.5, 0.3, (n_genes, 4))[gene, sgrna] + slope[gene] * score[gene, line]
    table = pd.DataFrame(
        {
            "sgrna": [f"S{g:03}-{s}" for g, s in zip(gene, sgrna, strict=True)],
            "hugo_symbol": [f"G{g:03}" for g in gene],
            "depmap_id": [f"ACH-{c:03}" for c in line],
            "lfc": mean + 0.4 * random.normal(size=len(mean)),
            "paralogue_expr": expression[gene, line],
        }
    )
    return table, slope


def main() -> None:
    """Simulate, fit, hold the slopes to the truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=60)
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--draws", type=int, default=400)
    given = parser.parse_args()
    table, slope = simulate(given.genes, given.lines, np.random.default_rng(0))
    covariates = {"paralogue_expr": "zscore(0.1) | clip(-4, 4)"}
    with vihier.fit(table, paralogues, draws=given.draws, covariates=covariates, quiet=True) as post:
        found = post.summary("buffering", prob=0.9)
        inside = (found.iloc[:, 4] <= slope) & (slope <= found.iloc[:, 5])
        print(
            json.dumps(
                {
                    "genes": given.genes,
                    "converged": post.converged,
                    "buffering_mean": {
                        "buffered": round(float(found["mean"][slope > 0].mean()), 3),
                        "others": round(float(found["mean"][slope == 0].mean()), 3),
                    },
                    "correlation_with_truth": round(float(np.corrcoef(found["mean"], slope)[0, 1]), 3),
                    "covered_by_90%": round(float(inside.mean()), 3),
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
