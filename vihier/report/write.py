"""A fit becomes one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vihier.answers.control_scaling import ControlScaling, control_scaling
from vihier.answers.effect_draws import GENE_LINE
from vihier.atomic import check_writable, renamed_when_whole
from vihier.report.answers_tables import Calling, hit_tables
from vihier.report.checks import checks_of, khat_of_genes
from vihier.report.gene_pages import GenePages, gene_pages, genes_that_fit
from vihier.report.measured import check_same_labels
from vihier.report.page import Page, render
from vihier.report.payload import packed
from vihier.report.pictures import Picture, p_value_pictures, pictures
from vihier.report.quality_tables import quality_tables
from vihier.report.table import ReportTable
from vihier.screen.screen import Screen

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.store.store import ScreenStore

# Rows of a store up to which it is read whole, so that they are checked.
MOST_ROWS = 2_000_000


@dataclass(frozen=True)
class WrittenReport:
    """What a report holds.

    Attributes
    ----------
    path
        The file.
    n_bytes
        Its size.
    n_genes
        Genes of the fit.
    n_gene_pages
        Genes that have a page; fewer than `n_genes` on screens of the whole genome.
    n_rows
        Rows of each table, by its key.
    """

    path: Path
    n_bytes: int
    n_genes: int
    n_gene_pages: int
    n_rows: dict[str, int]


def write_report(
    post: Posterior,
    out: str | PathLike[str],
    *,
    screen: Screen | ScreenStore | None = None,
    genes: Sequence[str] | None = None,
    calling: Calling | None = None,
    check_draws: int = 200,
) -> WrittenReport:
    """Write a report of a fit: whole, or not at all.

    Parameters
    ----------
    post
        A fit; one without `effect` has neither tables of hits nor gene pages.
    out
        File to write, `.html`.
    screen
        The screen that was fitted: its measurements are shown beside the posterior, and its rows are checked (those of
        a store up to 2 million).
    genes
        Genes that get a page; when None, all where 18 MB hold them, else those with the strongest selective effects.
    calling
        How effects are called.
    check_draws
        Draws that the checks of a screen in memory draw rows from; 0 leaves them out, which take the longest.

    Returns
    -------
    WrittenReport

    Raises
    ------
    VihierError
        A file that cannot be written, a gene that is not in the fit, a screen that has nothing to do with it, control
        genes of no use.
    """
    path = Path(out)
    check_writable(path)
    calling = calling or Calling()
    if screen is not None and not isinstance(screen, Screen) and screen.n_rows <= MOST_ROWS:
        screen = screen.to_screen()
    has_effect = post.variables.get("effect") == GENE_LINE
    notes = [] if screen is None else [check_same_labels(post, screen)]
    tables: list[ReportTable] = []
    quality: list[ReportTable] = []
    pages: GenePages | None = None
    drawn: list[Picture] = []
    if has_effect:
        scaling = None if calling.controls is None else control_scaling(post, calling.controls)
        tables = hit_tables(post, calling)
        quality = quality_tables(post, screen, calling.controls)
        pages = _pages(post, genes, tables, scaling, screen)
        lines = next(table.frame for table in quality if table.key == "lines")
        drawn = pictures(post, lines, screen, calling.controls, scaling)
    checked, note = checks_of(post, screen, calling.controls if has_effect else None, check_draws)
    drawn += p_value_pictures(checked)
    page = Page(
        title=post.path.name,
        post=post,
        notes=[said for said in (*notes, note) if said],
        checks=checked.items,
        parameters=_parameters(post),
        quality=quality,
        hits=tables,
        unit=calling.unit,
        pages=pages,
        pictures=drawn,
        charts=_charts(post),
        first_gene=_first_gene(pages, tables),
    )
    html = render(page)
    with renamed_when_whole(path) as partial:
        partial.write_text(html, encoding="utf-8")
    n_rows = {table.key: len(table.frame) for table in [*tables, *quality]}
    n_genes = len(post.labels("hugo_symbol")) if "hugo_symbol" in post.dims else 0
    return WrittenReport(path, path.stat().st_size, n_genes, len(pages.genes) if pages else 0, n_rows)


def _pages(
    post: Posterior,
    genes: Sequence[str] | None,
    tables: Sequence[ReportTable],
    scaling: ControlScaling | None,
    screen: Screen | ScreenStore | None,
) -> GenePages:
    if genes is None:
        # Selective effects first: a gene that every line needs has little to show by line.
        ranked = [gene for table in reversed(tables) for gene in table.frame["hugo_symbol"].tolist()]
        genes = genes_that_fit(post, ranked, screen)
    return gene_pages(post, genes, scaling, screen)


def _first_gene(pages: GenePages | None, tables: Sequence[ReportTable]) -> str | None:
    """Return the gene whose page is open at first: the strongest selective one, else the strongest one."""
    having_page = set() if pages is None else {*pages.genes}
    for table in [*tables[1:], *tables[:1]]:
        for gene in table.frame["hugo_symbol"].tolist():
            if gene in having_page:
                return str(gene)
    return None


def _parameters(post: Posterior) -> ReportTable:
    """Return the parameters that the model has one of."""
    names = [name for name, dims in post.variables.items() if dims == ()]
    frame = post.summary(names) if names else pd.DataFrame({"variable": []})
    command = "vihier summary FIT.h5 --var NAME --out NAME.csv"
    return ReportTable("parameters", "Parameters", "What the whole screen shares.", command, frame)


def _charts(post: Posterior) -> dict[str, Any]:
    """Return the series of the charts of checks."""
    charts: dict[str, Any] = {}
    history = post.group("vi_history")
    if {"step", "elbo_per_row"} <= set(history):
        elbo = history["elbo_per_row"].values
        late = elbo[len(elbo) // 10 :]
        late = late[np.isfinite(late)]
        charts["elbo"] = {"step": packed(history["step"].values.astype(np.int32)), "elbo": packed(elbo)}
        if len(late) > 1 and late.max() > late.min():
            # The first steps lie far below: the axis begins where the last nine tenths of the run do.
            margin = 0.08 * (late.max() - late.min())
            charts["elbo"]["range"] = [float(late.min() - margin), float(late.max() + margin)]
    khat = khat_of_genes(post)
    if khat is not None and np.isfinite(khat.values).any():
        charts["khat"] = packed(khat.values[np.isfinite(khat.values)])
    return charts
