"""`vihier report`: one page that says what a fit found and how far to trust it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vihier.commands import answer_options as options
from vihier.commands.arguments import GENES, LABELS, AsJson, Columns, OnConflict, labels, read
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen
    from vihier.store.store import ScreenStore

CHECK_DRAWS = 200


def report(
    fit: options.Fit,
    out: Annotated[Path, typer.Option(metavar="REPORT.html", help="Page to write.")],
    screen: Annotated[
        Path | None,
        typer.Option(metavar="SCREEN", help="The screen that was fitted: its measurements stand beside the posterior."),
    ] = None,
    genes: Annotated[
        list[str] | None,
        typer.Option(*GENES, metavar=LABELS, help="Genes that get a page; all, or on large screens the top hits."),
    ] = None,
    fdr: options.Fdr = 0.05,
    beyond: options.Beyond = 0.0,
    essential: options.Essential = None,
    nonessential: options.Nonessential = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="With --screen: draw rows and check them, which takes the longest."),
    ] = True,
    column: Columns = None,
    on_conflict: OnConflict = "error",
    as_json: AsJson = False,
) -> None:
    """Write a report: summary, checks, hits to sort and search, a page of every gene, quality of lines.

    One HTML file that any browser opens, without a network.

    [b]Examples[/b]

    vihier report fit.h5 --out report.html
    vihier report fit.h5 --out report.html --screen screen.parquet --essential CEGv2.txt --nonessential NEGv1.txt
    vihier report fit.h5 --out genes.html --genes KRAS,BRAF
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise VihierError(f"--out {out}: a report is a page; name it like report.html")
    from vihier.atomic import check_writable

    check_writable(out)
    wanted = labels(genes, "--genes")
    controls = options.control_genes(essential, nonessential)
    from vihier.posterior.reader import open_posterior
    from vihier.report.answers_tables import Calling
    from vihier.report.write import write_report

    with open_posterior(fit) as post:
        rows = None if screen is None else _screen(screen, post, column, on_conflict)
        calling = Calling(fdr, beyond, controls)
        written = write_report(
            post, out, screen=rows, genes=wanted, calling=calling, check_draws=CHECK_DRAWS if check else 0
        )
        options.say_of_fit(post)
    if as_json:
        about = {
            "out": str(written.path),
            "n_bytes": written.n_bytes,
            "n_genes": written.n_genes,
            "n_gene_pages": written.n_gene_pages,
            "n_rows": written.n_rows,
        }
        typer.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{out}: {written.n_bytes / 1e6:.1f} MB, pages of {written.n_gene_pages:,} of {written.n_genes:,} genes")


def _screen(
    path: Path, post: Posterior, column: list[str] | None, on_conflict: Literal["error", "drop"]
) -> Screen | ScreenStore:
    """Read the screen as the fit had it: in one lineage, where that was asked for."""
    from vihier.screen.labels import ONE_LINEAGE
    from vihier.store.store import is_hdf5, open_store

    if is_hdf5(path):
        if column or on_conflict != "error":
            raise VihierError(f"{path}: a store is read as it was packed; leave --column and --on-conflict out")
        return open_store(path)
    single = "lineage" in post.dims and post.labels("lineage").tolist() == [ONE_LINEAGE]
    return read(path, column, single, on_conflict)
