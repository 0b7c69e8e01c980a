"""Tables of a posterior: one row per element, labels in columns, in blocks that fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vihier.errors import VihierError
from vihier.posterior.layout import SAMPLE_DIMS, ordered_dims
from vihier.posterior.moments import HDI_PROB, hdi_of_draws
from vihier.posterior.selection import Selection, shown

if TYPE_CHECKING:
    from vihier.posterior.stored import StoredPosterior

_BLOCK_ROWS = 100_000
_BLOCK_DRAW_BYTES = 64 * 1024 * 1024


def hdi_columns(prob: float) -> tuple[str, str]:
    """Names of the bounds of an interval, as ArviZ names them.

    Examples
    --------
    >>> hdi_columns(0.89)
    ('hdi_5.5%', 'hdi_94.5%')
    """
    outside = 1 - prob
    return f"hdi_{100 * outside / 2:g}%", f"hdi_{100 * (1 - outside / 2):g}%"


def summary_blocks(
    post: StoredPosterior, names: Sequence[str], prob: float, selection: Selection
) -> Iterator[pd.DataFrame]:
    """Yield the summary of some variables in blocks of rows, all with the same columns.

    Parameters
    ----------
    post : StoredPosterior
        An open posterior.
    names : sequence of str
        Variables.
    prob : float
        Probability of the highest-density interval. The interval of any other than 0.89 is computed from the draws,
        which are read in blocks of 64 MB; everything else comes from the file's moments.
    selection : mapping of dim to label or labels
        Applied to each variable.

    Yields
    ------
    DataFrame
        At most 100,000 rows (or one element of a variable's first dim, where that has more).

    Raises
    ------
    VihierError
        Before the first block: an unknown variable or label, a probability outside (0, 1), draws that cannot be had.
    """
    if not 0 < prob < 1:
        raise VihierError(f"prob: {shown(prob)} is not between 0 and 1, such as 0.89")
    if not names:
        raise VihierError("no variable named; name one of " + ", ".join(post.variables))
    chosen = [(name, post.resolve(name, selection)) for name in dict.fromkeys(names)]
    stored_interval = math.isclose(prob, HDI_PROB)
    for name, _ in chosen:
        if not stored_interval and not post.has_draws(name):
            raise VihierError(f"prob: {prob} needs draws of {name!r}, which are not stored; use {HDI_PROB}")
    label_columns = ordered_dims(dim for name, _ in chosen for dim in post.variables[name])
    return _blocks(post, chosen, None if stored_interval else prob, hdi_columns(prob), label_columns)


def _blocks(
    post: StoredPosterior,
    chosen: Sequence[tuple[str, list[np.ndarray | None]]],
    prob: float | None,
    bounds: tuple[str, str],
    label_columns: Sequence[str],
) -> Iterator[pd.DataFrame]:
    notes = post.not_identified
    noted = any(name in notes for name, _ in chosen)
    for name, positions in chosen:
        dims = post.variables[name]
        for part in _parts(post, dims, positions, prob is not None):
            labels = _label_table(post, dims, part)
            n_rows = len(next(iter(labels.values()))) if labels else 1
            columns: dict[str, object] = {"variable": np.repeat(np.array([name], dtype=object), n_rows)}
            columns |= {dim: labels.get(dim, np.full(n_rows, None, dtype=object)) for dim in label_columns}
            moments = {key: post.read_moment(name, key, part).ravel() for key in ("mean", "sd", "prob_negative")}
            if prob is None:
                lower, upper = (post.read_moment(name, key, part) for key in ("hdi_lower", "hdi_upper"))
            else:
                lower, upper = (a.astype(np.float32) for a in hdi_of_draws(post.read_draws(name, part), prob))
            columns |= {"mean": moments["mean"], "sd": moments["sd"]}
            columns |= {bounds[0]: lower.ravel(), bounds[1]: upper.ravel(), "prob_negative": moments["prob_negative"]}
            if noted:
                columns["not_identified"] = np.repeat(np.array([notes.get(name, "")], dtype=object), n_rows)
            yield pd.DataFrame(columns)


def _parts(
    post: StoredPosterior, dims: Sequence[str], positions: Sequence[np.ndarray | None], with_draws: bool
) -> Iterator[list[np.ndarray | None]]:
    """Cut a selection along its first dim."""
    if not dims:
        yield []
        return
    sizes = [len(labels) for labels in post.coords(dims, positions).values()]
    inner = math.prod(sizes[1:])
    rows = _BLOCK_ROWS // inner
    if with_draws:
        bytes_per_row = 4 * inner * math.prod(post.size(dim) for dim in SAMPLE_DIMS)
        rows = min(rows, _BLOCK_DRAW_BYTES // bytes_per_row)
    first = np.arange(sizes[0]) if positions[0] is None else positions[0]
    step = max(1, rows)
    for start in range(0, sizes[0], step):
        yield [first[start : start + step], *positions[1:]]


def _label_table(
    post: StoredPosterior, dims: Sequence[str], part: Sequence[np.ndarray | None]
) -> dict[str, np.ndarray]:
    """Labels of every element of a block, one column per dim, the last dim changing fastest."""
    labels = post.coords(dims, part)
    sizes = [len(values) for values in labels.values()]
    return {
        dim: np.tile(np.repeat(values, math.prod(sizes[axis + 1 :])), math.prod(sizes[:axis]))
        for axis, (dim, values) in enumerate(labels.items())
    }
