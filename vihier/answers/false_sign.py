"""How sure the sign of an effect is, and which effects to call so that few signs of those called are wrong.

Stephens (2017), False discovery rates: a new deal, Biostatistics 18, 275-294. The Bayesian false discovery rate of a
set is the mean local rate of its members (Newton et al. 2004, Biostatistics 5, 155-176).
"""

from __future__ import annotations

import numpy as np

from vihier.errors import VihierError


def local_false_sign_rate(draws: np.ndarray, beyond: float = 0.0) -> np.ndarray:
    """Return the posterior probability that an effect's more probable sign is wrong.

    Parameters
    ----------
    draws
        [N, ...], draws first. A draw that is not a number speaks against either sign.
    beyond
        Effects from -beyond to beyond count as having neither sign; in the unit of the draws.

    Returns
    -------
    numpy.ndarray
        [...]: the smaller of Pr(effect >= -beyond) and Pr(effect <= beyond). Of N draws k of which speak against the
        sign it is (k + 1/2) / (N + 1), the mean under Jeffreys' prior, which is never 0.

    Examples
    --------
    >>> local_false_sign_rate(np.array([[-1.0, 0.2], [-2.0, -0.1], [-1.5, 0.3]])).tolist()
    [0.125, 0.375]
    """
    n_draws = len(draws)
    not_below = n_draws - np.count_nonzero(draws < -beyond, axis=0)
    not_above = n_draws - np.count_nonzero(draws > beyond, axis=0)
    return (np.minimum(not_below, not_above) + 0.5) / (n_draws + 1)


def false_discovery_rate(lfsr: np.ndarray) -> np.ndarray:
    """Return for each effect the mean local rate of those that are at least as sure.

    Parameters
    ----------
    lfsr
        [n], local false sign rates.

    Returns
    -------
    numpy.ndarray
        float64 [n]: Stephens' s-value. Calling every effect whose value is at most `a` calls a set in which a fraction
        of at most `a` is expected to have the wrong sign. Equal rates have equal values.

    Examples
    --------
    >>> false_discovery_rate(np.array([0.3, 0.1, 0.1, 0.5])).round(3).tolist()
    [0.167, 0.1, 0.1, 0.25]
    """
    ordered = np.sort(lfsr.astype(np.float64))
    running = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    last_equal = np.searchsorted(ordered, lfsr, side="right") - 1
    return running[last_equal]


def check_level(fdr: float) -> None:
    """Refuse a false discovery rate that is none."""
    if not 0 < fdr <= 1:
        raise VihierError(f"false discovery rate {fdr:g}: must be above 0 and at most 1, such as 0.05")


def check_beyond(beyond: float) -> None:
    """Refuse a smallest effect that is none."""
    if not (np.isfinite(beyond) and beyond >= 0):
        raise VihierError(f"smallest effect {beyond:g}: must be 0 or above, such as 0.5")
