"""`vihier summary`: a table of what the posterior says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands import answer_options as options
from vihier.commands.arguments import GENES, LABELS, LINEAGES, LINES, labels
from vihier.commands.messages import say
from vihier.errors import VihierError

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 40
_SELECTION = "Part of the table"


def summary(
    fit: options.Fit,
    var: Annotated[str, typer.Option(metavar="NAME", help="Variable to summarise.")] = "effect",
    out: options.TableOut = None,
    prob: Annotated[float, typer.Option(metavar="X", help="Probability of the highest-density interval.")] = 0.89,
    gene: Annotated[
        list[str] | None, typer.Option(*GENES, metavar=LABELS, help="Genes.", rich_help_panel=_SELECTION)
    ] = None,
    line: Annotated[
        list[str] | None, typer.Option(*LINES, metavar=LABELS, help="Cell lines.", rich_help_panel=_SELECTION)
    ] = None,
    lineage: Annotated[
        list[str] | None, typer.Option(*LINEAGES, metavar=LABELS, help="Lineages.", rich_help_panel=_SELECTION)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Summarise a variable: mean, sd, interval and probability of being negative, one row an element.

    Without --out the first rows are shown.

    [b]Examples[/b]

    vihier summary fit.h5 --var effect --out effect.csv
    vihier summary fit.h5 --var effect --gene KRAS --lineage skin
    vihier summary fit.h5 --var sigma --json
    """
    if as_json and out is not None and str(out) == "-":
        raise VihierError("--json and --out -: both go to standard output; give one")
    wanted = {
        "hugo_symbol": labels(gene, "--gene"),
        "depmap_id": labels(line, "--line"),
        "lineage": labels(lineage, "--lineage"),
    }
    from vihier.posterior.reader import open_posterior

    with open_posterior(fit) as posterior:
        selection = {dim: chosen for dim, chosen in wanted.items() if chosen is not None}
        blocks = posterior.summary_blocks(var, prob=prob, selection=selection)
        about = {"variable": var, "prob": prob, "not_identified": posterior.not_identified.get(var)}
        if out is None and as_json:
            _print_json(about, blocks)
        elif out is None:
            _show(var, blocks)
        elif str(out) == "-":
            for number, block in enumerate(blocks):
                typer.echo(block.to_csv(index=False, header=number == 0), nl=False)
        else:
            from vihier.answers.tables import needs_quotes, write_rows

            # Text tables quote all labels where one needs it, and reasons are sentences.
            quoted = var in posterior.not_identified or any(needs_quotes(posterior.labels(x)) for x in posterior.dims)
            n_rows = write_rows(blocks, out, quoted=quoted)
            if as_json:
                typer.echo(json.dumps(about | {"out": str(out), "n_rows": n_rows}, indent=2, ensure_ascii=False))
            else:
                typer.echo(f"{out}: {n_rows:,} rows")
        options.say_unconverged(posterior)


def _print_json(about: dict[str, Any], blocks: Iterator[pd.DataFrame]) -> None:
    """Print rows as JSON, block by block: there may be more of them than fit memory."""
    head = json.dumps(about, indent=2, ensure_ascii=False).removesuffix("\n}")
    typer.echo(f'{head},\n  "rows": [', nl=False)
    for number, block in enumerate(blocks):
        # pandas writes null for what is missing, and Python's json the NaN that is no JSON.
        rows = block.drop(columns=["variable", "not_identified"], errors="ignore").to_json(orient="records")
        typer.echo(f"{',' if number else ''}{rows[1:-1]}", nl=False)
    typer.echo("]\n}")


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
