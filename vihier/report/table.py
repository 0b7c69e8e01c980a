"""Tables of a report, which a reader sorts and searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vihier.report.payload import packed

# What columns of answers mean, for those who come to the page without the manual.
MEANINGS = {
    "hugo_symbol": "gene",
    "depmap_id": "cell line",
    "n_lines": "lines of the lineage in the screen",
    "mean": "posterior mean",
    "sd": "posterior standard deviation",
    "hdi_5.5%": "lower bound of the 89 % highest-density interval",
    "hdi_94.5%": "upper bound of the 89 % highest-density interval",
    "prob_negative": "posterior probability that it is below 0",
    "lfsr": "local false sign rate: posterior probability that the sign is wrong",
    "fdr": "mean lfsr of all that are at least as sure",
    "hit": "fdr at most the level asked for",
    "beta_dev": "the line's own effect on all genes, minus the mean of all lines",
    "beta_plus_theta_dev": "the line's own effect on all genes, minus the mean of all lines",
    "median_effect_sd": "median over genes of the posterior sd of the effect",
    "sigma": "noise of a row (standard deviation)",
    "auroc": "probability that an essential gene lies below a non-essential one",
    "nnmd": "difference of the control genes' medians, in MADs of the non-essential genes",
    "essential": "median effect of the essential genes",
    "nonessential": "median effect of the non-essential genes",
    "khat": "Pareto k-hat: above 0.7 the guide alone is not to be trusted",
}
_FOUR_DIGITS = frozenset({"lfsr", "fdr"})


@dataclass(frozen=True, eq=False)
class ReportTable:
    """A table of the page.

    Attributes
    ----------
    key
        Names the element.
    title
        What it is.
    note
        What to know to read it.
    command
        Writes it to a file.
    frame
        Its rows, in the order in which they are shown at first.
    meanings
        What columns mean, beside those that mean the same everywhere.
    """

    key: str
    title: str
    note: str
    command: str
    frame: pd.DataFrame
    meanings: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return the table as the page's script reads it."""
        return {
            "key": self.key,
            "nRows": len(self.frame),
            "columns": [self._column(str(name), self.frame[name].to_numpy()) for name in self.frame],
        }

    def _column(self, name: str, values: np.ndarray) -> dict[str, Any]:
        about = self.meanings.get(name, MEANINGS.get(name, ""))
        kind = values.dtype.kind
        if kind not in "biuf":
            # A missing label is shown as nothing, not as a word.
            values = np.array(["" if pd.isna(value) else str(value) for value in values], dtype=object)
            shown = "prose" if name == "text" else "text"
            return {"name": name, "kind": shown, "about": about, "values": packed(values)}
        shown = {"b": "flag", "i": "integer", "u": "integer", "f": "number"}[kind]
        digits = 4 if name in _FOUR_DIGITS else 3
        return {"name": name, "kind": shown, "digits": digits, "about": about, "values": packed(values)}


def tables_data(tables: Iterable[ReportTable]) -> list[dict[str, Any]]:
    """Return tables as the page's script reads them."""
    return [table.data() for table in tables]
