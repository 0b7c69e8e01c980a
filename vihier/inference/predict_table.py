"""A table of rows with what a fit predicts of each: mean, sd and interval, and how probable what was measured is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.known_sites import new_elements
from vihier.inference.predict import Model, draw_rows, program_of
from vihier.inference.predictor import ELEMENTS_AT_ONCE, Predictor
from vihier.models.counts import COUNTS
from vihier.models.program import Program
from vihier.posterior.reader import Posterior
from vihier.screen import Screen
from vihier.screen.faults import shown
from vihier.screen.unmeasured import read_unmeasured
from vihier.store.store import is_hdf5, open_store

if TYPE_CHECKING:
    import pandas as pd

_PLACE = "row of the table"
QUANTILE_DRAWS = 8000
# Within each chain of nested elements the outermost new one is named: a new gene's sgRNAs are new anyway.
_NESTED = (("hugo_symbol", "sgrna"), ("lineage", "depmap_id", "replicate"))
_NOUNS = {"hugo_symbol": "gene", "sgrna": "sgrna", "lineage": "lineage", "depmap_id": "line", "replicate": "replicate"}


def interval_columns(prob: float) -> tuple[str, str]:
    """Names of the bounds of a central (equal-tailed) interval.

    Examples
    --------
    >>> interval_columns(0.9)
    ('eti_5%', 'eti_95%')
    """
    outside = round(100 * (1 - prob) / 2, 10)
    return f"eti_{outside:g}%", f"eti_{100 - outside:g}%"


@dataclass(frozen=True, eq=False)
class RowsToPredict:
    """Rows of a table, what was measured of them where the table says, and what is new in them to a posterior.

    Attributes
    ----------
    screen
        The rows.
    observed
        Their `lfc` [n], NaN where it is missing; None where there is none.
    """

    screen: Screen
    observed: np.ndarray | None

    @classmethod
    def read(
        cls,
        table: str | PathLike[str] | pd.DataFrame | Screen,
        posterior: Posterior | None,
        *,
        columns: Mapping[str, str] | None = None,
        single_lineage: bool = False,
    ) -> RowsToPredict:
        """Read a table, or take a screen; lines that the posterior knows have the lineage that they have there."""
        if isinstance(table, Screen):
            rows = cls(table, table.lfc)
        elif isinstance(table, str | PathLike) and is_hdf5(Path(table)):
            with open_store(table) as store:
                screen = store.to_screen()
            rows = cls(screen, screen.lfc)
        else:
            rows = cls(*read_unmeasured(table, columns=columns, single_lineage=single_lineage))
        return rows if posterior is None else replace(rows, screen=with_lineages(rows.screen, posterior))

    def measured(self, program: Program) -> tuple[str, np.ndarray | None]:
        """Return the name and values, [n], of the column that a program observes; None where the table lacks it."""
        if program.likelihood.is_of_counts:
            return COUNTS, self.screen.covariates.get(COUNTS)
        return "lfc", self.observed

    def part(self, cut: Callable[[Screen], Screen]) -> RowsToPredict:
        """Return the rows that `cut` leaves of the screen, with what was measured of them."""
        place = np.arange(self.screen.n_rows, dtype=np.float64)
        numbered = replace(self.screen, covariates={**self.screen.covariates, _PLACE: place})
        left = cut(numbered)
        if left is numbered:
            return self
        places = left.covariates.pop(_PLACE).astype(np.int64)
        return RowsToPredict(left, None if self.observed is None else self.observed[places])


def with_lineages(screen: Screen, posterior: Posterior) -> Screen:
    """Return a screen with the lineages that a posterior has for its lines, where its table has no lineages.

    Raises
    ------
    VihierError
        A line that the posterior does not know.
    """
    index = posterior.group("index")
    if screen.index.lineages is not None or "lineage_of_line" not in index:
        return screen
    lineages = posterior.labels("lineage")
    theirs = dict(zip(posterior.labels("depmap_id"), lineages[index["lineage_of_line"].to_numpy()], strict=True))
    only = lineages[0] if len(lineages) == 1 else None
    named = [theirs.get(line, only) for line in screen.index.lines]
    if None in named:
        line = screen.index.lines[named.index(None)]
        raise VihierError(
            f"column 'lineage': {posterior.path} does not know line {shown(line)}, and the table does not say what "
            "lineage it has; add the column"
        )
    labels, of_line = np.unique(np.array(named, dtype=object), return_inverse=True)
    return replace(screen, index=replace(screen.index, lineages=labels, lineage_of_line=of_line.astype(np.int64)))


def predict(
    posterior: Posterior,
    table: str | PathLike[str] | pd.DataFrame | Screen,
    *,
    prob: float = 0.9,
    draws: int | None = None,
    seed: int = 0,
    model: Model | None = None,
    columns: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Predict rows: mean, sd and interval of each.

    Rows may be of replicates, sgRNAs, genes, lines and lineages that the fit never saw. Each such element is drawn from
    its prior given the posterior's draws of what it belongs to, so that its own spread is in the interval.

    Parameters
    ----------
    posterior
        A fit.
    table
        Rows as `vihier.read_screen` takes them; `lfc` can be missing, and so can `lineage` where the fit knows the
        lines.
    prob
        Probability of the central interval.
    draws
        How many of the posterior's draws to use, evenly spaced; None is all.
    seed
        Of the noise of rows and of what is new.
    model
        The program, for a fit of one's own.
    columns
        Our name of a column to the table's, where they differ.

    Returns
    -------
    DataFrame
        A row for each of the table's, in the order of a screen (gene, sgRNA, line, replicate): its columns; ``new``,
        what of it the fit never saw; ``mean``, ``sd``, the bounds (``eti_5%`` and ``eti_95%`` at 0.9), in log2 fold
        change, or in reads; and, where the table has ``lfc``, or ``counts_final``, ``log_density``, the log of its
        predictive density.

    Raises
    ------
    VihierError
        What `vihier.read_screen` refuses; an sgRNA of another gene, a line of another lineage than in the fit; a column
        that the model reads and the table lacks.
    """
    import pandas as pd

    rows = RowsToPredict.read(table, posterior, columns=columns)
    predictor = Predictor.of(posterior, rows.screen, program_of(posterior, model), draws=draws, seed=seed)
    return pd.concat(predicted_blocks(predictor, rows, posterior, prob=prob), ignore_index=True)


