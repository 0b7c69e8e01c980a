"""The tables of effects that a report shows: genes, genes in lineages, genes in lines."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from vihier.answers.hits import By, hits
from vihier.diagnostics.control_genes import ControlGenes
from vihier.posterior.reader import Posterior
from vihier.report.table import ReportTable

# Rows of a table, beyond which a reader is better served by a file.
LONGEST = 5_000
# Effects, beyond which each gene in each line is not looked at on its own.
MOST_EFFECTS = 2_000_000


@dataclass(frozen=True)
class Calling:
    """How effects are called.

    Attributes
    ----------
    fdr, beyond, controls
        As in `vihier.answers.hits`.
    """

    fdr: float = 0.05
    beyond: float = 0.0
    controls: ControlGenes | None = None

    def arguments(self) -> str:
        """Return the options of `vihier hits` that call the same."""
        controls = "" if self.controls is None else " --essential GENES --nonessential GENES"
        beyond = f" --beyond {self.beyond:g}" if self.beyond else ""
        return f"--fdr {self.fdr:g}{beyond}{controls}"

    @property
    def unit(self) -> str:
        """Unit of the effects that are called."""
        if self.controls is None:
            return "log2 fold change"
        return "control genes (in each line, the non-essential ones have median 0 and the essential ones -1)"


def hit_tables(post: Posterior, calling: Calling) -> list[ReportTable]:
    """Return tables of effects by draws, as `vihier hits` calls them.

    Parameters
    ----------
    post
        A fit with `effect`.
    calling
        How they are called.

    Returns
    -------
    list
        All genes, over all lines; and what is selective: genes in lineages, and genes in lines where there are no more
        than 2 million of them.
    """
    tables = [_genes(post, calling)]
    if "lineage_of_line" in post.group("index") and len(post.labels("lineage")) > 1:
        tables.append(_selective(post, calling, "lineage"))
    n_genes, n_lines = len(post.labels("hugo_symbol")), len(post.labels("depmap_id"))
    if n_lines > 1 and n_genes * n_lines <= MOST_EFFECTS:
        tables.append(_selective(post, calling, "line"))
    return tables


def _genes(post: Posterior, calling: Calling) -> ReportTable:
    found = hits(post, "gene", fdr=1.0, beyond=calling.beyond, controls=calling.controls)
    frame = found.table.assign(hit=found.table["fdr"] <= calling.fdr)
    called = frame[frame["hit"]]
    frame = frame.sort_values("hit", ascending=False, kind="stable")
    note = (
        f"Mean effect over all lines, of all {found.n_tested:,} genes: {len(called):,} hits at a false discovery rate "
        f"of {calling.fdr:g}, {int((called['mean'] < 0).sum()):,} of them negative."
    )
    if calling.controls is None and calling.beyond == 0 and 2 * len(called) > found.n_tested:
        note += (
            " More than half are hits: no fold change at all is seldom the level of genes without effect. Control "
            "genes and --beyond 0.5 tell more."
        )
    return _table("genes", "Genes", note, f"vihier hits FIT.h5 {calling.arguments()} --out genes.csv", frame)


def _selective(post: Posterior, calling: Calling, by: By) -> ReportTable:
    found = hits(post, by, fdr=calling.fdr, selective=True, beyond=calling.beyond, controls=calling.controls)
    what = "the lines of a lineage" if by == "lineage" else "a line"
    note = (
        f"How far a gene's effect in {what} is from its mean over all lines: {len(found.table):,} hits of "
        f"{found.n_tested:,}, {found.expected_wrong:.1f} of them expected to have the wrong sign."
    )
    command = f"vihier hits FIT.h5 --by {by} --selective {calling.arguments()} --out {by}.csv"
    return _table(f"selective-{by}", f"Selective by {by}", note, command, found.table)


def _table(key: str, title: str, note: str, command: str, frame: pd.DataFrame) -> ReportTable:
    """Return a table of its first rows where it is long, and say so."""
    if len(frame) > LONGEST:
        note += f" The first {LONGEST:,} of {len(frame):,} rows."
    return ReportTable(key, title, note, command, frame.head(LONGEST))
