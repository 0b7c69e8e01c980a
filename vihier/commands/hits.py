"""`vihier hits`: effects whose sign is sure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from vihier.commands import answer_options as options
from vihier.commands.messages import say

_NOUNS = {"gene": "genes", "line": "genes in lines", "lineage": "genes in lineages"}


def hits(
    fit: options.Fit,
    by: Annotated[
        Literal["gene", "line", "lineage"],
        typer.Option(help="Genes over all lines, genes in single lines, or genes over the lines of a lineage."),
    ] = "gene",
    selective: Annotated[
        bool, typer.Option("--selective", help="How far a line or lineage is from the gene's mean over all lines.")
    ] = False,
    fdr: options.Fdr = 0.05,
    beyond: options.Beyond = 0.0,
    essential: options.Essential = None,
    nonessential: options.Nonessential = None,
    out: options.TableOut = None,
    as_json: options.AsJson = False,
) -> None:
    """Call effects of genes, in all lines, single lines or lineages, of which few have the wrong sign.

    lfsr is the probability that an effect has the other sign; fdr its mean over all that are at least as sure.

    [b]Examples[/b]

    vihier hits fit.h5
    vihier hits fit.h5 --by lineage --selective --fdr 0.01 --out selective.csv
    vihier hits fit.h5 --by line --essential CEGv2.txt --nonessential NEGv1.txt --beyond 0.5 --json
    """
    options.check_out(out)
    controls = options.control_genes(essential, nonessential)
    from vihier.answers.hits import hits as call
    from vihier.posterior.reader import open_posterior

    with open_posterior(fit) as post:
        found = call(post, by, fdr=fdr, selective=selective, beyond=beyond, controls=controls)
        options.say_of_fit(post)
    n_negative = int((found.table["mean"] < 0).sum())
    about: dict[str, Any] = {
        "by": by,
        "selective": selective,
        "fdr": fdr,
        "beyond": beyond,
        "unit": "log2 fold change" if controls is None else "control genes",
        "n_tested": found.n_tested,
        "n_hits": len(found.table),
        "n_negative": n_negative,
        "expected_wrong": found.expected_wrong,
    }
    heading = (
        f"{found.n_tested:,} {_NOUNS[by]}: {len(found.table):,} hits, {n_negative:,} negative and "
        f"{len(found.table) - n_negative:,} positive, {found.expected_wrong:.1f} expected to have the wrong sign"
    )
    options.hand_over(found.table, about, heading, out, as_json)
    if controls is None and beyond == 0 and 2 * len(found.table) > found.n_tested:
        say(
            "more than half are hits: no fold change at all is seldom the level of genes without effect; give "
            "--essential and --nonessential, and --beyond 0.5"
        )
