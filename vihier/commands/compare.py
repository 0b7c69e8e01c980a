"""`vihier compare`: several fits of one screen beside each other."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vihier.commands import answer_options as answers
from vihier.commands import fit_options as options
from vihier.commands.arguments import Columns, OnConflict, SingleLineage, pairs
from vihier.commands.fit import Part
from vihier.commands.fitted_screen import fitted_screen
from vihier.commands.messages import say
from vihier.errors import VihierError

if TYPE_CHECKING:
    import pandas as pd

    from vihier.posterior.reader import Posterior

_DATA, _NUTS = "What they are compared on", "One fit: its guide against NUTS"


def compare(
    fits: Annotated[list[Path], typer.Argument(metavar="FIT.h5...", help="Posterior files of one screen.")],
    screen: Annotated[
        Path | None,
        typer.Option(metavar="SCREEN", help="The screen they are fits of; as they name it.", rich_help_panel=_DATA),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Rows that none of them has seen.", rich_help_panel=_DATA),
    ] = None,
    by: Annotated[
        Literal["row", "cell"], typer.Option(help="Leave out rows, or all replicate rows of an sgRNA in a line.")
    ] = "row",
    method: Annotated[
        Literal["conditional", "draws"],
        typer.Option(help="Exact given the scales, or PSIS over whole draws as ArviZ does (for any program)."),
    ] = "conditional",
    draws: Annotated[int, typer.Option(metavar="N", help="Draws of each fit to use, evenly spaced.")] = 500,
    seed: options.Seed = 0,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    genes: options.Genes = None,
    lines: options.Lines = None,
    lineages: options.Lineages = None,
    where: options.Where = None,
    var: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The elements of one variable, most different first.", rich_help_panel=_NUTS),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Figure to write; also .pdf or .svg.", rich_help_panel=_NUTS)
    ] = None,
    out: answers.TableOut = None,
    as_json: answers.AsJson = False,
) -> None:
    """Compare fits of several models: leave-one-out or held-out log predictive density, with standard errors.

    The best comes first; elpd_diff is how far another is behind it, dse the standard error of that. Of one fit that
    'vihier refine' has added NUTS draws to, the guide is compared with NUTS, variable by variable.

    [b]Examples[/b]

    vihier compare additive.h5 gene_lineage.h5 --screen screen.parquet
    vihier compare additive.h5 gene_lineage.h5 --held-out held_out.csv --out compared.csv
    vihier compare refined.h5 --figure compared.png
    """
    answers.check_out(out)
    if len(fits) == 1 and screen is None and held_out is None:
        from vihier.commands.compare_nuts import compare_nuts

        compare_nuts(fits[0], var, out, figure, as_json)
        return
    if var is not None or figure is not None:
        raise VihierError("--var and --figure: of one refined fit only; leave them out")
    if screen is not None and held_out is not None:
        raise VihierError("--screen and --held-out: leave-one-out or rows that no fit has seen; give one")
    if len(fits) < 2:
        raise VihierError(f"{fits[0]}: one fit only; name two or more to compare their models")
    part = Part.of(genes, lines, lineages, None, None, where, 0)
    from vihier.diagnostics.model_comparison import compare_held_out, compare_loo
    from vihier.inference.predict_table import RowsToPredict
    from vihier.posterior.reader import open_posterior

    with ExitStack() as stack:
        posts = [stack.enter_context(open_posterior(path)) for path in fits]
        named = dict(zip(names_of(fits, posts), posts, strict=True))
        if held_out is None:
            whole = fitted_screen(screen, posts[0], part, column, single_lineage, on_conflict)
            if whole is None:
                raise VihierError("give --screen (leave-one-out), or --held-out (rows that no fit has seen)")
            table = compare_loo(named, whole, by=by, method=method, draws=draws, seed=seed)
            heading = f"leave-one-out by {by}, {whole.n_rows:,} rows"
        else:
            mapping = pairs(column, "--column", "lfc=LFC")
            rows = RowsToPredict.read(held_out, posts[0], columns=mapping, single_lineage=single_lineage)
            rows = rows.part(part.cut)
            table = compare_held_out(named, rows, draws=draws, seed=seed)
            heading = f"held-out rows, {rows.screen.n_rows:,}"
    _hand_over(table, heading, out, as_json)


def _hand_over(table: pd.DataFrame, heading: str, out: Path | None, as_json: bool) -> None:
    answers.hand_over(table.reset_index(), {"compared": heading}, heading, out, as_json)
    if "warning" in table:
        for name in table.index[table["warning"]]:
            say(f"warning: {name}: k-hat is above 0.7 for {table.loc[name, 'bad_k']:.1%} of units; its sum is not sure")


def names_of(paths: list[Path], posts: list[Posterior]) -> list[str]:
    """Name fits by their models, or by their files where two are of one model."""
    models = [post.model for post in posts]
    if len(set(models)) == len(models):
        return models
    names = [path.stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
