"""What gross outliers do to the effects, by likelihood: 5 % of the rows of Avana are thrown far off. Prints JSON.

For `student_t` and `normal` rows, each by replicate and with one noise scale, effects of the spoilt screen are compared
with those of the clean one: root mean square of the differences of posterior means, in log2 fold change and in
posterior standard deviations of the clean fit. Times of the fits, and each as a multiple of the plain Normal's, are of
one run.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from run_record import SHARED_DATA, Stages, existing, machine, peak_memory_gb

import vihier

CHOICES = [("normal", "global"), ("normal", "replicate"), ("student_t", "global"), ("student_t", "replicate")]


def spoil(lfc: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Add 4 to 8 of either sign to a share of the rows, within the range that a log2 fold change has."""
    spoilt = lfc.copy()
    at = random.choice(len(lfc), round(share * len(lfc)), replace=False)
    spoilt[at] += random.uniform(4, 8, len(at)) * random.choice([-1, 1], len(at))
    return spoilt.clip(-20, 20)


def main() -> None:
    """Fit both screens with each likelihood, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=SHARED_DATA / "avana_ky.parquet", help="screen table")
    parser.add_argument("--screen", default="broad", help="the library that is taken; 'all' for all")
    parser.add_argument("--genes", type=int, help="this many genes, drawn at random, instead of all")
    parser.add_argument("--share", type=float, default=0.05, help="rows that are thrown off")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore", vihier.FitWarning)
    screen = vihier.read_screen(existing(given.data, "rows of Avana"))
    where = None if given.screen == "all" else {"screen": given.screen}
    screen = screen.subset(n_genes=given.genes, where=where, seed=given.seed)
    clean = screen.to_frame()
    spoilt = clean.assign(lfc=spoil(clean["lfc"].to_numpy(), given.share, np.random.default_rng(given.seed)))
    tables = {"clean": vihier.read_screen(clean), "spoilt": vihier.read_screen(spoilt)}
    stages = Stages()
    found: dict[str, Any] = {}
    for likelihood, noise in CHOICES:
        name = f"{likelihood}, noise by {noise}"
        moments = {}
        for which, table in tables.items():
            with stages.stage(f"{name}, {which}"):
                post = vihier.fit(
                    table, likelihood=likelihood, noise=noise, draws=given.draws, seed=given.seed, quiet=True
                )
            with post:
                moments[which] = post.moments("effect")
        moved = (moments["spoilt"]["mean"] - moments["clean"]["mean"]).to_numpy()
        found[name] = {
            "rms_log2_fold_change": round(float(np.sqrt((moved**2).mean())), 4),
            "rms_posterior_sds": round(float(np.sqrt(((moved / moments["clean"]["sd"].to_numpy()) ** 2).mean())), 3),
            "sd_of_effects": round(float(moments["clean"]["mean"].to_numpy().std()), 4),
            "seconds_clean": stages.seconds[f"{name}, clean"],
        }
        found[name]["times_plain"] = round(
            found[name]["seconds_clean"] / found["normal, noise by global"]["seconds_clean"], 2
        )
        print(f"{name}: {found[name]}", file=sys.stderr)
    record = {"rows": screen.n_rows, "genes": screen.n_genes, "lines": screen.n_lines, "share": given.share, **found}
    print(json.dumps(record | {"peak_memory_gb": peak_memory_gb(), "machine": machine()}, indent=2))


if __name__ == "__main__":
    try:
        main()
    except vihier.VihierError as error:
        sys.exit(f"outliers: {error}")
