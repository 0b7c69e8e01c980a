"""What is beyond a limit, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from vihier.quality.limits import Limit, worst

COLUMNS = ("about", "label", "measure", "value", "limit", "text")

Words = Callable[[pd.Series], str]


def measured(tables: Mapping[str, pd.DataFrame], limits: Iterable[Limit]) -> list[dict[str, Any]]:
    """Return what was measured: `about`, `measure`, its `median` and `worst` value, and the limit's `side`, `value`.

    Parameters
    ----------
    tables
        By what their rows are about.
    limits
        Measures without a value are left out.
    """
    found: list[dict[str, Any]] = []
    for limit in limits:
        table = tables.get(limit.about)
        if table is None or limit.measure not in table or not table[limit.measure].notna().any():
            continue
        values = table[limit.measure]
        account = {"about": limit.about, "measure": limit.measure, "median": float(values.median())}
        flagged = int(limit.beyond(values).sum())
        bound = {"flagged": limit.side, "limit": limit.value, "n_flagged": flagged, "because": limit.because}
        found.append({**account, "worst": worst(values, limit), **bound})
    return found


def flags_of(table: pd.DataFrame, limits: Iterable[Limit], words: dict[str, Words], label: str) -> pd.DataFrame:
    """Return the rows of a table that are beyond a limit, a row for each limit, the worst first.

    Parameters
    ----------
    table
        Measures as columns.
    limits
        Those of the table's kind; measures that the table does not have are passed over.
    words
        Says what a row means, by measure.
    label
        The column that names a row.

    Returns
    -------
    DataFrame
        `about` (replicate, line, sgRNA, gene, batch), `label`, `measure`, `value`, `limit`, and `text`, a sentence.
    """
    found = []
    for limit in limits:
        if limit.measure not in table:
            continue
        values = table[limit.measure]
        beyond = np.flatnonzero(limit.beyond(values))
        order = np.argsort(limit.sizes(values)[beyond] * (1 if limit.side == "below" else -1), kind="stable")
        for place in beyond[order]:
            row = table.iloc[place]
            value = float(values.iloc[place])
            found.append((limit.about, str(row[label]), limit.measure, value, limit.value, words[limit.measure](row)))
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"value": np.float64, "limit": np.float64})
