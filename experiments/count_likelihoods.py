"""How well fits of read counts predict counts of Avana and KY that they have not seen. Prints JSON.

Read counts in the layout of Chronos are imported, rows are held out in two ways (10 % at random; one replicate of each
line that has two or more, and then another, so that neither what is held out nor what is kept is by chance the noisier
of two), and those are scored whose (sgRNA, line) cell keeps a row. For each choice of noise and dispersion: the mean
log predictive probability of a count (nats), the coverage of central 50 and 90 % intervals, overall, by screen and by
what is expected, and the CPU time of the fits. A count that is the bound of an
interval is in it with the probability that makes the interval as wide as it says (a randomised quantile residual; Dunn
& Smyth 1996, J. Comput. Graph. Stat. 5, 236). Beside them Student-t rows of log2((count + 1/2) / expected): their
density times the derivative of that is comparable where counts are not small.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from holdout import interval_coverage, keeps_a_row, replicates_in_turn, rows_at_random
from row_predictions import noise_of_rows, predict_rows
from run_record import SHARED_DATA, existing, machine, peak_memory_gb
from scipy.special import logsumexp
from scipy.stats import nbinom

import vihier
from vihier.models.counts import COUNTS, EXPECTED, NOISY_SHARE, REFERENCE_READS, log2_ratio
from vihier.screen.importing import MappedFiles, Normalisation, import_chronos

KEYS = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "screen", "lfc", COUNTS, EXPECTED]
# What has a noise scale of its own, and what else the dispersion depends on.
CHOICES = [
    ("global", "global"),
    ("global", "gene"),
    ("global", "abundance"),
    ("replicate", "global"),
    ("replicate", "gene"),
    ("replicate", "gene_abundance"),
    ("replicate", "sgrna_abundance"),
    ("replicate", "sgrna_abundance_row"),
]
LIBRARIES = ("Avana", "KY")
# Counts above which the density of a logarithm says what the probability of a count does.
LARGE = 20


def predict_counts(post: vihier.Posterior, test: pd.DataFrame, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predict counts by a posterior of `additive`, gene by gene.

    Returns
    -------
    tuple
        Log predictive probability [N]; and the predictive probability of a lower count, of the same one a random share.
    """
    alpha, beta = (post.draws(name).to_numpy()[0].astype(np.float64) for name in ("alpha", "beta"))
    sgrnas, lines = pd.Index(post.labels("sgrna")), pd.Index(post.labels("depmap_id"))
    power = post.draws("abundance_power").to_numpy().reshape(-1, 1) if "abundance_power" in post.variables else 0.0
    of_sgrna = None
    if "dispersion_sgrna" in post.variables:
        of_sgrna = post.draws("dispersion_sgrna").to_numpy()[0].astype(np.float64)
    parts: list[tuple[float, Any]] = [(1.0, 1.0)]
    if "noisy_rows" in post.variables:
        wider = np.exp(post.draws("noisy_rows").to_numpy().reshape(-1, 1))
        parts = [(1 - NOISY_SHARE, 1.0), (NOISY_SHARE, wider)]
    y, expected = test[COUNTS].to_numpy(), test[EXPECTED].to_numpy()
    share = np.random.default_rng(seed).random(len(test))
    log_p, lower = np.empty(len(test)), np.empty(len(test))
    for gene, rows in test.groupby("hugo_symbol", sort=True, observed=True).indices.items():
        of_gene = test.iloc[rows]
        line = lines.get_indexer(of_gene["depmap_id"])
        fold = post.draws("gamma", hugo_symbol=str(gene)).to_numpy()[0, :, 0][:, line].astype(np.float64)
        fold = fold + alpha[:, sgrnas.get_indexer(of_gene["sgrna"])] + beta[:, line]
        # The same draws of a new replicate's noise for every gene.
        noise = noise_of_rows(post, of_gene, np.random.default_rng(seed)) * (expected[rows] / REFERENCE_READS) ** -power
        if "dispersion_gene" in post.variables:
            noise = noise * post.draws("dispersion_gene", hugo_symbol=str(gene)).to_numpy()[0]
        if of_sgrna is not None:
            noise = noise * of_sgrna[:, sgrnas.get_indexer(of_gene["sgrna"])]
        densities, chances = [], []
        for weight, wider in parts:
            size = (noise * wider) ** -2.0
            chance = size / (size + expected[rows] * 2**fold)
            densities.append(nbinom.logpmf(y[rows], size, chance) + np.log(weight))
            at, below = nbinom.cdf(y[rows], size, chance), nbinom.cdf(y[rows] - 1, size, chance)
            chances.append(weight * (below + share[rows] * (at - below)).mean(axis=0))
        log_p[rows] = logsumexp(densities, axis=(0, 1)) - np.log(len(fold))
        lower[rows] = np.sum(chances, axis=0)
    return log_p, lower


def told(scored: pd.DataFrame, density: np.ndarray, lower: np.ndarray) -> dict[str, Any]:
    """Say how well rows were predicted."""
    coverage: dict[str, Any] = {"all": interval_coverage(lower)}
    expected = pd.cut(scored[EXPECTED], [0, 50, 200, 1000, np.inf])
    for by in (scored["screen"], expected):
        for label, rows in scored.groupby(by, observed=True).indices.items():
            coverage[str(label)] = {**interval_coverage(lower[rows]), "rows": len(rows)}
    large = scored[COUNTS].to_numpy() >= LARGE
    return {
        "log_probability": round(float(density.mean()), 4),
        f"log_probability_from_{LARGE}_reads": round(float(density[large].mean()), 4),
        "coverage": coverage,
        "below_5_above_95": [round(float((lower < 0.05).mean()), 4), round(float((lower > 0.95).mean()), 4)],
    }


