"""`vihier contrast`: which genes two sets of cell lines depend on differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vihier.commands import answer_options as options
from vihier.commands.arguments import LABELS, LINEAGES, LINES, labels
from vihier.commands.messages import say
from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

_SETS = "The two sets of lines"


def contrast(
    fit: options.Fit,
    lineage: Annotated[
        list[str] | None,
        typer.Option(*LINEAGES, metavar=LABELS, help="Lineages of the first set.", rich_help_panel=_SETS),
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(
            *LINES,
            metavar="A,B,...|@FILE",
            help="Lines of the first set; @FILE is a list, with a header such as depmap_id.",
            rich_help_panel=_SETS,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="rest|A,B,...|@FILE",
            help="The second set: all other lines, lineages, lines, or a list of lines.  [default: rest]",
            rich_help_panel=_SETS,
        ),
    ] = None,
    fdr: options.Fdr = 0.05,
    beyond: options.Beyond = 0.0,
    essential: options.Essential = None,
    nonessential: options.Nonessential = None,
    out: options.TableOut = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare the effect of each gene between two sets of lines, and rank selective dependencies.

    A negative difference is a stronger dependency of the first set. It is computed draw by draw.

    [b]Examples[/b]

    vihier contrast fit.h5 --lineage skin --against rest
    vihier contrast fit.h5 --lineage skin --against lung,colorectal --out skin.csv
    vihier contrast fit.h5 --line @mutant.csv --against @wildtype.csv --json
    vihier contrast fit.h5 --lineage skin --essential CEGv2.txt --nonessential NEGv1.txt
    """
    options.check_out(out)
    lineages, lines = labels(lineage, "--lineage"), labels(line, "--line")
    if lineages is None and lines is None:
        raise VihierError("which lines? name the first set: --lineage skin, --line A,B, or --line @lines.txt")
    others = labels(against, "--against") or ["rest"]
    controls = options.control_genes(essential, nonessential)
    from vihier.answers.contrast import contrast as compare
    from vihier.posterior.reader import open_posterior

    with open_posterior(fit) as post:
        first = _first(post, lineages or [], lines or [])
        second = _second(post, others)
        found = compare(post, first, second, fdr=fdr, beyond=beyond, controls=controls)
        options.say_of_fit(post)
    called = found.table[found.table["hit"]]
    n_negative = int((called["difference"] < 0).sum())
    about: dict[str, Any] = {
        "lines": found.lines,
        "against": found.against,
        "fdr": fdr,
        "beyond": beyond,
        "unit": "log2 fold change" if controls is None else "control genes",
        "n_tested": len(found.table),
        "n_hits": len(called),
        "n_negative": n_negative,
        "expected_wrong": float(called["lfsr"].sum()),
        "median_difference": float(found.table["difference"].median()),
    }
    heading = (
        f"{len(found.lines)} lines against {len(found.against)}, {len(found.table):,} genes: {len(called):,} hits, "
        f"{n_negative:,} negative (selective dependencies) and {len(called) - n_negative:,} positive, "
        f"{about['expected_wrong']:.1f} expected to have the wrong sign"
    )
    options.hand_over(found.table, about, heading, out, as_json)
    if controls is None and 2 * len(called) > len(found.table):
        say(
            f"more than half of the genes differ (median difference {about['median_difference']:.2f}): the lines "
            "differ as a whole; give --essential and --nonessential to bring each to its own unit"
        )


def _first(post: Posterior, lineages: list[str], lines: list[str]) -> list[str]:
    from vihier.answers.line_sets import lines_of, lines_of_lineages

    of_lineages = lines_of_lineages(post, lineages) if lineages else []
    return list(dict.fromkeys([*of_lineages, *lines_of(post, lines)]))


def _second(post: Posterior, names: list[str]) -> list[str] | None:
    from vihier.answers.line_sets import REST, lines_of

    if names == [REST]:
        return None
    if REST in names:
        raise VihierError(f"--against {','.join(names)}: 'rest' is all other lines; give it alone")
    return lines_of(post, names)
