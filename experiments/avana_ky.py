"""How well `additive`, fitted to the whole of Avana and KY, tells essential genes from non-essential ones.

Prints JSON; writes the posterior, the table of effects and figures to a folder. Against Chronos on the same counts:
AUROC 0.971 and 0.993, NNMD -9.4 and -12.3 (Achilles controls, Hart).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from control_genes import read_gene_sets
from run_record import SHARED_DATA, Stages, existing, machine, peak_memory_gb

import vihier
from vihier import plots
from vihier.diagnostics.control_genes import ControlGenes, separation

PER_ROW = ("elbo_per_row", "log_density_per_row")
QUICK = {"n_genes": 60, "draws": 200, "max_steps": 100}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "avana_ky.parquet", help="table of the two screens")
    parser.add_argument("--gene-sets", type=Path, default=SHARED_DATA / "gene_sets", help="folder of reference genes")
    parser.add_argument("--out", type=Path, default=Path("results/avana_ky"), help="folder to write to")
    parser.add_argument("--model", default="additive")
    parser.add_argument("--guide", default="structured", choices=("structured", "mean_field"))
    parser.add_argument("--likelihood", default="auto", choices=("auto", "normal", "student_t"))
    parser.add_argument("--noise", default="auto", choices=("auto", "global", "screen", "line", "replicate"))
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="60 genes, few steps: does it run?")
    return parser.parse_args()


def control_figure(effect: pd.DataFrame, sets: dict[str, ControlGenes], path: Path) -> None:
    """Draw how effects of essential and non-essential genes are distributed over all lines."""
    figure, axes = plt.subplots(len(sets), 1, figsize=(6.4, 3.6 * len(sets)), layout="constrained", sharex=True)
    for ax, two in zip(axes, sets.values(), strict=True):
        plots.control_distributions(effect, two, ax)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def figures(post: vihier.Posterior, effect: pd.DataFrame, sets: dict, out: Path) -> list[str]:
    """Write the figures and return their names."""
    control_figure(effect, sets, out / "controls.png")
    for name, draw in {"elbo.png": plots.elbo, "effect_heatmap.png": plots.effect_heatmap}.items():
        ax = draw(post)
        ax.figure.savefig(out / name, dpi=130)
        plt.close(ax.figure)
    return sorted(path.name for path in out.glob("*.png"))


def main() -> int:
    """Fit, judge, print."""
    given = arguments()
    data = existing(given.data, "screen data")
    sets = read_gene_sets(existing(given.gene_sets, "reference gene sets"))
    given.out.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    with stages.stage("read"):
        screen = vihier.read_screen(data)
        if given.quick:
            screen = screen.subset(n_genes=QUICK["n_genes"], seed=given.seed)
    with stages.stage("fit"):
        post = vihier.fit(
            screen,
            given.model,
            guide=given.guide,
            likelihood=given.likelihood,
            noise=given.noise,
            draws=QUICK["draws"] if given.quick else given.draws,
            max_steps=QUICK["max_steps"] if given.quick else None,
            seed=given.seed,
            out=given.out / f"{given.guide}.h5",
            force=True,
        )
    with stages.stage("summary"):
        post.summary("effect").to_csv(given.out / "effect.csv", index=False)
        effect = post.moments("effect")["mean"].transpose("depmap_id", "hugo_symbol").to_pandas()
        by_line = {name: separation(effect, two) for name, two in sets.items()}
    with stages.stage("figures"):
        drawn = figures(post, effect, sets, given.out)
    history = post.group("vi_history")
    record = {
        "screen": {"rows": screen.n_rows, "genes": screen.n_genes, "sgrnas": screen.n_sgrnas, "lines": screen.n_lines},
        "model": given.model,
        "guide": given.guide,
        "quick": given.quick,
        "converged": post.converged,
        "likelihood": {name: post.config[name] for name in ("likelihood", "noise")},
        **{name: round(float(history[name][-1]), 4) for name in PER_ROW if name in history},
        "controls": {
            name: {"auroc": round(float(each["auroc"].median()), 4), "nnmd": round(float(each["nnmd"].median()), 2)}
            for name, each in by_line.items()
        },
        "seconds": stages.seconds,
        "peak_memory_gb": peak_memory_gb(),
        "machine": machine(),
        "out": str(given.out),
        "figures": drawn,
    }
    print(json.dumps(record, indent=2))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"avana_ky: {error}")
