"""What covariates and a joint fit of two libraries buy on Avana and KY: additive, covariate, multi_screen. Prints JSON.

Of each model: log predictive density of 10 % of the rows held out at random, and PSIS-LOO of all rows (differences a
row, with the standard error of paired rows); how the effects of non-essential genes depend on copy number, which is an
artefact of cutting; how well effects tell essential genes from non-essential ones; the time of the fit. Models of
counts are left out: their densities are of another unit. Writes `model_comparison.json` and a figure to a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from control_genes import read_gene_sets
from holdout import compare, rows_at_random
from run_record import SHARED_DATA, Stages, existing, machine, peak_memory_gb

import vihier
from vihier.diagnostics.control_genes import ControlGenes, separation
from vihier.diagnostics.leave_one_out import leave_rows_out
from vihier.inference.predict import program_of
from vihier.inference.predictor import Predictor
from vihier.posterior.reader import Posterior

MODELS = ("additive", "covariate", "multi_screen")
N_BINS = 10


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "avana_ky.parquet", help="table of the two screens")
    parser.add_argument("--gene-sets", type=Path, default=SHARED_DATA / "gene_sets", help="folder of reference genes")
    parser.add_argument("--out", type=Path, default=Path("results/model_comparison"), help="folder to write to")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the rows held out")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--loo-draws", type=int, default=200)
    parser.add_argument("--likelihood", default="normal", choices=("normal", "student_t"))
    parser.add_argument("--noise", default="global", choices=("global", "screen", "line", "replicate"))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def residuals(table: pd.DataFrame) -> np.ndarray:
    """Take the means of genes (rows) and lines (columns) off, one after the other until both are gone."""
    left = table.to_numpy(dtype=float)
    for _ in range(20):
        left = left - np.nanmean(left, axis=1, keepdims=True)
        left = left - np.nanmean(left, axis=0, keepdims=True)
    return left


def copy_number_bias(
    effect: pd.DataFrame, copies: pd.DataFrame, genes: list[str]
) -> tuple[dict[str, float], pd.Series]:
    """How effects [line, gene] of some genes depend on copy number, means of genes and lines taken off both.

    Returns
    -------
    dict
        `slope`, log2 fold change for one unit of the table's copy number, with its standard error over lines.
    Series
        Mean of what is left of the effects in tenths of the copy numbers, by the mean copy number there.
    """
    x, y = copies.loc[genes], effect.T.loc[genes, copies.columns]
    x = x.where(y.notna())
    left_x, left_y = residuals(x), residuals(y.where(x.notna()))
    xx, xy = np.nansum(left_x**2, axis=0), np.nansum(left_x * left_y, axis=0)
    slope = xy.sum() / xx.sum()
    se = np.sqrt(((xy - slope * xx) ** 2).sum()) / xx.sum()
    there = np.isfinite(left_x) & np.isfinite(left_y)
    raw = x.to_numpy()[there]
    tenth = pd.qcut(raw, N_BINS, labels=False, duplicates="drop")
    trend = pd.DataFrame({"x": raw, "y": left_y[there], "bin": tenth}).groupby("bin").mean()
    return {"slope": round(float(slope), 4), "se": round(float(se), 4)}, trend.set_index("x")["y"]


def fit_models(screen: vihier.Screen, given: argparse.Namespace, stages: Stages, what: str) -> dict[str, Posterior]:
    """Fit every model to a screen, timed."""
    fits = {}
    for model in MODELS:
        with stages.stage(f"{what}, {model}"):
            fits[model] = vihier.fit(
                screen,
                model,
                likelihood=given.likelihood,
                noise=given.noise,
                draws=given.draws,
                seed=given.seed,
                out=given.out / f"{model}.{what.replace(' ', '_')}.h5",
                force=True,
            )
    return fits


def beside_additive(density: dict[str, np.ndarray], lines: np.ndarray) -> dict[str, dict[str, Any]]:
    """Mean log density a row of each model, and by how much it is better than `additive`, row by row."""
    return {
        model: {"per_row": round(float(values.mean()), 5), **compare(values, density["additive"], lines)}
        for model, values in density.items()
    }


def left_out(fits: dict[str, Posterior], screen: vihier.Screen, draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """PSIS-LOO of all rows, everything of a gene but its scales integrated out."""
    found = {}
    for model, post in fits.items():
        of = Predictor.of(post, screen, program_of(post), draws=min(draws, post.n_draws * post.n_chains), seed=seed)
        found[model] = leave_rows_out(of)
    table = beside_additive({model: loo.elpd for model, loo in found.items()}, screen.line)
    for model, loo in found.items():
        table[model] |= {"p_loo": round(loo.p_loo), "share_khat_above_0.7": round(loo.share_bad, 5)}
    return table


def held_out_rows(fits: dict[str, Posterior], test: pd.DataFrame, seed: int) -> dict[str, dict[str, Any]]:
    """Log predictive density of rows that the fits have not seen."""
    density = {model: vihier.predict(post, test, seed=seed)["log_density"].to_numpy() for model, post in fits.items()}
    return beside_additive(density, test["depmap_id"].to_numpy())


def figure(found: dict[str, Any], trends: dict[str, pd.Series], path: Path) -> None:
    """Draw predictive densities beside `additive`'s, and effects of non-essential genes against copy number."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for offset, which in ((-0.1, "held_out"), (0.1, "loo")):
        others = [model for model in MODELS if model != "additive"]
        gains = [found[model][which]["difference"] for model in others]
        errors = [found[model][which]["se"] for model in others]
        left.errorbar(np.arange(len(others)) + offset, gains, yerr=np.multiply(2, errors), fmt="o", label=which)
    left.axhline(0, color="0.7", lw=0.8)
    left.set_xticks(range(len(others)), others)
    left.set_xlim(-0.6, len(others) - 0.4)
    left.set_ylabel("nats a row better than additive (2 se)")
    left.legend(frameon=False)
    for model, trend in trends.items():
        right.plot(
            trend.index, trend, marker="o", ms=4, label=f"{model}: slope {found[model]['copy_number']['slope']:+.3f}"
        )
    right.axhline(0, color="0.7", lw=0.8)
    right.set_xlabel("copy number of the table (1 is diploid)")
    right.set_ylabel("effect of non-essential genes,\nless means of gene and line")
    right.legend(frameon=False)
    drawn.savefig(path, dpi=130)
    plt.close(drawn)


