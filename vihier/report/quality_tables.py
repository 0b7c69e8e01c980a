"""The tables of quality that a report shows: of the fit, and of the screen where it is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from vihier.diagnostics.control_genes import ControlGenes
from vihier.quality import FIT_LIMITS, SCREEN_LIMITS, Limit, fit_quality, screen_quality
from vihier.report.table import ReportTable

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen
    from vihier.store.store import ScreenStore

_OF_FIT = "vihier qc FIT.h5 --out quality"
_OF_SCREEN = "vihier qc SCREEN --out quality"


def quality_tables(
    post: Posterior, screen: Screen | ScreenStore | None, controls: ControlGenes | None
) -> list[ReportTable]:
    """Return what is flagged, and the measures of lines, replicates and batches.

    Parameters
    ----------
    post
        A fit with `effect`.
    screen
        The screen that was fitted.
    controls
        Reference genes.

    Raises
    ------
    VihierError
        No control gene of one kind is in the fit, or in the screen.
    """
    of_fit = fit_quality(post, controls)
    flags = [("fit", of_fit.flags)]
    lines = ReportTable("lines", "Lines", "In log2 fold change.", _OF_FIT, of_fit.lines, _because(FIT_LIMITS, "line"))
    measured: list[ReportTable] = []
    if screen is not None:
        of_screen = screen_quality(screen, controls)
        flags.append(("screen", of_screen.flags))
        named = {
            "replicate": ("Replicates", "Agreement, coverage and level of each replicate", of_screen.replicates),
            "line": ("Measured lines", "Of the rows alone, before any fit", of_screen.lines),
            "batch": ("Batches", "Whether lines of one batch are more alike than others", of_screen.batches),
        }
        measured = [
            ReportTable(f"measured-{about}", title, f"{note}.", _OF_SCREEN, table, _because(SCREEN_LIMITS, about))
            for about, (title, note, table) in named.items()
            if len(table)
        ]
    return [_flags(flags, controls), lines, *measured]


def _flags(found: Iterable[tuple[str, pd.DataFrame]], controls: ControlGenes | None) -> ReportTable:
    flags = pd.concat([table.assign(source=source) for source, table in found], ignore_index=True)
    # sgRNAs last: there are many.
    flags = flags.sort_values("about", key=lambda about: about.isin(["sgRNA"]), kind="stable", ignore_index=True)
    by_kind = flags.groupby("about", sort=False).size()
    counted = ", ".join(f"{about} {n:,}" for about, n in by_kind.items())
    note = f"What is beyond a limit, for you to judge: {counted or 'none'}. Nothing was removed."
    if controls is None:
        note += " Without control genes it is not known how well lines tell them apart."
    return ReportTable("flags", "Flags", note, _OF_FIT, flags[["text", "about", "measure", "value", "limit", "source"]])


def _because(limits: Iterable[Limit], about: str) -> dict[str, str]:
    return {
        limit.measure: f"{limit.because} (flagged {limit.side} {limit.value:g})"
        for limit in limits
        if limit.about == about
    }