def predicted_blocks(
    predictor: Predictor, rows: RowsToPredict, posterior: Posterior | None, *, prob: float = 0.9
) -> Iterator[pd.DataFrame]:
    """Yield the table of `predict` in blocks of rows, in bounded memory.

    Raises
    ------
    VihierError
        A probability outside (0, 1).
    """
    if predictor.screen.n_rows != rows.screen.n_rows:
        dropped = rows.screen.n_rows - predictor.screen.n_rows
        names = ", ".join(predictor.program.covariates)
        raise VihierError(
            f"column {names}: missing in {dropped:,} rows, and the fit left such rows out; leave them out here too"
        )
    if not 0 < prob < 1:
        raise VihierError(f"prob: {prob!r} is not between 0 and 1, such as 0.9")
    return _blocks(predictor, rows, posterior, prob)


def _blocks(
    predictor: Predictor, rows: RowsToPredict, posterior: Posterior | None, prob: float
) -> Iterator[pd.DataFrame]:
    frame = rows.screen.to_frame().drop(columns="lfc")
    if rows.observed is not None:
        frame["lfc"] = rows.observed
    _, observed = rows.measured(predictor.program)
    if posterior is not None:
        frame["new"] = _what_is_new(posterior, rows.screen)
    lower, upper = interval_columns(prob)
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    for of_rows in predictor.blocks():
        at_rows, n_rows = of_rows.rows, len(of_rows.batch.gene)
        # Of short tables each draw gives several rows, so that the bounds have little noise of their own.
        repeats = max(1, min(QUANTILE_DRAWS // predictor.n_draws, ELEMENTS_AT_ONCE // (predictor.n_draws * n_rows)))
        drawn = np.empty((predictor.n_draws, repeats, n_rows), dtype=np.float32)
        moments = np.zeros((2, n_rows))
        density = np.empty((predictor.n_draws, 0 if observed is None else n_rows))
        for at, run in of_rows.runs():
            sampled = draw_rows(run.rows, predictor.seed, int(of_rows.batch.gene_idx[0]), at.start, repeats)
            drawn[at] = sampled.swapaxes(0, 1)
            moments += _moments(run.rows, sampled[0]) * (at.stop - at.start) / predictor.n_draws
            if observed is not None:
                density[at] = run.rows.log_prob(torch.as_tensor(observed[at_rows])).numpy()
        block = frame.iloc[at_rows].copy()
        block["mean"], block["sd"] = moments[0], np.sqrt(np.maximum(moments[1] - moments[0] ** 2, 0))
        block[lower], block[upper] = np.quantile(drawn.reshape(-1, n_rows), tails, axis=0)
        if observed is not None:
            block["log_density"] = _log_mean_exp(density)
        yield block


def _moments(rows: torch.distributions.Distribution, drawn: np.ndarray) -> np.ndarray:
    """Mean of the rows and of their squares over draws, [2, rows]: those of the distribution where it has them."""
    mean, variance = rows.mean.numpy(), rows.variance.numpy()
    square = variance + mean**2
    if not np.isfinite(square).all():  # Student-t with few degrees of freedom
        drawn = drawn.astype(np.float64)
        mean, square = np.where(np.isfinite(mean), mean, drawn), np.where(np.isfinite(square), square, drawn**2)
    return np.stack([mean.mean(0), square.mean(0)])


def _log_mean_exp(values: np.ndarray) -> np.ndarray:
    top = np.max(values, axis=0)
    return np.log(np.exp(values - top).sum(0)) + top - math.log(len(values))


def _what_is_new(posterior: Posterior, screen: Screen) -> np.ndarray:
    """Say for each row which of its elements a posterior does not have: `line`, `gene+line`, ...; object [n]."""
    new = new_elements(posterior, screen)
    lineage = screen.index.lineage_of_line
    codes = {"sgrna": screen.sgrna, "hugo_symbol": screen.gene, "depmap_id": screen.line}
    codes |= {"replicate": screen.replicate} | ({} if lineage is None else {"lineage": lineage[screen.line]})
    said = np.full(screen.n_rows, "", dtype=object)
    for nested in _NESTED:
        free = np.ones(screen.n_rows, dtype=bool)
        for dim in nested:
            if dim in new and dim in codes:
                rows = free & new[dim][codes[dim]]
                said[rows] = np.where(said[rows] == "", _NOUNS[dim], said[rows] + f"+{_NOUNS[dim]}")
                free &= ~rows
    return said


def coverage(frame: pd.DataFrame, prob: float, column: str = "lfc") -> float:
    """Return the share of the rows with a value of `column` whose interval covers it; NaN where none has one."""
    lower, upper = interval_columns(prob)
    there = frame[frame[column].notna()]
    return float(there[column].between(there[lower], there[upper]).mean()) if len(there) else math.nan
