"""Whether predicted intervals cover rows of what a fit has not seen, case by case, on Avana and KY. Prints JSON.

Held out in turn: 10 % of rows at random; a replicate of each line that has two; an sgRNA of each gene that has three;
every line of lineages that have three, a third of each lineage at a time; every lineage, a quarter of them at a time;
whole genes. A 90 % interval should cover 87 to 93 % of the rows in each case; exit status 1 where one does not. The
noise of a line is its own, and there are few lines and lineages: so all of them have their turn, and standard errors by
held-out element are printed beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from holdout import one_replicate_of_each_line, rows_at_random
from run_record import SHARED_DATA, Stages, existing, machine, peak_memory_gb

import vihier
from vihier.inference.predict_table import coverage

PROB = 0.9
LOW, HIGH = 0.87, 0.93


def one_of_each(table: pd.DataFrame, parent: str, child: str, least: int, random: np.random.Generator) -> np.ndarray:
    """Mark the rows of one child, drawn at random, of every parent that has at least so many; bool [N]."""
    pairs = table[[parent, child]].drop_duplicates().sort_values([parent, child])
    held = [
        str(random.choice(children[child].to_numpy()))
        for _, children in pairs.groupby(parent, sort=True)
        if len(children) >= least
    ]
    return table[child].isin(held).to_numpy()


def in_turn(
    table: pd.DataFrame, parent: str, child: str, least: int, folds: int, random: np.random.Generator
) -> list[np.ndarray]:
    """Mark the rows of a part of the children of every parent that has at least so many, one part after another."""
    pairs = table[[parent, child]].astype(str).drop_duplicates().sort_values([parent, child])
    fold: dict[str, int] = {}
    for _, children in pairs.groupby(parent, sort=True):
        if len(children) >= least:
            fold |= {name: i % folds for i, name in enumerate(random.permutation(children[child].to_numpy()))}
    of_rows = table[child].astype(str).map(fold)
    return [(of_rows == i).to_numpy() for i in range(folds)]


def some(table: pd.DataFrame, column: str, share: float, random: np.random.Generator) -> np.ndarray:
    """Mark the rows of a share of a column's labels, two at least, drawn at random; bool [N]."""
    labels = np.sort(table[column].unique().astype(str))
    held = random.choice(labels, size=max(2, round(share * len(labels))), replace=False)
    return table[column].isin(held).to_numpy()


def cases(table: pd.DataFrame, seed: int) -> Iterator[tuple[str, list[np.ndarray], list[str]]]:
    """Yield the cases: a name, the rows held out one time after another, and the columns that name what was."""
    random = np.random.default_rng(seed)
    replicate = [name for name in ("depmap_id", "replicate_id", "screen") if name in table]
    yield "rows", [rows_at_random(table, 0.1, random)], ["sgrna"]
    yield "replicate", [one_replicate_of_each_line(table, random)], replicate
    yield "sgrna", [one_of_each(table, "hugo_symbol", "sgrna", 3, random)], ["sgrna"]
    yield "line", in_turn(table, "lineage", "depmap_id", 3, 3, random), ["depmap_id"]
    yield "lineage", in_turn(table.assign(all="all"), "all", "lineage", 2, 4, random), ["lineage"]
    yield "gene", [some(table, "hugo_symbol", 0.1, random)], ["hugo_symbol"]


def score(predicted: pd.DataFrame, unit: list[str]) -> dict[str, Any]:
    """Coverage with its standard error by held-out element, and the mean log predictive density."""
    inside = predicted["lfc"].between(predicted["eti_5%"], predicted["eti_95%"])
    of_unit = (inside - inside.mean()).groupby([predicted[name] for name in unit]).sum()
    found = {
        "rows": len(predicted),
        "held_out_elements": len(of_unit),
        "new": predicted["new"].value_counts().to_dict(),
        "coverage": round(coverage(predicted, PROB), 4),
        "se": round(float(np.sqrt((of_unit**2).sum()) / len(predicted)), 4),
        "log_density": round(float(predicted["log_density"].mean()), 4),
    }
    if "screen" in predicted:
        of_screen = predicted.groupby("screen", observed=True)
        found["by_screen"] = {str(name): round(coverage(rows, PROB), 4) for name, rows in of_screen}
    return found


def study(table: pd.DataFrame, wanted: list[str] | None, seed: int, **options: Any) -> dict[str, Any]:
    """Fit what is left and predict what was held out, case by case."""
    record: dict[str, Any] = {}
    for name, times, unit in cases(table, seed):
        if wanted and name not in wanted:
            continue
        stages, parts, converged = Stages(), [], True
        for number, held in enumerate((held for held in times if held.any()), 1):
            with stages.stage(f"fit {number}"):
                post = vihier.fit(table[~held], seed=seed, quiet=True, **options)
            with post, stages.stage(f"predict {number}"):
                parts.append(vihier.predict(post, table[held], prob=PROB))
            converged = converged and bool(post.converged)
        record[name] = score(pd.concat(parts, ignore_index=True), unit)
        record[name] |= {"converged": converged, "seconds": stages.seconds}
        print(f"prediction_cases: {name}: {record[name]['coverage']}", file=sys.stderr)
    return record


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=SHARED_DATA / "avana_ky.parquet", help="screen table")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument("--cases", nargs="*", help="some of the cases")
    parser.add_argument("--model", default="additive")
    parser.add_argument("--likelihood", help="of the fit; the default one where it is not given")
    parser.add_argument("--noise", help="of the fit; the default one where it is not given")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Hold out, fit, predict, score, print."""
    given = arguments()
    warnings.simplefilter("ignore", vihier.FitWarning)
    screen = vihier.read_screen(existing(given.data, "rows"))
    if given.genes is not None:
        screen = screen.subset(n_genes=given.genes, seed=given.seed)
    options = {name: getattr(given, name) for name in ("likelihood", "noise") if getattr(given, name) is not None}
    found = study(screen.to_frame(), given.cases, given.seed, model=given.model, draws=given.draws, **options)
    passed = all(LOW <= case["coverage"] <= HIGH for case in found.values())
    record = {"passed": passed, "model": given.model, **options, "genes": screen.n_genes, "cases": found}
    record |= {"peak_memory_gb": peak_memory_gb(), "machine": machine()}
    print(json.dumps(record, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"prediction_cases: {error}")
