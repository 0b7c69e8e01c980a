"""The tour that `make demo` gives: simulate a screen, fit it, read the posterior, hold it to the truth, draw it."""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr
from small_png import write_small

import vihier
from vihier import plots

SHOWN = 8


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to")
    parser.add_argument("--genes", type=int, default=60)
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guide", default="structured", choices=("structured", "mean_field"))
    return parser.parse_args()


def against_truth(post: vihier.Posterior, truth: xr.Dataset) -> pd.DataFrame:
    """Hold means and 89 % intervals to the truth: a row a variable that both have."""
    rows = {}
    for name in [name for name in post.variables if name in truth]:
        moments = post.moments(name)
        true = truth[name].transpose(*moments["mean"].dims)
        covered = (moments["hdi_lower"] <= true) & (true <= moments["hdi_upper"])
        error = moments["mean"] - true
        rows[name] = {
            "elements": true.size,
            "covered by 89 %": float(covered.mean()),
            "correlation": float(xr.corr(moments["mean"], true)) if true.size > 2 else float("nan"),
            "rms error": float((error**2).mean() ** 0.5),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def strongest(post: vihier.Posterior, truth: xr.Dataset, var: str) -> pd.DataFrame:
    """Return the most negative elements of a variable, with their truth."""
    table = post.summary(var).nsmallest(SHOWN, "mean")
    keys = list(post.variables[var])
    table["truth"] = (
        truth[var].to_series().reindex(pd.MultiIndex.from_frame(table[keys]) if keys[1:] else table[keys[0]]).to_numpy()
    )
    return table.drop(columns=["variable", "not_identified"], errors="ignore")


def picture(post: vihier.Posterior, truth: xr.Dataset, path: Path) -> None:
    """Draw the effects, the gene that differs most between lines, the truth and the convergence."""
    spread = post.moments("effect_dev")["mean"].std("depmap_id")
    gene = str(spread.idxmax("hugo_symbol").item())
    figure = plt.figure(figsize=(15, 12), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    above, below = left.subfigures(2, 1, height_ratios=(1.9, 1))
    plots.effect_heatmap(post, above.subplots())
    convergence, agreement = below.subplots(1, 2)
    plots.elbo(post, convergence)
    plots.truth_vs_posterior(post, truth["effect"], agreement)
    plots.forest(post, gene, right.subplots())
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    plt.close(figure)
    write_small(drawn, path)


def main() -> int:
    """Run the tour."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    written = vihier.simulate(
        given.out / "screen.parquet", genes=given.genes, lines=given.lines, lineages=6, seed=given.seed
    )
    screen = vihier.read_screen(written.table)
    print(f"A simulated screen, {written.table}:\n{screen.report}\n")

    post = vihier.fit(screen, "additive", guide=given.guide, out=given.out / "fit.h5", seed=0, force=True)
    verdict = "converged" if post.converged else "did not converge"
    print(f"A fit, {post.path}: {post.model}, {post.guide} guide, {post.n_draws} draws, {verdict}\n")

    with xr.open_dataset(written.truth, group="truth", engine="h5netcdf") as truth:
        print("Genes that lines need most (effect_gene, log2 fold change):")
        print(strongest(post, truth, "effect_gene").to_string(index=False, float_format="{:.2f}".format))
        print("\nGenes that single lines need more than others do (effect_dev):")
        print(strongest(post, truth, "effect_dev").to_string(index=False, float_format="{:.2f}".format))
        print("\nHeld to the truth that the screen was simulated from:")
        print(against_truth(post, truth).to_string(float_format="{:.3f}".format))
        picture(post, truth, given.out / "demo.png")
    print(f"\nThe picture: {given.out / 'demo.png'}")
    print(f"{time.perf_counter() - start:.0f} s in all. More: vihier summary {post.path} --var effect --out effect.csv")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"demo: {error}")
