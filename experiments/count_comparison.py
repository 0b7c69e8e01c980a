"""What read counts buy beside fold changes, and a joint model of two libraries beside one: Avana and KY. Prints JSON.

The counts of both libraries are imported in the layout of Chronos, 10 % of the rows are held out at random, and every
model is fitted to the rest: to the counts, or to log2((count + 1/2) / expected) with Normal or Student-t rows. Held-out
rows are scored by the log predictive probability of their count; the density of a logarithm times its derivative says
the same where counts are not small, so models are compared on counts of 20 and more. Beside it: coverage of 90 %
intervals, how well effects tell essential genes from non-essential ones, and the CPU time of each fit. Writes
`count_comparison.json` and a figure to a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from control_genes import read_gene_sets
from count_likelihoods import KEYS, LARGE, counts_table, in_logarithms
from holdout import compare, keeps_a_row, rows_at_random
from run_record import SHARED_DATA, existing, machine, peak_memory_gb

import vihier
from vihier.diagnostics.control_genes import separation
from vihier.inference.predict_table import coverage
from vihier.models.counts import COUNTS

# Program and likelihood of each model; the first is what the others are held beside.
MODELS = {
    "additive, normal": ("additive", {"likelihood": "normal", "noise": "global"}),
    "additive, student_t": ("additive", {"likelihood": "student_t", "noise": "replicate"}),
    "additive, counts": ("additive", {"likelihood": "negative_binomial", "noise": "replicate"}),
    "multi_screen, student_t": ("multi_screen", {"likelihood": "student_t", "noise": "replicate"}),
    "multi_screen, counts": ("multi_screen", {"likelihood": "negative_binomial", "noise": "replicate"}),
}
BATCH = "p_dna_batch"


def log_probability(predicted: pd.DataFrame, counts: np.ndarray, of_counts: bool) -> np.ndarray:
    """Log probability of counts, or the density of their logarithms brought to it."""
    found = predicted["log_density"].to_numpy(dtype=float)
    return found if of_counts else found - np.log(np.log(2) * (counts + 0.5))


def fit_and_score(
    name: str, train: pd.DataFrame, test: pd.DataFrame, given: argparse.Namespace
) -> tuple[dict[str, Any], np.ndarray]:
    """Fit one model; return what it says of held-out rows and of the reference genes, and each row's density."""
    program, options = MODELS[name]
    of_counts = options["likelihood"] == "negative_binomial"
    if not of_counts:
        train, test = in_logarithms(train), in_logarithms(test)
    start = time.process_time()
    post = vihier.fit(train, program, draws=given.draws, seed=given.seed, quiet=True, **options)  # type: ignore[arg-type]
    seconds = time.process_time() - start
    with post:
        predicted = vihier.predict(post, test, draws=given.draws, seed=given.seed)
        effect = post.moments("effect")["mean"].transpose("depmap_id", "hugo_symbol").to_pandas()
        controls = {of: separation(effect, two) for of, two in read_gene_sets(given.data / "gene_sets").items()}
        found: dict[str, Any] = {
            "cpu_seconds": round(seconds, 1),
            "converged": bool(post.converged),
            "covered_by_90%": round(coverage(predicted, 0.9, COUNTS if of_counts else "lfc"), 4),
            "controls": {
                of: {key: round(float(each[key].median()), 3) for key in ("auroc", "nnmd")}
                for of, each in controls.items()
            },
        }
    return found, log_probability(predicted, test[COUNTS].to_numpy(), of_counts)


def figure(models: dict[str, Any], path: Path) -> None:
    """Draw how much better than the first model each predicts, and how far apart it sets the reference genes."""
    names = list(models)
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
    at = np.arange(len(names))[::-1]
    left.errorbar(
        [models[name]["difference"] for name in names],
        at,
        xerr=[2 * models[name]["se_by_line"] for name in names],
        fmt="o",
    )
    left.axvline(0, color="0.7", lw=0.8)
    left.set_yticks(at, names)
    left.set_xlabel(f"nats a held-out count of {LARGE} or more better\nthan the first (2 se, over lines)")
    for of, marker in (("achilles", "o"), ("hart", "s")):
        right.plot([models[name]["controls"][of]["nnmd"] for name in names], at, marker, label=of)
    right.set_xlabel("NNMD of essential and non-essential genes,\nmedian over lines")
    right.legend(frameon=False)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=SHARED_DATA, help="folder with chronos_format, gene_sets")
    parser.add_argument("--out", type=Path, default=Path("results/count_comparison"), help="folder to write to")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument(
        "--only", action="append", choices=MODELS, help="one of the models beside the first; repeatable"
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Hold out, fit, score, print."""
    given = arguments()
    existing(given.data / "gene_sets", "reference gene sets")
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", vihier.FitWarning)
    table = counts_table(given.data, None, given.genes, given.seed, [*KEYS, BATCH])
    held = rows_at_random(table, 0.1, np.random.default_rng(given.seed))
    train, test = table[~held], table[held]
    scored = test[keeps_a_row(test, train)].reset_index(drop=True)
    large, lines = scored[COUNTS].to_numpy() >= LARGE, scored["depmap_id"].to_numpy()
    first, *others = MODELS
    models: dict[str, Any] = {}
    density: dict[str, np.ndarray] = {}
    for name in [first, *(name for name in others if not given.only or name in given.only)]:
        models[name], density[name] = fit_and_score(name, train, scored, given)
        models[name] |= {
            "log_probability": round(float(density[name][large].mean()), 4),
            **compare(density[name][large], density[first][large], lines[large]),
        }
        print(f"{name}: {models[name]}", file=sys.stderr)
    figure(models, given.out / "count_comparison.png")
    record = {
        "rows": {"train": len(train), "scored": len(scored), f"of_{LARGE}_reads": int(large.sum())},
        "genes": int(table["hugo_symbol"].nunique()),
        "draws": given.draws,
        "models": models,
        "peak_memory_gb": peak_memory_gb(),
        "machine": machine(),
        "figure": str(given.out / "count_comparison.png"),
    }
    (given.out / "count_comparison.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    try:
        main()
    except vihier.VihierError as error:
        sys.exit(f"count_comparison: {error}")
