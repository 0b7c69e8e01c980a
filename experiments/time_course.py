"""A program of one's own, not about cancer lines: genes, a drug and time, from counts. Simulates, fits, prints JSON.

One cell line is grown without and with a drug and sequenced after 0, 7, 14 and 21 days. A knock-out that slows growth
is lost a little more every week, so that log2 fold changes are straight lines in time: each arm is a "line" of the
screen, and a gene's slope in it, log2 fold change a week, is its effect there. What the drug does to a gene is the
difference between arms, less that of the median gene: reads per million only tell genes from each other. Counts become
log2 of reads per million relative to day 0's mean of the same sgRNA, as in most screens.
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

ARMS, DAYS, REPLICATES, SGRNAS = ("control", "drug"), (7, 14, 21), "AB", 5


def time_course(batch: Batch) -> None:
    """Pyro program: `lfc ~ N(weeks (drift[arm] + rate[sgRNA] + response[gene, arm]), sigma)`."""
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    top, genes_sd = pyro.sample("top", dist.Normal(0.0, 1.0)), pyro.sample("genes_sd", dist.HalfNormal(1.0))
    sgrnas_sd, response_sd = (pyro.sample(name, dist.HalfNormal(0.5)) for name in ("sgrnas_sd", "response_sd"))
    arms = pyro.plate("line", batch.n_lines, dim=-1)
    with arms:
        drift = pyro.sample("drift", dist.Normal(0.0, 0.5))
    with batch.local():
        genes = pyro.plate("gene", len(batch.gene_idx), dim=-2)
        with genes:
            gene = pyro.sample("gene_rate", dist.Normal(top, genes_sd))
        with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
            rate = pyro.sample("rate", dist.Normal(gene[batch.gene_of_sgrna, 0], sgrnas_sd))
        with genes, arms:
            response = pyro.sample("response", dist.Normal(0.0, response_sd))
            pyro.deterministic("effect", drift + batch.mean_over_sgrnas(rate) + response)
        with pyro.plate("row", len(batch.gene), dim=-1):
            weeks = batch.covariates["days"] / 7
            mean = weeks * (drift[batch.line] + rate[batch.sgrna] + response[batch.gene, batch.line])
            pyro.sample("lfc", dist.Normal(mean, sigma), obs=batch.lfc)


def simulate_counts(n_genes: int, random: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw counts of every sgRNA at every day, and the true weekly log2 fold change of each gene and arm."""
    effect = np.where(np.arange(n_genes) % 4 == 0, -0.8, 0.0)[:, None] * np.ones(2)
    effect[1::8, 1] = -0.6  # needed in the drug only
    effect[2::8, 1] = 0.4  # their loss protects from it
    rate = effect[:, None] + random.normal(0, 0.08, (n_genes, SGRNAS, 1))
    plasmid = random.lognormal(0, 0.5, (n_genes, SGRNAS))
    rows = []
    for day in (0, *DAYS):
        for a, arm in enumerate(ARMS):
            for replicate in REPLICATES:
                share = plasmid * 2.0 ** (rate[..., a] * day / 7 + 0.15 * random.normal(size=plasmid.shape))
                counts = random.poisson(300 * plasmid.size * share / share.sum())
                rows += [
                    (f"S{g:03}-{s}", f"G{g:03}", arm, replicate, day, counts[g, s])
                    for g in range(n_genes)
                    for s in range(SGRNAS)
                ]
    columns = ["sgrna", "hugo_symbol", "depmap_id", "replicate_id", "days", "count"]
    return pd.DataFrame(rows, columns=columns), effect


def fold_changes(counts: pd.DataFrame) -> pd.DataFrame:
    """Bring counts to log2 reads per million relative to day 0, one row a measurement."""
    sample = ["depmap_id", "replicate_id", "days"]
    per_million = np.log2(1e6 * counts["count"] / counts.groupby(sample)["count"].transform("sum") + 1)
    start = per_million[counts["days"] == 0].groupby(counts["sgrna"]).mean()
    table = counts.assign(lfc=per_million - counts["sgrna"].map(start).to_numpy())
    table["replicate_id"] = table["replicate_id"] + "-" + table["days"].astype(str)
    return table[table["days"] > 0].drop(columns="count")


def main() -> None:
    """Simulate, fit, hold the genes' rates and the drug's part in them to the truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=160)
    parser.add_argument("--draws", type=int, default=400)
    given = parser.parse_args()
    counts, truth = simulate_counts(given.genes, np.random.default_rng(0))
    with vihier.fit(fold_changes(counts), time_course, draws=given.draws, quiet=True) as post:
        effect = post.draws("effect").to_numpy().reshape(-1, *truth.shape)
        drug = effect[..., 1] - effect[..., 0]
        drug = drug - np.median(drug, axis=1, keepdims=True)
        expected = truth[:, 1] - truth[:, 0]
        low, high = np.quantile(drug, [0.05, 0.95], axis=0)
        called = (low > 0) | (high < 0)
        print(
            json.dumps(
                {
                    "genes": given.genes,
                    "converged": post.converged,
                    "correlation_with_true_rates": round(
                        float(np.corrcoef(effect.mean(0).ravel(), truth.ravel())[0, 1]), 3
                    ),
                    "drug_genes_found": f"{int(called[expected != 0].sum())} of {int((expected != 0).sum())}",
                    "others_called": f"{int(called[expected == 0].sum())} of {int((expected == 0).sum())}",
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
