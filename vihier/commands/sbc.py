"""`vihier sbc`: simulation-based calibration on the design of a screen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands import fit_options as options
from vihier.commands.arguments import AsJson, Columns, OnConflict, Priors, SingleLineage, pairs, read
from vihier.commands.fit import Part
from vihier.commands.messages import say
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.diagnostics.replicates import Record

NOT_CALIBRATED = 3
_TRUTH = "Where the truth comes from"


def sbc(
    screen: Annotated[
        Path, typer.Option("--screen-like", "--screen", metavar="SCREEN", help="Table whose design is simulated.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="A JSON line a replicate; a run that was stopped goes on.")
    ],
    n: Annotated[int, typer.Option("--n", metavar="N", help="Replicates in all.")] = 100,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model; additive by default.", rich_help_panel=_TRUTH)
    ] = None,
    prior: Priors = None,
    likelihood: options.Likelihood = "normal",
    noise: options.Noise = "global",
    truth_from: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FIT.h5", help="Draw it from a fit of the screen, not the prior.", rich_help_panel=_TRUTH
        ),
    ] = None,
    guide: options.Guide = "structured",
    draws: Annotated[int, typer.Option(metavar="N", help="Posterior draws of each refit.")] = 400,
    seed: options.Seed = 0,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Replicates at once; one a core by default.")
    ] = None,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    genes: options.Genes = None,
    lines: options.Lines = None,
    lineages: options.Lineages = None,
    n_genes: options.NGenes = None,
    n_lineages: options.NLineages = None,
    where: options.Where = None,
    subset_seed: options.SubsetSeed = 0,
    figure: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Figure of coverage and ranks.")] = None,
    quiet: options.Quiet = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 3 when it is not calibrated.")] = False,
    as_json: AsJson = False,
) -> None:
    """Simulate the design of a screen from known truths, refit, and see whether the posteriors are calibrated.

    Each replicate has the sgRNAs, lines and replicates of the screen. Hyper-priors are tighter than the model's own,
    so that screens look like screens, unless --prior says otherwise.

    [b]Examples[/b]

    vihier sbc --model additive --screen-like screen.parquet --n-genes 10 --n 100 --out sbc.jsonl --figure sbc.png
    vihier sbc --from fit.h5 --screen-like screen.parquet --n 50 --out sbc.jsonl --json
    """
    if n < 2:
        raise VihierError(f"--n {n}: give 2 replicates or more")
    from vihier.atomic import check_writable

    check_writable(out)
    if figure is not None:
        check_writable(figure)
    part = Part.of(genes, lines, lineages, n_genes, n_lineages, where, subset_seed)
    from vihier.diagnostics.sbc import SbcStudy, run_sbc, verdict_of
    from vihier.models.likelihood import Likelihood

    priors = pairs(prior, "--prior", "'mu_gamma=Normal(0,2)'")
    if truth_from is not None and not truth_from.exists():
        raise VihierError(f"{truth_from}: no such file; --from takes a posterior file")
    table = part.cut(read(screen, column, single_lineage, on_conflict))
    if likelihood == "negative_binomial":
        raise VihierError("--likelihood negative_binomial: sbc simulates fold changes, not counts; leave it out")
    rows = Likelihood("normal" if likelihood == "auto" else likelihood, "global" if noise == "auto" else noise)
    study = SbcStudy.of(
        table, model, priors=priors, likelihood=rows, source=truth_from, guide=guide, draws=draws, seed=seed
    )

    def told(done: int, record: Record) -> None:
        if not quiet:
            say(f"{done} of {n} replicates, the last in {record.get('seconds', 0):.0f} s")

    records = run_sbc(study, n, out, processes=processes or os.cpu_count() or 1, told=told)
    verdict = verdict_of(records)
    if figure is not None:
        _draw(records, figure)
        verdict["figure"] = str(figure)
    _tell(verdict | {"out": str(out)}, as_json)
    if strict and not verdict["calibrated"]:
        raise typer.Exit(NOT_CALIBRATED)


def _tell(verdict: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(verdict, indent=2))
        return
    import pandas as pd

    variables = verdict["variables"]
    rows = [
        {
            "variable": name,
            **{f"covered_{level}": entry[level]["covered"] for level in ("50%", "90%")},
            "band_90%": entry["90%"]["band_99"],
            "mean_rank": entry["mean_rank"],
            "uniform_p": entry["uniform_p"],
        }
        for name, entry in variables.items()
    ]
    typer.echo(pd.DataFrame(rows).to_string(index=False))
    said = "calibrated" if verdict["calibrated"] else "NOT calibrated"
    off = [*verdict["coverage_off"], *(f"ranks of {name}" for name in verdict["ranks_not_uniform"])]
    typer.echo(
        f"{verdict['replicates']} replicates, {verdict['not_converged']} not converged, {verdict['refused']} refused: "
        f"{said}" + (f" ({', '.join(off)})" if off else "")
    )


def _draw(records: list[Record], figure: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from vihier.atomic import renamed_when_whole
    from vihier.diagnostics.calibration import ranked
    from vihier.plots.calibration import coverage_by_variable, rank_curves

    fitted = ranked(records)
    size = (5.6, 3.6 + 0.24 * len(fitted[0]))
    drawn, (above, below) = plt.subplots(2, 1, figsize=size, layout="constrained", height_ratios=(2, 1))
    coverage_by_variable(fitted, above)
    rank_curves(fitted, below).set_ylabel("share of replicates below - rank")
    drawn.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    with renamed_when_whole(figure) as partial:
        drawn.savefig(partial, format=figure.suffix[1:].lower() or "png", dpi=120)
    plt.close(drawn)
