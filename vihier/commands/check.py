"""`vihier check`: what a referee would ask of a fit."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vihier.commands import answer_options as answers
from vihier.commands import fit_options as options
from vihier.commands.arguments import Columns, OnConflict, SingleLineage
from vihier.commands.fit import Part
from vihier.commands.fitted_screen import fitted_screen
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.diagnostics.checks import Checked

FAILED = 1
_COLOURS = {"pass": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def check(
    fit: answers.Fit,
    screen: Annotated[
        Path | None,
        typer.Option(metavar="SCREEN", help="The screen that it is a fit of; as the fit names it by default."),
    ] = None,
    essential: answers.Essential = None,
    nonessential: answers.Nonessential = None,
    draws: Annotated[int, typer.Option(metavar="N", help="Draws of the fit that rows are drawn from.")] = 200,
    seed: options.Seed = 0,
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
    out: answers.TableOut = None,
    p_values: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Table of the predictive p-values of every group.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Figure of the predictive p-values: .png, .pdf or .svg.")
    ] = None,
    as_json: answers.AsJson = False,
) -> None:
    """Ask of a fit what a referee would; exit status 1 where an item fails.

    Convergence, k-hat, rows drawn from the fit beside the rows measured, structure in the residuals, pooling, priors,
    what the data cannot tell, and control genes.

    [b]Examples[/b]

    vihier check fit.h5 --screen screen.parquet
    vihier check fit.h5 --screen screen.parquet --essential CEGv2.txt --nonessential NEGv1.txt --figure p.png
    """
    answers.check_out(out)
    answers.check_out(p_values)
    if figure is not None:
        _check_figure(figure)
    controls = answers.control_genes(essential, nonessential)
    part = Part.of(genes, lines, lineages, n_genes, n_lineages, where, subset_seed)
    from vihier.diagnostics.checks import check_fit
    from vihier.posterior.reader import open_posterior

    with ExitStack() as stack:
        post = stack.enter_context(open_posterior(fit))
        table = fitted_screen(screen, post, part, column, single_lineage, on_conflict)
        if table is None and (p_values is not None or figure is not None):
            raise VihierError("--p-values and --figure need the rows; give --screen")
        checked = check_fit(post, table, controls=controls, draws=draws, seed=seed)
    _hand_over(checked, fit, out, p_values, as_json)
    if figure is not None:
        _draw(checked, figure)
    if checked.status == "fail":
        raise typer.Exit(FAILED)


def _check_figure(path: Path) -> None:
    from vihier.atomic import check_writable

    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise VihierError(f"--figure {path}: the name ends in {path.suffix!r}; use .png, .pdf or .svg")
    check_writable(path)


def _hand_over(checked: Checked, fit: Path, out: Path | None, p_values: Path | None, as_json: bool) -> None:
    from vihier.answers.tables import write_frame

    if p_values is not None:
        write_frame(checked.p_value_table(), p_values)
    table = checked.table()
    if out is not None and str(out) == "-":
        if as_json:
            raise VihierError("--json and --out -: both go to standard output; give one")
        typer.echo(table.to_csv(index=False), nl=False)
        return
    if out is not None:
        write_frame(table, out)
    if as_json:
        items = [
            {"item": x.name, "status": x.status, "sentence": x.sentence, "figures": dict(x.figures)}
            for x in checked.items
        ]
        account = {"fit": str(fit), "status": checked.status, "items": items}
        typer.echo(json.dumps(_without_nan(account), indent=2, ensure_ascii=False))
        return
    for item in checked.items:
        typer.echo(f"{typer.style(item.status, fg=_COLOURS[item.status])}  {item.name}: {item.sentence}")
    counts = ", ".join(f"{(table['status'] == status).sum()} {status}" for status in _COLOURS)
    typer.echo(f"{fit}: {counts}")


def _without_nan(value: object) -> object:
    """Put null for what JSON cannot say."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if finite else None


def _draw(checked: Checked, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from vihier.atomic import renamed_when_whole
    from vihier.plots.p_values import p_values

    n = len(checked.p_values)
    figure, every = plt.subplots(1, n, figsize=(3.6 * n, 3.6), layout="constrained", squeeze=False)
    for found, ax in zip(checked.p_values, every[0], strict=True):
        p_values(found, ax)
    with renamed_when_whole(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix.lower().removeprefix("."))
    plt.close(figure)
