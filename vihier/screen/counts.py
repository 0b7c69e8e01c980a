"""The columns that a fit of read counts needs: counts, and how many are expected of each row."""

from __future__ import annotations

import numpy as np

from vihier.errors import VihierError
from vihier.models.counts import COUNTS, EXPECTED
from vihier.screen.screen import Screen

# Of counts up to this one each has a number of its own in float32.
LARGEST_COUNT = 2**24
IMPORT = "import the counts with `vihier import chronos` (or mageck, h5ad) and --keep-counts"


def check_counts(screen: Screen, *, with_counts: bool = True) -> None:
    """Refuse a screen whose rows are not all counts with something that they are relative to.

    Parameters
    ----------
    screen
        The screen.
    with_counts
        Whether the counts themselves are needed, and not only what is expected of them.

    Raises
    ------
    VihierError
        A column that is missing or holds text, or the first row whose count is missing, negative, fractional or above
        2^24, or whose expected reads are missing, not positive or not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import read_screen
    >>> table = pd.DataFrame({"sgrna": ["s1", "s2"], "hugo_symbol": "KRAS", "depmap_id": "ACH-1", "lfc": 0.5})
    >>> check_counts(read_screen(table.assign(counts_final=[3, 2.5], counts_expected=9.5)))
    Traceback (most recent call last):
    ...
    vihier.errors.VihierError: column 'counts_final', sgRNA s2 in line ACH-1: 2.5 is no count of reads; give whole...
    """
    for name in (COUNTS, EXPECTED):
        if name == COUNTS and not with_counts:
            continue
        if name not in screen.covariates:
            raise VihierError(f"column {name!r}: likelihood negative_binomial needs it; {IMPORT}")
        if name in screen.index.categories:
            raise VihierError(f"column {name!r}: holds text; give numbers")
    if with_counts:
        counts = screen.covariates[COUNTS]
        _refuse_first(screen, COUNTS, np.isnan(counts), "is no count of reads", "leave the row out")
        wrong = (counts < 0) | (counts != np.floor(counts)) | (counts > LARGEST_COUNT)
        _refuse_first(screen, COUNTS, wrong, "is no count of reads", f"give whole numbers from 0 to {LARGEST_COUNT}")
    expected = screen.covariates[EXPECTED]
    wrong = ~((expected > 0) & np.isfinite(expected))
    cure = "leave the row out: an sgRNA without reads in the plasmid pool has nothing to be compared with"
    _refuse_first(screen, EXPECTED, wrong, "is no expected number of reads", cure)


def _refuse_first(screen: Screen, name: str, wrong: np.ndarray, problem: str, cure: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        index = screen.index
        where = f"sgRNA {index.sgrnas[screen.sgrna[row]]} in line {index.lines[screen.line[row]]}"
        raise VihierError(f"column {name!r}, {where}: {screen.covariates[name][row]:g} {problem}; {cure}")
