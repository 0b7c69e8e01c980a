"""`vihier export`: tables that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vihier.commands import answer_options as options
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.answers.control_scaling import ControlScaling
    from vihier.answers.residuals import Residuals
    from vihier.diagnostics.control_genes import ControlGenes
    from vihier.posterior.reader import Posterior

Table = Literal["effect", "sd", "dependency", "long", "sgrnas", "lines", "replicates"]


def export(
    fit: options.Fit,
    out: Annotated[Path, typer.Option(metavar="TABLE", help="Table to write: .csv, .tsv (also .gz) or .parquet.")],
    table: Annotated[
        Table,
        typer.Option(
            help="effect, sd, dependency: a matrix of lines x genes, of posterior means, their sds, or probabilities "
            "of dependency (which need control genes). long: a row for each gene in each line. sgrnas, lines, "
            "replicates: a row for each."
        ),
    ] = "effect",
    essential: options.Essential = None,
    nonessential: options.Nonessential = None,
    screen: Annotated[
        Path | None,
        typer.Option(
            metavar="SCREEN", help="What was fitted: tables of sgRNAs and lines then say how far their rows are off."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write effects in the layout of DepMap's CRISPRGeneEffect.csv, or as other tables.

    [b]Examples[/b]

    vihier export fit.h5 --out CRISPRGeneEffect.csv --essential CEGv2.txt --nonessential NEGv1.txt
    vihier export fit.h5 --table dependency --essential CEGv2.txt --nonessential NEGv1.txt --out dependency.csv
    vihier export fit.h5 --table long --out effects.parquet
    vihier export fit.h5 --table sgrnas --out sgrnas.csv
    vihier export fit.h5 --table lines --screen screen.parquet --out lines.csv
    """
    if str(out) == "-":
        raise VihierError("--out -: name a file, such as --out CRISPRGeneEffect.csv")
    options.check_out(out)
    controls = options.control_genes(essential, nonessential)
    if table == "dependency" and controls is None:
        raise VihierError("--table dependency: beyond what? give control genes: --essential and --nonessential")
    if screen is not None and table not in ("sgrnas", "lines"):
        raise VihierError(f"--table {table}: --screen means nothing to it; it is for sgrnas and lines")
    from vihier import answers
    from vihier.answers.control_scaling import control_scaling
    from vihier.posterior.reader import open_posterior
    from vihier.store.either import screen_or_store

    about: dict[str, Any] = {"out": str(out), "table": table, "unit": "log2 fold change"}
    with open_posterior(fit) as post:
        # A line that has no unit is for the table of lines to show, not to be refused for.
        scaling = None if controls is None or table in ("lines", "replicates") else control_scaling(post, controls)
        off = None if screen is None else answers.residuals(post, screen_or_store(screen))
        n_rows = _write(post, table, out, controls, scaling, off)
        options.say_of_fit(post)
    if scaling is not None:
        about |= {"n_essential": scaling.n_essential, "n_nonessential": scaling.n_nonessential}
        about["unit"] = _UNITS.get(table, "non-essential genes 0, essential genes -1")
    about["n_rows"] = n_rows
    if as_json:
        typer.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    rested = "" if scaling is None else f" ({scaling.n_essential} essential, {scaling.n_nonessential} non-essential)"
    typer.echo(f"{out}: {n_rows:,} rows, {about['unit']}{rested}")


_UNITS = {
    "dependency": "probability",
    "sgrnas": "log2 fold change",
    "lines": "log2 fold change",
    "replicates": "log2 fold change",
}


def _write(
    post: Posterior,
    table: Table,
    out: Path,
    controls: ControlGenes | None,
    scaling: ControlScaling | None,
    off: Residuals | None,
) -> int:
    from vihier import answers
    from vihier.answers.tables import needs_quotes, write_frame, write_matrix, write_rows

    match table:
        case "effect":
            return write_matrix(answers.effect_matrix(post, "mean", scaling), out)
        case "sd":
            return write_matrix(answers.effect_matrix(post, "sd", scaling), out)
        case "dependency":
            assert scaling is not None
            return write_matrix(answers.dependency_matrix(post, scaling), out)
        case "sgrnas":
            return write_frame(answers.sgrna_table(post, scaling, off), out)
        case "lines":
            return write_frame(answers.line_table(post, controls, off), out)
        case "replicates":
            found = answers.replicate_table(post)
            if found is None:
                raise VihierError(f"{post.path}: has no noise of replicates; fit with --noise replicate")
            return write_frame(found, out)
        case "long":
            dims = [dim for dim in ("hugo_symbol", "depmap_id", "lineage") if dim in post.dims]
            quoted = any(needs_quotes(post.labels(dim)) for dim in dims)
            return write_rows(answers.effect_rows(post, scaling), out, quoted=quoted)
