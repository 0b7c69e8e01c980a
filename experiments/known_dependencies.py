"""Where known dependencies of lineages rank among all genes, each lineage against the rest, in a fit of Avana and KY.

Prints JSON; docs/answers.md has its figures and the papers that the dependencies are from.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from control_genes import read_gene_sets
from run_record import SHARED_DATA, existing

import vihier
from vihier import answers

KNOWN = {
    "skin": ("BRAF", "SOX10", "NRAS"),
    "eye": ("SOX10", "GNA11"),
    "colorectal": ("CTNNB1", "KRAS", "CDX2"),
    "leukemia": ("MYB", "RUNX1", "SPI1", "CEBPA"),
    "multiple_myeloma": ("IRF4", "MCL1", "PRDM1"),
    "lymphoma": ("EBF1", "BTK"),
    "peripheral_nervous_system": ("MYCN", "GATA3"),
    "breast": ("CDK4", "PIK3CA", "CCND1", "GATA3", "ESR1", "FOXA1"),
    "kidney": ("PAX8", "HNF1B"),
    "ovary": ("PAX8", "HNF1B"),
    "uterus": ("PAX8",),
    "lung": ("CDK4", "CCND1", "NKX2-1"),
    "upper_aerodigestive": ("EGFR", "TP63"),
    "bile_duct": ("EGFR",),
    "esophagus": ("PIK3CA", "TP63"),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fit", type=Path, help="posterior file of Avana and KY")
    parser.add_argument("--gene-sets", type=Path, default=SHARED_DATA / "gene_sets", help="folder of reference genes")
    return parser.parse_args()


def main() -> int:
    """Compare each lineage with the rest, print."""
    given = arguments()
    fit = existing(given.fit, "posterior")
    controls = read_gene_sets(existing(given.gene_sets, "reference gene sets"))["achilles"]
    lineages = {}
    with vihier.open_posterior(fit) as post:
        for lineage, genes in KNOWN.items():
            lines = answers.lines_of(post, [lineage])
            table = answers.contrast(post, lines, controls=controls).table
            rank = {gene: place for place, gene in enumerate(table["hugo_symbol"], start=1)}
            # A known dependency is one only where the first set depends on it more.
            more = dict(zip(table["hugo_symbol"], table["difference"] < 0, strict=True))
            known = {gene: rank[gene] if more[gene] else None for gene in genes}
            lineages[lineage] = {"lines": len(lines), "known": known, "hits": int(table["hit"].sum())}
        plain = answers.contrast(post, answers.lines_of(post, ["skin"])).table
        record = {
            "genes": len(post.labels("hugo_symbol")),
            "draws": post.n_draws * post.n_chains,
            "lineages": lineages,
            "skin_without_controls": {"first": plain["hugo_symbol"][0], "hits": int(plain["hit"].sum())},
        }
    print(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"known_dependencies: {error}")
