"""How far rows are from what the fit expects of them: the noise of each line and of each sgRNA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vihier.answers.effect_draws import require_effect
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior
from vihier.screen.faults import nearest, shown
from vihier.screen.rows import Rows
from vihier.screen.screen import Screen
from vihier.store.store import ScreenStore

_GENES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Residuals:
    """Root mean squares of rows minus what is expected of them, in log2 fold change.

    Attributes
    ----------
    line
        float64 [C], of the fit's lines; NaN without rows.
    sgrna
        float64 [S], of the fit's sgRNAs; None where the fit does not know them.
    """

    line: np.ndarray
    sgrna: np.ndarray | None


def residuals(post: Posterior, screen: Screen | ScreenStore) -> Residuals:
    """Measure the rows of a screen against the posterior means.

    What is expected of a row is the effect of its gene in its line, plus `alpha_dev` of its sgRNA where the model has
    it. The posterior means lie nearer to the rows that they were fitted to than the truth does, so that these are a
    little too small: by as much as there are parameters for rows.

    Parameters
    ----------
    post
        A fit with `effect`.
    screen
        What it was fitted to, in memory or a store.

    Raises
    ------
    VihierError
        No `effect` in the fit, or a gene, line or sgRNA that it does not have.
    """
    require_effect(post)
    index = screen.index
    line = _places(post, "depmap_id", index.lines)
    deviation, sgrna, n_sgrnas = _deviations(post, index.sgrnas)
    squares, counts = np.zeros((2, len(post.labels("depmap_id"))))
    of_sgrnas = np.zeros((2, n_sgrnas))
    for rows, effect in _blocks(post, screen, line):
        residual = rows.lfc - effect - deviation[rows.sgrna]
        here = line[rows.line]
        squares += np.bincount(here, weights=residual**2, minlength=len(squares))
        counts += np.bincount(here, minlength=len(counts))
        if n_sgrnas:
            here = sgrna[rows.sgrna]
            of_sgrnas[0] += np.bincount(here, weights=residual**2, minlength=n_sgrnas)
            of_sgrnas[1] += np.bincount(here, minlength=n_sgrnas)
    return Residuals(_root_mean(squares, counts), _root_mean(*of_sgrnas) if n_sgrnas else None)


def _blocks(post: Posterior, screen: Screen | ScreenStore, line: np.ndarray) -> Iterator[tuple[Rows, np.ndarray]]:
    """Yield rows, and the posterior mean of the effect of each, float64 [n]."""
    genes = screen.index.genes
    _places(post, "hugo_symbol", genes)
    for start in range(0, len(genes), _GENES_AT_ONCE):
        part = slice(start, min(start + _GENES_AT_ONCE, len(genes)))
        mean = post.moments("effect", hugo_symbol=genes[part].tolist())["mean"].values.astype(np.float64)
        rows = screen.rows_of(part)
        yield rows, mean[rows.gene - start, line[rows.line]]


def _deviations(post: Posterior, sgrnas: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return alpha_dev of the screen's sgRNAs and their places in the fit; zeros, and no sgRNAs, without alpha_dev."""
    if post.variables.get("alpha_dev") != ("sgrna",):
        return np.zeros(len(sgrnas)), np.zeros(len(sgrnas), dtype=np.int64), 0
    places = _places(post, "sgrna", sgrnas)
    mean = post.moments("alpha_dev")["mean"].values.astype(np.float64)
    return mean[places], places, len(mean)


def _places(post: Posterior, dim: str, wanted: np.ndarray) -> np.ndarray:
    known = post.labels(dim)
    # Both are sorted by code point.
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    missing = np.flatnonzero(known[places] != wanted)
    if len(missing):
        name = wanted[missing[0]]
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise VihierError(
            f"{post.path}: {dim} {shown(name)}{more} of the screen is not in the fit{nearest(name, known[:2000])}; "
            "give the screen that was fitted, or a part of it"
        )
    return places


def _root_mean(squares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    mean = np.divide(squares, counts, out=np.full(len(squares), np.nan), where=counts > 0)
    return np.sqrt(mean)
