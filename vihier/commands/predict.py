"""`vihier predict`: what a fit, or a model's priors, expect of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands import answer_options as answers
from vihier.commands import fit_options as options
from vihier.commands.arguments import Columns, Priors, SingleLineage, pairs
from vihier.commands.fit import Part
from vihier.errors import VihierError

if TYPE_CHECKING:
    import pandas as pd

    from vihier.inference.predict_table import RowsToPredict
    from vihier.inference.predictor import Predictor
    from vihier.posterior.reader import Posterior

_PRIOR = "Without a fit"


def predict(
    new: Annotated[
        Path,
        typer.Option(
            "--new", "--screen", metavar="TABLE", help="Rows to predict, as a table of a screen; lfc can be missing."
        ),
    ],
    fit: Annotated[Path | None, typer.Argument(metavar="[FIT.h5]", help="Posterior file.")] = None,
    from_prior: Annotated[
        bool,
        typer.Option(
            "--from-prior", help="Draw from the priors, those of the fit or of --model.", rich_help_panel=_PRIOR
        ),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Model whose priors are drawn from.", rich_help_panel=_PRIOR)
    ] = None,
    prior: Priors = None,
    prob: Annotated[float, typer.Option(help="Probability of the central interval.")] = 0.9,
    draws: Annotated[int | None, typer.Option(metavar="N", help="Draws to use; all of the fit's by default.")] = None,
    seed: options.Seed = 0,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    genes: options.Genes = None,
    lines: options.Lines = None,
    lineages: options.Lineages = None,
    where: options.Where = None,
    out: answers.TableOut = None,
    draws_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.h5", help="Write the drawn rows themselves instead, for xarray and ArviZ."),
    ] = None,
    as_json: answers.AsJson = False,
) -> None:
    """Predict rows: mean, sd and interval of each, also of what the fit never saw.

    New replicates, sgRNAs, genes, lines and lineages are drawn from their priors given the fit's draws of what they
    belong to. Where the table has lfc, the share of rows inside the interval is said. Of a fit of read counts
    (negative_binomial) counts are predicted, relative to the table's counts_expected.

    [b]Examples[/b]

    vihier predict fit.h5 --new new_line.csv --out predicted.csv
    vihier predict fit.h5 --screen screen.parquet --genes KRAS --draws-out kras.h5
    vihier predict --from-prior --model additive --screen screen.parquet --draws 200 --out prior.csv
    """
    answers.check_out(out)
    _check(fit, from_prior, model, draws_out, out)
    part = Part.of(genes, lines, lineages, None, None, where, 0)
    from vihier.inference.predict import write_predictive
    from vihier.inference.predict_table import predicted_blocks

    post, rows, predictor = _prepared(fit, from_prior, model, prior, new, column, single_lineage, part, draws, seed)
    about: dict[str, Any] = {"n_rows": rows.screen.n_rows, "draws": predictor.n_draws}
    if draws_out is not None:
        write_predictive(predictor, draws_out, "prior_predictive" if from_prior else "posterior_predictive")
        _say_written(about, draws_out, as_json)
        return
    blocks = predicted_blocks(predictor, rows, None if from_prior else post, prob=prob)
    _hand_over(blocks, about, prob, rows.measured(predictor.program)[0], out, as_json)
    if post is not None and not from_prior:
        answers.say_of_fit(post)


def _check(fit: Path | None, from_prior: bool, model: str | None, draws_out: Path | None, out: Path | None) -> None:
    if fit is None and not from_prior:
        raise VihierError("no fit is named; give FIT.h5, or --from-prior to draw from a model's priors")
    if fit is not None and model is not None:
        raise VihierError(f"--model {model}: the fit says which model it is of; leave one of the two out")
    if model is not None and not from_prior:
        raise VihierError(f"--model {model}: of use with --from-prior only")
    if draws_out is not None:
        if out is not None:
            raise VihierError("--draws-out and --out: the rows drawn or their summary; give one")
        from vihier.atomic import check_writable

        check_writable(draws_out)


def _prepared(
    fit: Path | None,
    from_prior: bool,
    model: str | None,
    prior: list[str] | None,
    new: Path,
    column: list[str] | None,
    single_lineage: bool,
    part: Part,
    draws: int | None,
    seed: int,
) -> tuple[Posterior | None, RowsToPredict, Predictor]:
    """Open the fit, read the rows and put them together."""
    from vihier.inference.predict import program_of
    from vihier.inference.predict_table import RowsToPredict
    from vihier.inference.predictor import Predictor
    from vihier.models.program import load_program
    from vihier.posterior.reader import open_posterior

    priors = pairs(prior, "--prior", "'mu_gamma=Normal(0,2)'")
    if priors and not from_prior:
        raise VihierError("--prior: a fit has its priors already; of use with --from-prior only")
    post = None if fit is None else open_posterior(fit)
    program = load_program(model or "additive", priors or None) if post is None else program_of(post)
    if post is not None and priors:
        program = load_program(program, priors)
    mapping = pairs(column, "--column", "lfc=LFC")
    rows = RowsToPredict.read(new, post, columns=mapping, single_lineage=single_lineage).part(part.cut)
    return post, rows, Predictor.of(None if from_prior else post, rows.screen, program, draws=draws, seed=seed)


def _say_written(about: dict[str, Any], path: Path, as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(about | {"draws_out": str(path)}, indent=2))
    else:
        typer.echo(f"{path}: {about['draws']:,} draws of {about['n_rows']:,} rows")


def _hand_over(
    blocks: Iterator[pd.DataFrame], about: dict[str, Any], prob: float, measured: str, out: Path | None, as_json: bool
) -> None:
    import pandas as pd

    from vihier.inference.predict_table import coverage

    table = pd.concat(list(blocks), ignore_index=True)
    about |= {"prob": prob}
    heading = f"{len(table):,} rows"
    if "new" in table:
        counts = table["new"].value_counts()
        about |= {"new": {name or "nothing": int(count) for name, count in counts.items()}}
        heading += "".join(f", {count:,} of a new {name}" for name, count in counts.items() if name)
    if measured in table:
        covered = coverage(table, prob, measured)
        if not math.isnan(covered):
            about |= {"coverage": covered, "log_density": float(table["log_density"].mean())}
            heading += (
                f"; {prob:.0%} intervals cover {covered:.1%} of {int(table[measured].notna().sum()):,} measured, mean "
                f"log predictive density {about['log_density']:.3f}"
            )
    answers.hand_over(table, about, heading, out, as_json)
