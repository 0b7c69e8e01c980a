"""`vihier refine`: NUTS over the scales of chosen genes, beside the guide's draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands import answer_options as answers
from vihier.commands.arguments import GENES, LABELS, LINEAGES, AsJson, Columns, OnConflict, SingleLineage, labels
from vihier.commands.fit import Part
from vihier.commands.fitted_screen import fitted_screen
from vihier.commands.messages import say

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

_GENES, _RUN = "Which genes (one of these)", "The run"
NOT_PASSED = 3


def refine(
    fit: answers.Fit,
    screen: Annotated[
        Path | None, typer.Option(metavar="SCREEN", help="The screen it is a fit of; the fit says which by default.")
    ] = None,
    gene: Annotated[
        list[str] | None, typer.Option(*GENES, metavar=LABELS, help="Genes by name.", rich_help_panel=_GENES)
    ] = None,
    worst: Annotated[
        int | None, typer.Option(metavar="N", help="The genes with the largest k-hat.", rich_help_panel=_GENES)
    ] = None,
    lineage: Annotated[
        list[str] | None,
        typer.Option(
            *LINEAGES, metavar=LABELS, help="The 20 genes most selective for each lineage.", rich_help_panel=_GENES
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="All genes, of a small screen.", rich_help_panel=_GENES)] = False,
    chains: Annotated[int, typer.Option(metavar="N", help="Chains.", rich_help_panel=_RUN)] = 4,
    warmup: Annotated[
        int, typer.Option(metavar="N", help="Iterations of a chain that settle its step.", rich_help_panel=_RUN)
    ] = 500,
    draws: Annotated[int, typer.Option(metavar="N", help="Draws of each chain.", rich_help_panel=_RUN)] = 1000,
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same seed gives the same draws.", rich_help_panel=_RUN)
    ] = 0,
    target_accept: Annotated[
        float, typer.Option(metavar="X", help="Acceptance aimed at; nearer 1, smaller steps.", rich_help_panel=_RUN)
    ] = 0.8,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Chains at once; one a core by default.", rich_help_panel=_RUN)
    ] = None,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.h5", help="File to write; the fit's own by default.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_RUN)] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace NUTS draws that are there.", rich_help_panel=_RUN)
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 3 when a limit is not met.", rich_help_panel=_RUN)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sample some genes of a fit by NUTS, and keep the draws beside the guide's.

    All locations are integrated out exactly; what the other genes say of all that is shared stays in. 'vihier compare
    fit.h5' then says where the guide and NUTS differ.

    [b]Examples[/b]

    vihier refine fit.h5 --screen screen.parquet --genes KRAS,BRAF
    vihier refine fit.h5 --worst 20
    vihier refine fit.h5 --lineage skin --out skin.h5
    """
    from vihier.posterior.reader import open_posterior
    from vihier.refinement.refine import refine as run

    post = open_posterior(fit)
    part = Part.of(None, None, None, None, None, None, 0)
    table = fitted_screen(screen, post, part, column, single_lineage, on_conflict)
    refined = run(
        post,
        table,
        genes=labels(gene, "--genes"),
        worst=worst,
        lineage=labels(lineage, "--lineage"),
        full=full,
        chains=chains,
        warmup=warmup,
        draws=draws,
        seed=seed,
        target_accept=target_accept,
        processes=processes,
        out=out,
        quiet=quiet,
        force=force,
    )
    _conclude(refined, strict, as_json)


def _conclude(refined: Posterior, strict: bool, as_json: bool) -> None:
    about = refined.group("nuts", only=()).attrs
    failures = json.loads(about["failures"])
    passed = not failures
    if as_json:
        genes = refined.group("nuts", only=())["hugo_symbol"].values.tolist()
        account: dict[str, Any] = {"out": str(refined.path), "genes": genes, "passed": passed, "failures": failures}
        typer.echo(json.dumps(account | {"figures": json.loads(about["figures"])}, indent=2, ensure_ascii=False))
    else:
        typer.echo(refined.path)
        figures = json.loads(about["figures"])
        typer.echo(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items()))
    for failure in failures:
        say(f"NUTS did not pass: {failure}")
    if failures and strict:
        raise typer.Exit(NOT_PASSED)
