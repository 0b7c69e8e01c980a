"""`vihier plot`: figures of a fit, or of a screen's quality, as files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from vihier.commands import answer_options as options
from vihier.commands.arguments import GENES, LABELS, LINEAGES, LINES, AsJson, labels
from vihier.commands.messages import say
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.plots.kinds import Asked

SUFFIXES = (".png", ".pdf", ".svg")
_PART = "What is drawn"

Kind = Literal[
    "elbo",
    "drift",
    "heatmap",
    "lineages",
    "forest",
    "gene",
    "volcano",
    "shrinkage",
    "predictive",
    "controls",
    "lines",
    "density",
    "trace",
    "nuts",
]


def plot(
    source: Annotated[
        Path, typer.Argument(metavar="FIT.h5", help="Posterior file; for 'lines' also a screen or a store.")
    ],
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=f"What to draw: {', '.join(get_args(Kind))}.")],
    gene: Annotated[
        list[str] | None,
        typer.Option(*GENES, metavar=LABELS, help="One gene; of 'heatmap' any number.", rich_help_panel=_PART),
    ] = None,
    lineage: Annotated[
        list[str] | None,
        typer.Option(*LINEAGES, metavar=LABELS, help="Lineages; of 'volcano' the first set.", rich_help_panel=_PART),
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(*LINES, metavar="A,B,...|@FILE", help="Lines; of 'volcano' the first set.", rich_help_panel=_PART),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="rest|A,B,...|@FILE",
            help="The second set of 'volcano'.  [default: rest]",
            rich_help_panel=_PART,
        ),
    ] = None,
    var: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Variable; 'effect' if not given, and needed by 'density' and 'trace'.",
            rich_help_panel=_PART,
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of 'lines': auroc (the default), nnmd, shift and others.", rich_help_panel=_PART
        ),
    ] = None,
    screen: Annotated[
        Path | None,
        typer.Option(
            metavar="SCREEN",
            help="What was fitted: 'shrinkage' and 'predictive' need it, 'gene' draws its rows.",
            rich_help_panel=_PART,
        ),
    ] = None,
    essential: options.Essential = None,
    nonessential: options.Nonessential = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write: .png, .pdf or .svg.  [default: KIND.png, KIND-GENE.png]"),
    ] = None,
    dpi: Annotated[int, typer.Option(min=30, max=1200, metavar="N", help="Dots per inch of a PNG.")] = 150,
    as_json: AsJson = False,
) -> None:
    """Draw a figure to a file.

    [b]Kinds[/b]

    elbo, drift: how the fit converged. heatmap: genes x lines, clustered. lineages, forest, gene: one gene, by lineage,
    in every line, with its rows and sgRNAs. volcano: what two sets of lines depend on differently. shrinkage: what the
    posterior makes of plain means. predictive: rows drawn from the posterior beside those measured. controls: effects
    of control genes. lines: quality of every line. density, trace: draws of a variable. nuts: the guide beside NUTS,
    after `vihier refine`.

    [b]Examples[/b]

    vihier plot fit.h5 heatmap --out effects.pdf
    vihier plot fit.h5 gene --gene BRAF --screen screen.parquet
    vihier plot fit.h5 volcano --lineage skin --essential CEGv2.txt --nonessential NEGv1.txt
    vihier plot screen.parquet lines --measure nnmd --essential CEGv2.txt --nonessential NEGv1.txt
    """
    genes = labels(gene, "--gene") or []
    target = out if out is not None else Path(_name(kind, genes))
    if target.suffix.lower() not in SUFFIXES:
        raise VihierError(f"--out {target}: a figure is written as one of {', '.join(SUFFIXES)}")
    from vihier.atomic import check_writable
    from vihier.plots.kinds import Asked, check

    check_writable(target)
    asked = Asked(
        source=source,
        genes=genes,
        lineages=labels(lineage, "--lineage") or [],
        lines=labels(line, "--line") or [],
        against=labels(against, "--against") or [],
        var=var,
        measure=measure,
        screen=screen,
        controls=options.control_genes(essential, nonessential),
    )
    check(kind, asked)
    _write(kind, asked, target, dpi)
    typer.echo(json.dumps({"kind": kind, "out": str(target)}, indent=2) if as_json else target)


def _name(kind: str, genes: list[str]) -> str:
    return f"{kind}-{re.sub(r'[^A-Za-z0-9._-]', '_', genes[0])}.png" if len(genes) == 1 else f"{kind}.png"


def _write(kind: str, asked: Asked, target: Path, dpi: int) -> None:
    """Draw without a display, and write the file whole or not at all."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from vihier.atomic import renamed_when_whole
    from vihier.plots.kinds import draw

    drawn = draw(kind, asked)
    for text in drawn.notes:
        say(text)
    figure = drawn.ax.get_figure(root=True)
    assert figure is not None
    with renamed_when_whole(target) as partial:
        # Names and legends beside the axes are part of the picture.
        figure.savefig(partial, format=target.suffix[1:].lower(), dpi=dpi, bbox_inches="tight")
    plt.close(figure)
