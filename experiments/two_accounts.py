"""Two accounts of a screen in which few genes deplete: what each sgRNA does on average, by quadrature, and a fit.

`sigma_mu_alpha` and `sigma_sigma_alpha` of the `additive` model may have two humps. Here the log density of both is
computed on a grid from each sgRNA's mean fold change, genes' levels in closed form and genes' scales by quadrature,
with no part of the fitter, and the humps are listed beside where a fit's draws lie. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from run_record import existing, machine, peak_memory_gb

import vihier

SITES = ("sigma_mu_alpha", "sigma_sigma_alpha")
# Points in the logarithm of either, of a gene's own scale, and of the genes' common level about the median sgRNA.
GRID, STEP, OWN = (-4.6, 0.4), 0.1, np.linspace(-7.0, 2.0, 150)
LEVELS, TINY = np.linspace(-0.4, 0.4, 17), 1e-300


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a screen; else one is simulated")
    parser.add_argument("--genes", type=int, default=900)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--likelihood", default="normal", choices=("normal", "student_t"))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def evidence(screen: vihier.Screen) -> tuple[np.ndarray, np.ndarray]:
    """Return the grid's points, and at each pair of them the largest log density over the genes' common level.

    The noise of an sgRNA's mean is that of its rows about it, as if all had as many.
    """
    table = pd.DataFrame({"gene": screen.gene, "sgrna": screen.sgrna, "lfc": screen.lfc})
    sgrnas = table.groupby(["gene", "sgrna"])["lfc"]
    means, noise = sgrnas.mean(), sgrnas.var().mean() / sgrnas.count().mean()
    genes = means.groupby("gene")
    number, mean, square = (x.to_numpy()[:, None] for x in (genes.size(), genes.mean(), genes.var(ddof=0)))
    square = square * number
    points = np.arange(*GRID, STEP)
    own = np.exp(2 * OWN) + noise
    found = np.full((len(points), len(points)), -np.inf)
    prior = OWN - points[:, None] - 0.5 * np.exp(2 * (OWN - points[:, None]))
    within = -0.5 * ((number - 1) * np.log(own) + square / own)
    for i, of_genes in enumerate(points):
        whole = own + number * np.exp(2 * of_genes)
        for level in np.median(means) + LEVELS:
            rows = within - 0.5 * (np.log(whole) + number * (mean - level) ** 2 / whole)
            peak = rows.max(1, keepdims=True)
            given = np.log(np.exp(rows - peak) @ np.exp(prior).T + TINY) + peak
            found[i] = np.maximum(found[i], given.sum(0))
    hyper = points - np.exp(2 * points) / 18  # HalfNormal(3), on the log scale
    return points, found + hyper[:, None] + hyper


def humps(points: np.ndarray, density: np.ndarray) -> list[dict[str, float]]:
    """List the grid's local maxima, the highest first: where, and how many nats below the first."""
    padded = np.pad(density, 1, constant_values=-np.inf)
    around = [np.roll(padded, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    at = np.argwhere(density >= np.max(around, axis=0)[1:-1, 1:-1])
    order = sorted(at, key=lambda place: -density[tuple(place)])
    return [
        {
            **{f"log {site}": round(float(points[k]), 2) for site, k in zip(SITES, place, strict=True)},
            "nats": round(float(density[tuple(place)] - density.max()), 1),
        }
        for place in order
    ]


def main() -> None:
    """Simulate, integrate, fit, print."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "screen.parquet"
        if asked.data:
            data = existing(asked.data, "screens")
        else:
            vihier.simulate(data, genes=asked.genes, lines=asked.lines, seed=asked.seed)
        screen = vihier.read_screen(data)
        points, density = evidence(screen)
        start = time.process_time()
        rows = {"likelihood": asked.likelihood, "noise": "global" if asked.likelihood == "normal" else "replicate"}
        fit = vihier.fit(screen, draws=asked.draws, seed=asked.seed, out=Path(folder) / "fit.h5", quiet=True, **rows)
        draws = {f"log {site}": np.log(fit.draws(site).to_numpy()) for site in SITES}
        found = {
            "genes": screen.n_genes,
            "rows": screen.n_rows,
            "humps": humps(points, density),
            "fit": {
                site: {"mean": round(float(x.mean()), 3), "sd": round(float(x.std()), 3)} for site, x in draws.items()
            },
            "converged": bool(fit.converged),
            "cpu_seconds": round(time.process_time() - start, 1),
            "peak_memory_gb": peak_memory_gb(),
            "machine": machine(),
        }
        fit.close()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
