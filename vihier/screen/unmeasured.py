"""Tables of rows that are to be predicted: as a screen's table, the fold change missing or known but not looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike

import numpy as np
import pandas as pd
import pyarrow as pa

from vihier.screen.faults import fault, shown
from vihier.screen.read import open_source, read_table
from vihier.screen.screen import Screen
from vihier.screen.sources import Source

OBSERVED = "lfc observed"


class _Unmeasured:
    """A table whose fold changes stand in a column of another name, zeros in their place."""

    def __init__(self, table: Source, lfc: str) -> None:
        self.table, self.name, self.lfc = table, table.name, lfc

    def column_names(self) -> list[str]:
        return [OBSERVED if name == self.lfc else name for name in self.table.column_names()] + ["lfc"]

    def read(self, places: Sequence[int], numeric: Collection[int]) -> dict[int, pa.ChunkedArray]:
        names = self.column_names()
        last = len(names) - 1
        theirs = [place for place in places if place != last]
        # At least one column, so that the number of rows is known.
        numbers = {place for place in (*numeric, *range(last)) if names[place] == OBSERVED or place in numeric} - {last}
        found = self.table.read(theirs or [0], numbers)
        n_rows = len(next(iter(found.values())))
        return {**found, last: pa.chunked_array([pa.array(np.zeros(n_rows))])}

    def row_name(self, row: int) -> str:
        return self.table.row_name(row)


def read_unmeasured(
    source: str | PathLike[str] | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
) -> tuple[Screen, np.ndarray | None]:
    """Read rows to be predicted.

    Parameters
    ----------
    source
        A table as `vihier.read_screen` takes it, with or without `lfc`; rows without a value are kept.
    columns, single_lineage
        As for `vihier.read_screen`.

    Returns
    -------
    screen : Screen
        The rows, their `lfc` zero.
    observed : ndarray or None
        `lfc` of the rows in the screen's order, NaN where it is missing; None where the table has no such column.

    Raises
    ------
    VihierError
        As `vihier.read_screen`.

    Examples
    --------
    >>> rows = pd.DataFrame({"sgrna": ["s1", "s2"], "hugo_symbol": "KRAS", "depmap_id": "ACH-1", "lfc": [0.5, None]})
    >>> screen, observed = read_unmeasured(rows)
    >>> screen.n_rows, observed.tolist()
    (2, [0.5, nan])
    """
    mapping = dict(columns or {})
    table = _Unmeasured(open_source(source), mapping.pop("lfc", "lfc"))
    screen = read_table(table, columns=mapping, single_lineage=single_lineage)
    observed = screen.covariates.pop(OBSERVED, None)
    if observed is not None and OBSERVED in screen.index.categories:
        text = str(screen.index.categories[OBSERVED][0])
        cure = "give numbers, or leave the column out"
        raise fault(table.name, f"column 'lfc' holds text, such as {shown(text)}", cure=cure)
    return screen, observed
