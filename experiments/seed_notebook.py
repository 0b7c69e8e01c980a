"""What the notebook that started vihier did, on Avana: twenty genes in five lineages, and in all lines.

`gene_lineage` twice (with N(0, 3) for mu_mu_mu_gamma, and with the notebook's N(3, 1)) and `additive`. Prints JSON;
writes figures, posteriors and model graphs to a folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from run_record import SHARED_DATA, Stages, existing, machine, peak_memory_gb

import vihier
from vihier import plots
from vihier.models.program import load_program
from vihier.plots.graph import write_graph

NOTEBOOK_PRIOR = {"mu_mu_mu_gamma": "Normal(3, 1)"}
# name -> (model, priors, its gene x line variable); gamma of `additive` is known up to an offset only
FITS: dict[str, tuple[str, dict[str, str] | None, str]] = {
    "gene_lineage": ("gene_lineage", None, "gamma"),
    "gene_lineage_N31": ("gene_lineage", NOTEBOOK_PRIOR, "gamma"),
    "additive": ("additive", None, "gamma_dev"),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "avana_ky.parquet", help="table of the screen")
    parser.add_argument("--out", type=Path, default=Path("results/seed_notebook"), help="folder to write to")
    parser.add_argument("--guide", default="structured", choices=("structured", "mean_field"))
    parser.add_argument("--seed", type=int, default=0, help="of the genes and lineages drawn, and of the fits")
    parser.add_argument("--quick", action="store_true", help="five genes, few draws and steps: does it run?")
    return parser.parse_args()


def save(figure: Figure, path: Path) -> None:
    """Write a figure and forget it."""
    figure.savefig(path, dpi=110)
    plt.close(figure)


def grid_of_genes(genes: np.ndarray, n_lineages: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes for each gene, tall enough for the names of the lineages."""
    columns = min(4, len(genes))
    rows = -(-len(genes) // columns)
    height = 0.9 + 0.2 * n_lineages
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, height * rows), layout="constrained")
    every = list(np.atleast_1d(axes).ravel())
    for spare in every[len(genes) :]:
        spare.set_axis_off()
    return figure, every[: len(genes)]


