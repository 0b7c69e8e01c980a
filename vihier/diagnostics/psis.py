"""Pareto k-hat of importance weights: how far a guide's draws can be trusted to stand for the posterior.

Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72); the generalised Pareto
fit is that of Zhang & Stephens (2009), Technometrics 51(3). Below 0.7 the draws are near enough to be corrected.
"""

from __future__ import annotations

import numpy as np

KHAT_LIMIT = 0.7


def pareto_khat(log_weights: np.ndarray) -> np.ndarray:
    """Return k-hat of importance weights, for many sets of weights at once.

    Parameters
    ----------
    log_weights : ndarray
        Log importance ratios up to a constant, shape [..., N]; draws last.

    Returns
    -------
    ndarray
        k-hat, shape [...]. Minus infinity where the weights of the tail are all equal; infinity where a weight is not
        a number.

    Examples
    --------
    >>> weights = np.random.default_rng(1).pareto(2.0, size=40000) + 1  # tail index 2: k = 1/2
    >>> bool(abs(pareto_khat(np.log(weights)) - 0.5) < 0.1)
    True
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    n_draws = log_weights.shape[-1]
    finite = np.isfinite(log_weights).all(-1)
    ordered = np.sort(np.where(np.isfinite(log_weights), log_weights, 0.0), axis=-1)
    n_tail = int(np.ceil(min(0.2 * n_draws, 3 * np.sqrt(n_draws))))
    if n_tail < 5:
        return np.where(finite, np.nan, np.inf)
    top = ordered[..., -1:]
    cutoff = np.exp(ordered[..., -n_tail - 1, None] - top)
    tail = np.exp(ordered[..., -n_tail:] - top) - cutoff
    flat = tail[..., -1] <= np.finfo(np.float64).eps * 100
    khat = _fit_generalised_pareto(np.where(flat[..., None], np.arange(1, n_tail + 1), tail))
    khat = np.where(flat, -np.inf, khat)
    return np.where(finite, khat, np.inf)


def _fit_generalised_pareto(tail: np.ndarray) -> np.ndarray:
    """Shape of a generalised Pareto distribution fitted to exceedances in ascending order, shape [..., M]."""
    n_tail = tail.shape[-1]
    n_grid = 30 + int(np.sqrt(n_tail))
    quarter = tail[..., int(n_tail / 4 + 0.5) - 1, None]
    grid = 1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    b = grid / (3.0 * np.maximum(quarter, 1e-300)) + 1.0 / tail[..., -1:]
    k = np.mean(np.log1p(-b[..., None] * tail[..., None, :]), axis=-1)
    profile = n_tail * (np.log(-b / k) - k - 1.0)
    weights = 1.0 / np.exp(profile[..., None, :] - profile[..., :, None]).sum(-1)
    weights = np.where(weights < 10 * np.finfo(np.float64).eps, 0.0, weights)
    weights /= weights.sum(-1, keepdims=True)
    b_hat = (b * weights).sum(-1, keepdims=True)
    k_hat = np.mean(np.log1p(-b_hat * tail), axis=-1)
    # Weakly informative prior of Vehtari et al., worth ten exceedances at 1/2.
    return (n_tail * k_hat + 10 * 0.5) / (n_tail + 10)
