"""Convergence of Markov chains: rank-normalised split R-hat, effective sample sizes, BFMI, for many quantities at once.

Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Analysis 16(2), 667; the energy's is Betancourt (2016),
arXiv 1604.00695. ArviZ's own take one quantity at a time; a test holds these to them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import next_fast_len
from scipy.special import ndtri
from scipy.stats import rankdata

# Quantities whose draws are transformed at a time: 8 half-chains of 500 draws make 64 MB of them.
_AT_ONCE = 2_000
_TAIL = (0.05, 0.95)


def rhat(draws: np.ndarray) -> np.ndarray:
    """R-hat of each quantity: the larger of that of ranks and that of ranks of distances from the median.

    Parameters
    ----------
    draws
        Shape [chain, draw, ...], 4 draws or more.

    Returns
    -------
    ndarray
        Shape [...]; not a number where all draws are equal.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 3))
    >>> bool((rhat(draws) < 1.01).all()), bool((rhat(draws + np.arange(4)[:, None, None]) > 1.5).all())
    (True, True)
    """

    def of_some(part: np.ndarray) -> np.ndarray:
        halves = _halves(part)
        folded = np.abs(halves - np.median(halves, axis=(0, 1)))
        return np.fmax(_plain_rhat(_normal_scores(halves)), _plain_rhat(_normal_scores(folded)))

    return _in_parts(of_some, draws)


def ess_bulk(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of the ranks of each quantity; shapes as for `rhat`."""
    return _in_parts(lambda part: _ess(_normal_scores(_halves(part))), draws)


def ess_tail(draws: np.ndarray) -> np.ndarray:
    """Smaller of the effective sample sizes of the 5 % and the 95 % quantile; shapes as for `rhat`."""

    def of_some(part: np.ndarray) -> np.ndarray:
        below = [(part <= np.quantile(part, at, axis=(0, 1))).astype(float) for at in _TAIL]
        return np.fmin(*(_ess(_halves(each)) for each in below))

    return _in_parts(of_some, draws)


def bfmi(energy: np.ndarray) -> np.ndarray:
    """Energy fraction of missing information of each chain.

    Parameters
    ----------
    energy
        Energy that each transition starts with, shape [chain, draw].
    """
    return np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1, ddof=1)


def _in_parts(function: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> np.ndarray:
    """Apply a function of draws, [chain, draw, n], to some quantities at a time."""
    draws = np.asarray(draws, dtype=np.float64)
    n_chains, n_draws = draws.shape[:2]
    flat = draws.reshape(n_chains, n_draws, -1)
    found = np.empty(flat.shape[2])
    for start in range(0, flat.shape[2], _AT_ONCE):
        found[start : start + _AT_ONCE] = function(flat[:, :, start : start + _AT_ONCE])
    return found.reshape(draws.shape[2:])


def _halves(draws: np.ndarray) -> np.ndarray:
    """Cut each chain in two; of an odd number, the draw in the middle is left out."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Replace draws [chain, draw, n] by the Normal quantiles of their ranks among all."""
    flat = draws.reshape(-1, draws.shape[2])
    ranks = rankdata(flat, axis=0)
    return ndtri((ranks - 0.375) / (len(flat) + 0.25)).reshape(draws.shape)


def _plain_rhat(draws: np.ndarray) -> np.ndarray:
    n = draws.shape[1]
    between = n * draws.mean(axis=1).var(axis=0, ddof=1)
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + n - 1) / n)


def _autocovariance(draws: np.ndarray) -> np.ndarray:
    """Mean over chains of the autocovariance at every lag, shape [draw, n]."""
    n = draws.shape[1]
    length = next_fast_len(2 * n, real=True)
    spectrum = np.fft.rfft(draws - draws.mean(axis=1, keepdims=True), n=length, axis=1)
    power = np.square(np.abs(spectrum)).mean(axis=0)
    return np.fft.irfft(power, n=length, axis=0)[:n] / n


def _ess(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of means of draws [chain, draw, n], by Geyer's initial monotone sequence (1992)."""
    n_chains, n = draws.shape[:2]
    covariance = _autocovariance(draws)
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + (draws.mean(axis=1).var(axis=0, ddof=1) if n_chains > 1 else 0.0)
    constant = np.ptp(draws, axis=(0, 1)) < np.finfo(float).resolution
    rho = 1 - (within - covariance) / np.where(constant, 1.0, total)
    rho[0] = 1.0
    n_pairs = max(1, (n - 1) // 2)
    even, odd = rho[: 2 * n_pairs : 2], rho[1 : 2 * n_pairs : 2]
    pairs = even + odd
    # Pairs up to the first that is not positive, each no larger than those before it.
    ended = np.where((pairs <= 0).any(axis=0), (pairs <= 0).argmax(axis=0), n_pairs - 1)
    counted = np.arange(n_pairs)[:, None] < ended
    area = np.where(counted, np.minimum.accumulate(pairs, axis=0), 0.0).sum(axis=0)
    last = np.take_along_axis(even, ended[None], axis=0)[0]
    size = n_chains * n
    time = np.maximum(-1 + 2 * area + np.maximum(last, 0.0), 1 / np.log10(size))
    return np.where(constant, float(size), size / time)
