"""Which likelihood the rows of Avana and KY have: held-out density and coverage of each. Prints JSON.

Rows are held out in two ways, as `holdout.py` does: 10 % at random, and one replicate of each line that has two or
more, whose own noise scale is then predicted from those of the others. For each likelihood and choice of noise: the
mean log predictive density (nats a row), the coverage of central 50 and 90 % predictive intervals, overall and by
screen, the time of the fit, and for the best one which rows still surprise.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from holdout import (
    KEYS,
    interval_coverage,
    keeps_a_row,
    one_replicate_of_each_line,
    predict_by_mean,
    rows_at_random,
)
from row_predictions import predict_rows
from run_record import SHARED_DATA, Stages, existing, machine, peak_memory_gb

import vihier

# Likelihood, what has a noise scale of its own, what has degrees of freedom of its own.
Choice = tuple[str, str, str]
CHOICES: list[Choice] = [
    ("normal", "global", "global"),
    ("normal", "replicate", "global"),
    ("student_t", "global", "global"),
    ("student_t", "screen", "global"),
    ("student_t", "line", "global"),
    ("student_t", "replicate", "global"),
    ("student_t", "replicate", "screen"),
]
# A row is a surprise where its predictive tail probability is below this: of rows as predicted, 0.2 % are.
SURPRISE = 1e-3


def study(table: pd.DataFrame, held: np.ndarray, choices: list[Choice], draws: int, seed: int) -> dict[str, Any]:
    """Fit each choice to what is left, and score what is held out where its (sgRNA, line) cell keeps a row."""
    train, test = table[~held], table[held]
    scored = test[keeps_a_row(test, train)].reset_index(drop=True)
    screen = vihier.read_screen(train[[name for name in KEYS if name in train]])
    baseline = predict_by_mean(train, scored, ["sgrna", "depmap_id"])
    found: dict[str, Any] = {"sgRNA x line mean": {"log_density": round(float(baseline.mean()), 4)}}
    stages, surprises = Stages(), {}
    for likelihood, noise, nu in choices:
        name = f"{likelihood}, noise by {noise}" + (f", nu by {nu}" if nu != "global" else "")
        with stages.stage(name):
            post = vihier.fit(screen, likelihood=likelihood, noise=noise, nu=nu, draws=draws, seed=seed, quiet=True)
        with post:
            density, lower = predict_rows(post, scored, seed)
            found[name] = {
                "log_density": round(float(density.mean()), 4),
                "coverage": {"all": interval_coverage(lower)},
                "seconds": stages.seconds[name],
                "converged": bool(post.converged),
            }
        if "screen" in scored:
            for label, rows in scored.groupby("screen", observed=True).indices.items():
                found[name]["coverage"][str(label)] = interval_coverage(lower[rows])
        surprises[name] = np.minimum(lower, 1 - lower) < SURPRISE
        print(f"{name}: {found[name]}", file=sys.stderr)
    best = max(surprises, key=lambda name: found[name]["log_density"])
    return {"rows": len(scored), "choices": found, "best": best, "surprises": surprising(scored, surprises[best])}


def surprising(scored: pd.DataFrame, surprise: np.ndarray) -> dict[str, Any]:
    """Say where rows surprise: their share overall, by final count, and the lines, sgRNAs and genes that have most."""
    frame = scored.assign(surprise=surprise)
    told: dict[str, Any] = {"share": round(float(surprise.mean()), 5), "negative": None}
    told["negative"] = round(float((frame["lfc"][surprise] < 0).mean()), 3)
    if "counts_final" in frame:
        edges = [-np.inf, 10, 100, 1000, np.inf]
        groups = frame.groupby(pd.cut(frame["counts_final"].astype(float), edges), observed=True)["surprise"]
        told["by_final_count"] = {str(k): [round(float(v.mean()), 4), len(v)] for k, v in groups}
    for column in ("depmap_id", "sgrna", "hugo_symbol"):
        most = frame.groupby(column, observed=True)["surprise"].agg(["mean", "sum", "size"])
        most = most[most["size"] >= 20].sort_values("mean", ascending=False).head(5)
        told[f"most_by_{column}"] = {str(k): [round(float(v["mean"]), 3), int(v["size"])] for k, v in most.iterrows()}
    return told


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=SHARED_DATA / "avana_ky.parquet", help="screen table")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument("--only", action="append", metavar="LIKELIHOOD,NOISE,NU", help="one choice; repeatable")
    parser.add_argument("--held", choices=["rows", "replicates"], action="append", help="one way of holding out")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Hold out, fit, score, print."""
    given = arguments()
    warnings.simplefilter("ignore", vihier.FitWarning)
    screen = vihier.read_screen(existing(given.data, "rows of Avana and KY"))
    if given.genes is not None:
        screen = screen.subset(n_genes=given.genes, seed=given.seed)
    table = screen.to_frame()
    random = np.random.default_rng(given.seed)
    ways = {"rows": rows_at_random(table, 0.1, random), "replicates": one_replicate_of_each_line(table, random)}
    choices = [choice for choice in CHOICES if not given.only or ",".join(choice) in given.only]
    record: dict[str, Any] = {"draws": given.draws, "genes": screen.n_genes}
    for way in given.held or ways:
        record[way] = study(table, ways[way], choices, given.draws, given.seed)
    print(json.dumps(record | {"peak_memory_gb": peak_memory_gb(), "machine": machine()}, indent=2))


if __name__ == "__main__":
    try:
        main()
    except vihier.VihierError as error:
        sys.exit(f"row_likelihoods: {error}")