def study(
    table: pd.DataFrame, helds: list[np.ndarray], choices: list[tuple[str, str]], beside: bool, draws: int, seed: int
) -> dict[str, Any]:
    """Fit each choice to what is left, once for each that is held out, and score that where its cell keeps a row."""
    rest = [table[~held] for held in helds]
    scored = [
        test[keeps_a_row(test, train)].reset_index(drop=True)
        for test, train in zip((table[held] for held in helds), rest, strict=True)
    ]
    together = pd.concat(scored, ignore_index=True)
    found: dict[str, Any] = {"rows": len(together), "times": len(helds)}
    methods: list[tuple[str, dict[str, str]]] = [
        (f"noise by {noise}, dispersion by {dispersion}", {"noise": noise, "dispersion": dispersion})
        for noise, dispersion in choices
    ]
    for name, options in [*methods, *([("student_t of log2 counts", {"noise": "replicate"})] if beside else [])]:
        of_counts = "dispersion" in options
        seconds, converged, predicted, power = 0.0, True, [], []
        for train, test in zip(rest, scored, strict=True):
            start = time.process_time()
            likelihood = "negative_binomial" if of_counts else "student_t"
            post = vihier.fit(
                train if of_counts else in_logarithms(train),
                likelihood=likelihood,
                draws=draws,
                seed=seed,
                quiet=True,
                **options,  # type: ignore[arg-type]
            )
            seconds += time.process_time() - start
            with post:
                predicted.append(
                    predict_counts(post, test, seed) if of_counts else predict_logarithms(post, test, seed)
                )
                converged &= bool(post.converged)
                if "abundance_power" in post.variables:
                    power.append(float(post.draws("abundance_power").mean()))
        found[name] = told(together, *(np.concatenate(parts) for parts in zip(*predicted, strict=True)))
        found[name] |= {"cpu_seconds": round(seconds, 1), "converged": converged}
        if power:
            found[name]["abundance_power"] = round(float(np.mean(power)), 3)
        print(f"{name}: {found[name]}", file=sys.stderr)
    return found


def in_logarithms(frame: pd.DataFrame) -> pd.DataFrame:
    """Take counts as fold changes relative to what is expected of them."""
    return frame.assign(lfc=log2_ratio(frame[COUNTS], frame[EXPECTED]))


def predict_logarithms(post: vihier.Posterior, test: pd.DataFrame, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predict counts by a posterior of their logarithms; as `predict_counts`, a density for the probability."""
    density, lower = predict_rows(post, in_logarithms(test), seed)
    return density - np.log(np.log(2) * (test[COUNTS].to_numpy() + 0.5)), lower


def counts_table(
    folder: Path, library: str | None, genes: int | None, seed: int, columns: Sequence[str] = KEYS
) -> pd.DataFrame:
    """Import the counts of both libraries, or of one, as a user would, with what is expected of each."""
    files = MappedFiles(
        tuple(existing(folder / "chronos_format" / f"{name}Readcounts.hdf5", "read counts") for name in LIBRARIES),
        screens=("broad", "sanger"),
    )
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "counts.parquet"
        import_chronos(files, out, normalisation=Normalisation(keep_counts=True), line_map=folder / "lineage_map.csv")
        screen = vihier.read_screen(out)
    if library is not None:
        screen = screen.subset(where={"screen": library})
    if genes is not None:
        screen = screen.subset(n_genes=genes, seed=seed)
    return screen.to_frame()[list(columns)]


def main() -> None:
    """Hold out, fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=SHARED_DATA, help="folder with chronos_format")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument("--library", choices=["broad", "sanger"], help="one of the two, instead of both")
    parser.add_argument("--only", action="append", metavar="NOISE,DISPERSION", help="one choice; repeatable")
    parser.add_argument("--held", choices=["rows", "replicates"], action="append", help="one way of holding out")
    parser.add_argument("--times", type=int, default=2, help="replicates of each line that are held out, in turn")
    parser.add_argument("--no-student-t", action="store_true", help="leave the fit of logarithms out")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore", vihier.FitWarning)
    table = counts_table(given.data, given.library, given.genes, given.seed)
    random = np.random.default_rng(given.seed)
    ways = {
        "rows": [rows_at_random(table, 0.1, random)],
        "replicates": replicates_in_turn(table, random, given.times),
    }
    choices = [choice for choice in CHOICES if not given.only or ",".join(choice) in given.only]
    record: dict[str, Any] = {"draws": given.draws, "genes": int(table["hugo_symbol"].nunique())}
    for way in given.held or ways:
        record[way] = study(table, ways[way], choices, not given.no_student_t, given.draws, given.seed)
    print(json.dumps(record | {"peak_memory_gb": peak_memory_gb(), "machine": machine()}, indent=2))


if __name__ == "__main__":
    try:
        main()
    except vihier.VihierError as error:
        sys.exit(f"count_likelihoods: {error}")
