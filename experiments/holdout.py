"""How well a fit predicts rows of Avana and KY that it has not seen. Prints JSON.

Two ways of holding out: 10 % of rows at random, and one replicate of each line that has two or more. The mean log
predictive density (nats a row) of the structured guide is compared, row by row, with `mean_field`'s and with two
predictions without a hierarchy: the sgRNA x line mean and the gene x line mean, each with one pooled variance. Rows
whose (sgRNA, line) cell keeps no row are not scored. Exit status 1 where structured is worse than `mean_field` by more
than 2 standard errors, or not better than a mean by more than 2.
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
from row_predictions import predict_rows
from run_record import SHARED_DATA, Stages, machine, peak_memory_gb

import vihier

GUIDES = ("structured", "mean_field")
LEVELS = (0.5, 0.9)
KEYS = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "screen", "lfc"]
MEANS = {"sgrna_line_mean": ["sgrna", "depmap_id"], "gene_line_mean": ["hugo_symbol", "depmap_id"]}
LOG_2PI = float(np.log(2 * np.pi))


def rows_at_random(table: pd.DataFrame, share: float, random: np.random.Generator) -> np.ndarray:
    """Mark a share of the rows, bool [N]."""
    held = np.zeros(len(table), dtype=bool)
    held[random.choice(len(table), size=round(share * len(table)), replace=False)] = True
    return held


def one_replicate_of_each_line(table: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """Mark all rows of one replicate, drawn at random, of every line that has two or more; bool [N].

    A replicate of a line is known by its `replicate_id` and its `screen`.
    """
    replicate, of_lines = _replicates(table)
    return np.isin(replicate, [int(random.choice(of_line)) for of_line in of_lines])


def replicates_in_turn(table: pd.DataFrame, random: np.random.Generator, times: int) -> list[np.ndarray]:
    """Mark all rows of one replicate of every line that has two or more, and then of another, ...; bool [N] each.

    The order of a line's replicates is drawn at random; one with fewer than so many has none in the last of them.
    """
    replicate, of_lines = _replicates(table)
    orders = [random.permutation(of_line) for of_line in of_lines]
    return [np.isin(replicate, [order[i] for order in orders if i < len(order)]) for i in range(times)]


def _replicates(table: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the replicate of each row, [N], and the replicates of each line that has two or more, sorted."""
    names = [name for name in ("depmap_id", "replicate_id", "screen") if name in table]
    replicate = table.groupby(names, sort=True, observed=True).ngroup().to_numpy()
    replicates = pd.DataFrame({"line": table["depmap_id"].to_numpy(), "replicate": replicate}).drop_duplicates()
    found = [np.sort(of_line["replicate"].to_numpy()) for _, of_line in replicates.groupby("line", sort=True)]
    return replicate, [of_line for of_line in found if len(of_line) > 1]


def keeps_a_row(test: pd.DataFrame, train: pd.DataFrame) -> np.ndarray:
    """Mark the rows whose (sgRNA, line) cell has a row in the training table, bool [N]."""
    cells = MEANS["sgrna_line_mean"]
    return pd.MultiIndex.from_frame(test[cells]).isin(pd.MultiIndex.from_frame(train[cells].drop_duplicates()))