def judge(post: Posterior, copies: pd.DataFrame, sets: dict[str, ControlGenes]) -> tuple[dict[str, Any], pd.Series]:
    """Copy-number bias of the effects, and how well they separate the reference genes."""
    effect = post.moments("effect")["mean"].transpose("depmap_id", "hugo_symbol").to_pandas()
    of_set = sets["achilles"].among(effect.columns.to_numpy())[1]
    bias, trend = copy_number_bias(effect, copies, effect.columns[of_set].tolist())
    controls = {name: separation(effect, two) for name, two in sets.items()}
    medians = {
        name: {"auroc": round(float(each["auroc"].median()), 4), "nnmd": round(float(each["nnmd"].median()), 2)}
        for name, each in controls.items()
    }
    return {"copy_number": bias, "controls": medians, "converged": post.converged}, trend


def main() -> int:
    """Fit, compare, judge, print."""
    given = arguments()
    data = existing(given.data, "screen data")
    sets = read_gene_sets(existing(given.gene_sets, "reference gene sets"))
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", vihier.FitWarning)
    screen = vihier.read_screen(data).subset(n_genes=given.genes, seed=given.seed)
    table, stages = screen.to_frame(), Stages()
    held = rows_at_random(table, given.held_out, np.random.default_rng(given.seed))
    fits = fit_models(screen, given, stages, "all rows")
    found: dict[str, Any] = {}
    trends = {}
    copies = table.pivot_table(index="hugo_symbol", columns="depmap_id", values="copy_number")
    for model, post in fits.items():
        found[model], trends[model] = judge(post, copies, sets)
        found[model]["seconds"] = stages.seconds[f"all rows, {model}"]
    with stages.stage("leave one out"):
        loo = left_out(fits, screen, given.loo_draws, given.seed)
    train = vihier.read_screen(table[~held])
    known = table["sgrna"].isin(train.index.sgrnas) & table["depmap_id"].isin(train.index.lines)
    trained = fit_models(train, given, stages, "training rows")
    with stages.stage("held out"):
        held_out = held_out_rows(trained, table[held & known].reset_index(drop=True), given.seed)
    for model in MODELS:
        found[model] |= {"held_out": held_out[model], "loo": loo[model]}
    figure(found, trends, given.out / "model_comparison.png")
    record = {
        "screen": {
            "rows": screen.n_rows,
            "genes": screen.n_genes,
            "lines": screen.n_lines,
            "held_out": int(held.sum()),
        },
        "likelihood": f"{given.likelihood}, noise by {given.noise}",
        "models": found,
        "seconds": stages.seconds,
        "peak_memory_gb": peak_memory_gb(),
        "machine": machine(),
        "figure": str(given.out / "model_comparison.png"),
    }
    (given.out / "model_comparison.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"model_comparison: {error}")
