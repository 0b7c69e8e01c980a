"""One of the first models through the path of programs of any design, beside its own: the answers and what they cost.

Programs whose rows have covariates, or tables by screen or batch, are summed and eliminated by `vihier.kernels.design`;
the first models have kernels of their own. Here one of them is fitted by both, one after the other, and the effects are
compared: two fits that differ by Monte Carlo error alone differ by sqrt(2 / draws) sds in their means. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from run_record import SHARED_DATA, existing, machine, peak_memory_gb

import vihier
from vihier.guides import structure

PATHS = ("own", "general")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "avana_ky.parquet", help="a screen")
    parser.add_argument("--model", default="additive", choices=("additive", "crossed", "gene_lineage"))
    parser.add_argument("--likelihood", default="student_t", choices=("normal", "student_t"))
    parser.add_argument("--noise", default="replicate", choices=("global", "screen", "line", "replicate"))
    parser.add_argument("--genes", type=int, help="genes drawn at random; all where not given")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2, help="fits by each path")
    return parser.parse_args()


@contextmanager
def by(path: str) -> Iterator[None]:
    """Read any program as one of a design, where the path is the general one."""
    tables = () if path == "general" else structure.TABLES
    with mock.patch.object(structure, "TABLES", tables):
        yield


def main() -> None:
    """Fit, compare, print."""
    args = arguments()
    screen = vihier.read_screen(existing(args.data, "screens"))
    if args.genes:
        screen = screen.subset(n_genes=args.genes)
    seconds: dict[str, list[float]] = {path: [] for path in PATHS}
    moments: dict[str, list] = {path: [] for path in PATHS}
    for repeat in range(args.repeats):
        for path in PATHS:
            with by(path), tempfile.TemporaryDirectory() as folder:
                start = time.process_time()
                rows = {"likelihood": args.likelihood, "noise": args.noise}
                out = Path(folder) / "fit.h5"
                fit = vihier.fit(screen, args.model, draws=args.draws, seed=repeat, out=out, quiet=True, **rows)
                seconds[path].append(time.process_time() - start)
                moments[path].append(fit.moments("effect"))
                fit.close()
    pairs = {"own twice": ("own", 0, "own", 1)} if args.repeats > 1 else {}
    pairs["own and general"] = ("own", 0, "general", 0)
    found = {
        "rows": screen.n_rows,
        "model": args.model,
        "likelihood": args.likelihood,
        "noise": args.noise,
        "draws": args.draws,
        "cpu_seconds": {path: [round(x, 1) for x in of_path] for path, of_path in seconds.items()},
        "cpu_ratio": round(min(seconds["general"]) / min(seconds["own"]), 2),
        "effects": {},
        "monte_carlo_rms": round(float(np.sqrt(2 / args.draws)), 3),
        "peak_memory_gb": peak_memory_gb(),
        "machine": machine(),
    }
    for name, (one, i, other, j) in pairs.items():
        first, second = moments[one][i], moments[other][j]
        off = ((second["mean"] - first["mean"]) / first["sd"]).to_numpy()
        ratio = (second["sd"] / first["sd"]).to_numpy()
        found["effects"][name] = {
            "mean_rms_in_sds": round(float(np.sqrt(np.mean(off**2))), 3),
            "mean_largest_in_sds": round(float(np.abs(off).max()), 2),
            "sd_ratio_median": round(float(np.median(ratio)), 3),
            "sd_ratio_1_and_99_percent": [round(float(x), 3) for x in np.quantile(ratio, [0.01, 0.99])],
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