def normal_log_density(y: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return log N(y; mean, sd)."""
    return -0.5 * ((y - mean) / sd) ** 2 - np.log(sd) - 0.5 * LOG_2PI


def predict_by_mean(train: pd.DataFrame, test: pd.DataFrame, by: list[str]) -> np.ndarray:
    """Predict rows by the mean of their group, with the variance within groups pooled over all; log densities [N].

    A mean of n rows has an error of its own: the variance of a new row about it is s^2 (1 + 1 / n).
    """
    groups = train.groupby(by, observed=True)["lfc"]
    pooled = groups.agg(["mean", "size"])
    within = train["lfc"] - groups.transform("mean")
    variance = float((within**2).sum()) / (len(train) - len(pooled))
    of_row = pooled.reindex(pd.MultiIndex.from_frame(test[by]))
    sd = np.sqrt(variance * (1 + 1 / of_row["size"].to_numpy()))
    return normal_log_density(test["lfc"].to_numpy(), of_row["mean"].to_numpy(), sd)


def compare(ours: np.ndarray, theirs: np.ndarray, lines: np.ndarray) -> dict[str, float]:
    """Compare two sets of log densities of the same rows: mean difference, its standard error by row and by line.

    Rows of a line share its noise; `se_by_line` takes the line as the unit.
    """
    difference = ours - theirs
    mean = float(difference.mean())
    sums = np.bincount(np.unique(lines, return_inverse=True)[1], difference - mean)
    se = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    by_line = float(np.sqrt((sums**2).sum()) / len(difference))
    return {"difference": round(mean, 5), "se": round(se, 5), "se_by_line": round(by_line, 5)}


def interval_coverage(lower: np.ndarray) -> dict[str, float]:
    """Share of rows inside the central predictive intervals."""
    return {f"{level:.0%}": round(float((np.abs(lower - 0.5) <= level / 2).mean()), 4) for level in LEVELS}


def study(table: pd.DataFrame, held: np.ndarray, model: str, draws: int, seed: int) -> dict[str, Any]:
    """Fit what is left, predict what is held out, and compare.

    Parameters
    ----------
    table
        A screen's long table.
    held
        Rows held out, bool [N].
    model, draws, seed
        Of the fits.
    """
    train, test = table[~held], table[held]
    scored = test[keeps_a_row(test, train)].reset_index(drop=True)
    screen = vihier.read_screen(train)
    stages = Stages()
    density: dict[str, np.ndarray] = {name: predict_by_mean(train, scored, by) for name, by in MEANS.items()}
    coverage: dict[str, Any] = {}
    converged: dict[str, bool] = {}
    for guide in GUIDES:
        with stages.stage(guide):
            post = vihier.fit(
                screen, model, guide=guide, likelihood="normal", noise="global", draws=draws, seed=seed, quiet=True
            )
        with post, stages.stage(f"{guide}_predict"):
            density[guide], lower = predict_rows(post, scored)
            converged[guide] = bool(post.converged)
        coverage[guide] = {"all": interval_coverage(lower)}
        if "screen" in scored:
            for name, rows in scored.groupby("screen", observed=True).indices.items():
                coverage[guide][str(name)] = interval_coverage(lower[rows])
        print(f"holdout: {guide} done in {stages.seconds[guide]} s", file=sys.stderr)
    lines = scored["depmap_id"].to_numpy()
    against = {name: compare(density["structured"], density[name], lines) for name in density if name != "structured"}
    ok = {"mean_field": against["mean_field"]["difference"] > -2 * against["mean_field"]["se"]}
    ok |= {name: against[name]["difference"] > 2 * against[name]["se"] for name in MEANS}
    return {
        "rows": {"train": len(train), "held_out": len(test), "scored": len(scored)},
        "log_density": {name: round(float(values.mean()), 4) for name, values in density.items()},
        "structured_against": against,
        "ok": ok,
        "coverage": coverage,
        "converged": converged,
        "seconds": stages.seconds,
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=SHARED_DATA / "avana_ky.parquet", help="screen table")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument("--share", type=float, default=0.1, help="rows held out at random")
    parser.add_argument("--model", default="additive")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Hold out, fit, score, print."""
    given = arguments()
    if not given.data.exists():
        print(f"holdout: skipped, {given.data} is not there; give the table's path", file=sys.stderr)
        return 0
    warnings.simplefilter("ignore", vihier.FitWarning)
    screen = vihier.read_screen(given.data)
    if given.genes is not None:
        screen = screen.subset(n_genes=given.genes, seed=given.seed)
    table = screen.to_frame()
    table = table[[name for name in KEYS if name in table]]
    random = np.random.default_rng(given.seed)
    held = {
        "rows": rows_at_random(table, given.share, random),
        "replicates": one_replicate_of_each_line(table, random),
    }
    parts = {name: study(table, rows, given.model, given.draws, given.seed) for name, rows in held.items()}
    passed = all(all(part["ok"].values()) for part in parts.values())
    record = {"passed": passed, "model": given.model, "genes": screen.n_genes, "draws": given.draws, **parts}
    record |= {"peak_memory_gb": peak_memory_gb(), "machine": machine()}
    print(json.dumps(record, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"holdout: {error}")
