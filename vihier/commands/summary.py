"""`vihier summary`: a table of what the posterior says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vihier.commands.arguments import labels
from vihier.commands.messages import say

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 40
_SELECTION = "Part of the table"


def summary(
    fit: Annotated[Path, typer.Argument(metavar="FIT.h5", help="Posterior file.")],
    var: Annotated[str, typer.Option(metavar="NAME", help="Variable to summarise.")] = "effect",
    out: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Table to write: .csv, .tsv (also .gz) or .parquet; '-' is CSV on stdout."),
    ] = None,
    prob: Annotated[float, typer.Option(help="Probability of the highest-density interval.")] = 0.89,
    gene: Annotated[
        list[str] | None, typer.Option(metavar="A,B,...", help="Genes.", rich_help_panel=_SELECTION)
    ] = None,
    line: Annotated[
        list[str] | None, typer.Option(metavar="A,B,...", help="Cell lines.", rich_help_panel=_SELECTION)
    ] = None,
    lineage: Annotated[
        list[str] | None, typer.Option(metavar="A,B,...", help="Lineages.", rich_help_panel=_SELECTION)
    ] = None,
) -> None:
    """Summarise a variable: mean, sd, interval and probability of being negative, one row an element.

    Without --out the first rows are shown.

    [b]Examples[/b]

    vihier summary fit.h5 --var effect --out effect.csv
    vihier summary fit.h5 --var effect --gene KRAS --lineage skin
    """
    wanted = {
        "hugo_symbol": labels(gene, "--gene"),
        "depmap_id": labels(line, "--line"),
        "lineage": labels(lineage, "--lineage"),
    }
    from vihier.posterior.reader import open_posterior

    with open_posterior(fit) as posterior:
        selection = {dim: chosen for dim, chosen in wanted.items() if chosen is not None}
        blocks = posterior.summary_blocks(var, prob=prob, selection=selection)
        if out is None:
            _show(var, blocks)
        elif str(out) == "-":
            for number, block in enumerate(blocks):
                typer.echo(block.to_csv(index=False, header=number == 0), nl=False)
        else:
            from vihier.answers.tables import needs_quotes, write_rows

            # Text tables quote all labels where one needs it, and reasons are sentences.
            quoted = var in posterior.not_identified or any(needs_quotes(posterior.labels(x)) for x in posterior.dims)
            n_rows = write_rows(blocks, out, quoted=quoted)
            typer.echo(f"{out}: {n_rows:,} rows")


def _show(var: str, blocks: Iterator[pd.DataFrame]) -> None:
    """Print the first rows for a person: the variable and what is not identified are said once, not on every row."""
    import pandas as pd

    shown: list[pd.DataFrame] = []
    for block in blocks:
        shown.append(block)
        if sum(map(len, shown)) > ROWS_SHOWN:
            break
    rows = pd.concat(shown, ignore_index=True)
    if "not_identified" in rows:
        typer.echo(f"{var} is not identified: {rows['not_identified'].iloc[0]}")
    head = rows.drop(columns=["variable", "not_identified"], errors="ignore").head(ROWS_SHOWN)
    typer.echo(f"{var}\n{head.to_string(index=False, float_format='{:.3f}'.format)}")
    if len(rows) > ROWS_SHOWN:
        say(f"the first {ROWS_SHOWN} rows; --out {var}.csv writes all")