def describe_screen(screen: vihier.Screen, out: Path) -> dict[str, Any]:
    """Count lines, average lfc by lineage and gene, and draw both, and lfc as boxes by lineage for each gene."""
    frame = screen.to_frame()
    lines = frame.drop_duplicates("depmap_id").groupby("lineage").size().sort_values()
    mean = frame.pivot_table(index="lineage", columns="hugo_symbol", values="lfc", aggfunc="mean")

    figure, ax = plt.subplots(figsize=(5, 1 + 0.25 * len(lines)), layout="constrained")
    ax.bar_label(ax.barh(lines.index, lines.to_numpy(), color="#22567d"), padding=2)
    ax.set_xlabel("cell lines")
    save(figure, out / "lines_per_lineage.png")

    figure, ax = plt.subplots(figsize=(2.5 + 0.4 * mean.shape[1], 1.6 + 0.3 * len(mean)), layout="constrained")
    limit = float(np.nanmax(np.abs(mean.to_numpy())))
    image = ax.imshow(mean.to_numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(range(mean.shape[1]), mean.columns, rotation=90)
    ax.set_yticks(range(len(mean)), mean.index)
    figure.colorbar(image, ax=ax, label="mean lfc (log2 fold change)")
    save(figure, out / "mean_lfc.png")

    assert screen.index.lineages is not None and screen.index.lineage_of_line is not None
    figure, axes = grid_of_genes(screen.index.genes, screen.n_lineages)
    for code, (gene, ax) in enumerate(zip(screen.index.genes, axes, strict=True)):
        rows = slice(*screen.gene_starts[code : code + 2])
        lineage = screen.index.lineage_of_line[screen.line[rows]]
        plots.boxes_by_lineage(screen.lfc[rows], lineage, screen.index.lineages, ax).set(title=gene, xlabel="lfc")
    save(figure, out / "lfc_by_lineage.png")
    return {
        "rows": screen.n_rows,
        "genes": screen.index.genes.tolist(),
        "lines": screen.n_lines,
        "lines_per_lineage": {name: int(count) for name, count in lines[::-1].items()},
        "mean_lfc": mean.round(3).to_dict(orient="index"),
    }


def hyperparameters(post: vihier.Posterior) -> list[str]:
    """Return the names of the scalar variables."""
    return [name for name, dims in post.variables.items() if not dims]


def describe_fit(post: vihier.Posterior, name: str, gene_line: str, out: Path) -> dict[str, Any]:
    """Draw a fit, and return its table of hyper-parameters."""
    scalars = hyperparameters(post)
    figure, axes = plt.subplots(len(scalars), 2, figsize=(10, 1.7 * len(scalars)), layout="constrained", squeeze=False)
    for row, scalar in zip(axes, scalars, strict=True):
        plots.trace(post, scalar, row[0])
        plots.density(post, scalar, row[1])
    save(figure, out / f"{name}_hyperparameters.png")

    save(plots.effect_heatmap(post, var=gene_line).figure, out / f"{name}_{gene_line}.png")
    genes = post.labels("hugo_symbol")
    figure, axes = grid_of_genes(genes, len(post.labels("lineage")))
    for gene, ax in zip(genes, axes, strict=True):
        plots.effects_by_lineage(post, gene, ax, var=gene_line).set(title=gene, xlabel=gene_line)
    save(figure, out / f"{name}_{gene_line}_by_lineage.png")
    save(plots.elbo(post).figure, out / f"{name}_elbo.png")
    table = post.summary(scalars).set_index("variable").drop(columns="not_identified", errors="ignore")
    return {"converged": post.converged, "hyperparameters": table.astype(float).round(4).to_dict(orient="index")}


def prior_difference(posts: dict[str, vihier.Posterior]) -> dict[str, Any]:
    """Say what N(3, 1) in the place of N(0, 3) moves, in posterior sds under N(0, 3)."""
    ours, theirs = posts["gene_lineage"], posts["gene_lineage_N31"]
    names = hyperparameters(ours)
    first, second = (post.summary(names).set_index("variable") for post in (ours, theirs))
    moved = (second["mean"] - first["mean"]) / first["sd"]
    a, b = (post.moments("effect") for post in (ours, theirs))
    return {
        "hyperparameters_in_sd": {name: round(float(shift), 3) for name, shift in moved.items()},
        "effect_rms_in_sd": round(float(np.sqrt((((b["mean"] - a["mean"]) / a["sd"]) ** 2).mean())), 4),
    }


def study(screen: vihier.Screen, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Describe a part of the screen, fit the models to it and describe the fits."""
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    with stages.stage("describe"):
        record: dict[str, Any] = {"screen": describe_screen(screen, out), "fits": {}}
    posts = {}
    for name, (model, priors, gene_line) in FITS.items():
        with stages.stage(name):
            posts[name] = vihier.fit(
                screen,
                model,
                guide=given.guide,
                priors=priors,
                seed=given.seed,
                draws=100 if given.quick else 1000,
                max_steps=20 if given.quick else None,
                out=out / f"{name}.h5",
                force=True,
            )
        with stages.stage(f"{name}_figures"):
            record["fits"][name] = describe_fit(posts[name], name, gene_line, out)
    record["prior_difference"] = prior_difference(posts)
    return record | {"seconds": stages.seconds}


def graphs(out: Path) -> list[str]:
    """Write the models' graphs: text always, pictures where graphviz is there."""
    suffixes = (".dot", ".svg") if shutil.which("dot") else (".dot",)
    models = ("gene_lineage", "additive")
    written = [
        write_graph(load_program(model).model, out / f"{model}{suffix}") for model in models for suffix in suffixes
    ]
    return [path.name for path in written]


def main() -> int:
    """Run the study on both parts and print what it found."""
    given = arguments()
    data = existing(given.data, "screen data")
    avana = vihier.read_screen(data).subset(where={"screen": "broad"})
    n_genes = 5 if given.quick else 20
    parts = {
        "five_lineages": avana.subset(n_genes=n_genes, n_lineages=5, seed=given.seed),
        "all_lines": avana.subset(n_genes=n_genes, seed=given.seed),
    }
    record = {name: study(screen, given, given.out / name) for name, screen in parts.items()}
    record["graphs"] = graphs(given.out)
    record["guide"], record["quick"] = given.guide, given.quick
    record["peak_memory_gb"], record["machine"] = peak_memory_gb(), machine()
    print(json.dumps(record, indent=2, default=_plain))
    return 0


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"seed_notebook: {error}")
