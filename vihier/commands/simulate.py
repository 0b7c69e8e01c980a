"""`vihier simulate`: a screen to try things on, with its truth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from vihier.commands.arguments import MODEL_PANEL, AsJson, Priors, pairs
from vihier.errors import VihierError


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Table to write: .parquet, .csv or .tsv (also .gz).")],
    genes: Annotated[int, typer.Option(metavar="N", help="Number of genes.")] = 20,
    lines: Annotated[int, typer.Option(metavar="N", help="Number of cell lines.")] = 140,
    lineages: Annotated[int, typer.Option(metavar="N", help="Number of lineages, each with a line at least.")] = 4,
    sgrnas: Annotated[str, typer.Option(metavar="N|N-M", help="sgRNAs of a gene, or the fewest and the most.")] = "4",
    replicates: Annotated[int, typer.Option(metavar="N", help="Replicates of a line.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same rows.")] = 0,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="'realistic', or one that 'vihier models' lists.", rich_help_panel=MODEL_PANEL
        ),
    ] = "realistic",
    missing: Annotated[float, typer.Option(metavar="X", help="Expected share of rows that are absent.")] = 0.03,
    prior: Priors = None,
    likelihood: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of a model's rows: normal or student_t.", rich_help_panel=MODEL_PANEL),
    ] = "normal",
    noise: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What of a model has a noise scale of its own: global, line or replicate.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = "global",
    as_json: AsJson = False,
) -> None:
    """Write a simulated screen, and its truth beside it.

    The truth of screen.parquet is screen.truth.h5, laid out like a posterior file.

    [b]Example[/b]

    vihier simulate screen.parquet --genes 20 --lines 140 --lineages 4 --seed 0
    """
    priors = pairs(prior, "--prior", "'mu_gamma=Normal(0,2)'")
    size = _range_of(sgrnas)
    from vihier.screen.simulate import simulate as write_simulated

    _check_not_real(out)
    written = write_simulated(
        out,
        genes=genes,
        lines=lines,
        lineages=lineages,
        sgrnas=size,
        replicates=replicates,
        seed=seed,
        model=model,
        missing=missing,
        priors=priors or None,
        likelihood=likelihood,
        noise=noise,
    )
    if as_json:
        typer.echo(json.dumps({"table": str(written.table), "truth": str(written.truth)}, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{written.table} and its truth {written.truth}")


def _check_not_real(out: Path) -> None:
    # An earlier simulation may be replaced, a real screen of that name must not be.
    from vihier.screen.simulate_table import table_suffix

    truth = out.with_name(out.name.removesuffix(table_suffix(out)) + ".truth.h5")
    if out.is_file() and not truth.is_file():
        raise VihierError(f"{out}: is there, and is no simulated screen (no {truth.name} beside it); give another name")


def _range_of(text: str) -> int | tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", text, flags=re.ASCII)
    if match is None:
        raise VihierError(f"--sgrnas {text!r}: not understood; write a number such as 4, or a range such as 2-8")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
