"""Pareto k-hat of importance weights: how far a guide's draws can be trusted to stand for the posterior.

Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72); the generalised Pareto
fit is that of Zhang & Stephens (2009), Technometrics 51(3). Below 0.7 the draws are near enough to be corrected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KHAT_LIMIT = 0.7
# Sets of weights at a time: what the fit of a tail makes of them (some 4,000 numbers a set) then fits a core's cache.
AT_ONCE = 64


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
    tail = _tail_of(np.asarray(log_weights, dtype=np.float64))
    return tail.khat


def leave_one_out(log_likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the leave-one-out log predictive density of observations, and the k-hat of each, by PSIS.

    Draws of a posterior given all observations are weighted by 1 / p(observation | draw), the largest weights smoothed
    (Vehtari, Gelman & Gabry 2017, Statistics and Computing 27, 1413).

    Parameters
    ----------
    log_likelihood : ndarray
        log p(observation | draw), shape [..., N]; draws last.

    Returns
    -------
    elpd, khat : ndarray
        Shape [...].

    Examples
    --------
    >>> elpd, khat = leave_one_out(np.full((2, 1000), -1.3))
    >>> elpd.tolist()
    [-1.3, -1.3]
    """
    log_likelihood = np.asarray(log_likelihood, dtype=np.float64)
    flat = log_likelihood.reshape(-1, log_likelihood.shape[-1])
    found = [_leave_one_out(flat[start : start + AT_ONCE]) for start in range(0, len(flat), AT_ONCE)]
    elpd, khat = (np.concatenate([np.empty(0), *each]) for each in zip(*found, strict=True))
    return elpd.reshape(log_likelihood.shape[:-1]), khat.reshape(log_likelihood.shape[:-1])


def _leave_one_out(log_likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail = _tail_of(-log_likelihood)
    top = tail.top[..., None]
    # Whatever is not in the tail keeps its weight; weight x density is then exp(0) for each draw of it.
    n_body = log_likelihood.shape[-1] - tail.log_weights.shape[-1]
    of_tail = np.exp(tail.smoothed - tail.log_weights).sum(-1)
    body = np.exp(-log_likelihood - top).sum(-1) - np.exp(tail.log_weights - top).sum(-1)
    weights = np.maximum(body, 0) + np.exp(tail.smoothed - top).sum(-1)
    return np.log(n_body + of_tail) - np.log(weights) - tail.top, tail.khat


@dataclass(frozen=True)
class _Tail:
    """The largest log weights in ascending order, [..., M], as they were and smoothed; the largest of all; k-hat."""

    log_weights: np.ndarray
    smoothed: np.ndarray
    top: np.ndarray
    khat: np.ndarray


def _tail_of(log_weights: np.ndarray) -> _Tail:
    n_draws = log_weights.shape[-1]
    finite = np.isfinite(log_weights).all(-1)
    log_weights = np.where(finite[..., None], log_weights, 0.0)
    n_tail = int(np.ceil(min(0.2 * n_draws, 3 * np.sqrt(n_draws))))
    few = n_tail < 5
    n_tail = min(n_tail, n_draws - 1)
    largest = np.sort(np.partition(log_weights, n_draws - n_tail - 1, axis=-1)[..., n_draws - n_tail - 1 :], axis=-1)
    raw, top = largest[..., 1:], largest[..., -1]
    if few:
        return _Tail(raw, raw, top, np.where(finite, np.nan, np.inf))
    cutoff = np.exp(largest[..., :1] - top[..., None])
    tail = np.exp(raw - top[..., None]) - cutoff
    flat = tail[..., -1] <= np.finfo(np.float64).eps * 100
    khat, sigma = _fit_generalised_pareto(np.where(flat[..., None], np.arange(1, n_tail + 1), tail))
    # Expected order statistics, no weight above the largest raw one.
    quantile = -np.log1p(-(np.arange(n_tail) + 0.5) / n_tail)
    shape, scale = khat[..., None], sigma[..., None]
    exceedance = scale * np.where(
        np.abs(shape) < 1e-12, quantile, np.expm1(shape * quantile) / np.where(shape, shape, 1)
    )
    smoothed = np.minimum(np.log(exceedance + cutoff), 0.0) + top[..., None]
    smoothed = np.where(flat[..., None], raw, smoothed)
    return _Tail(raw, smoothed, top, np.where(finite, np.where(flat, -np.inf, khat), np.inf))


def _fit_generalised_pareto(tail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale of a generalised Pareto distribution fitted to exceedances in ascending order, [..., M]."""
    n_tail = tail.shape[-1]
    n_grid = 30 + int(np.sqrt(n_tail))
    quarter = tail[..., int(n_tail / 4 + 0.5) - 1, None]
    grid = 1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    b = grid / (3.0 * np.maximum(quarter, 1e-300)) + 1.0 / tail[..., -1:]
    k = np.mean(np.log1p(-b[..., None] * tail[..., None, :]), axis=-1)
    profile = n_tail * (np.log(-b / k) - k - 1.0)
    weights = np.exp(profile - profile.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    weights = np.where(weights < 10 * np.finfo(np.float64).eps, 0.0, weights)
    weights /= weights.sum(-1, keepdims=True)
    b_hat = (b * weights).sum(-1, keepdims=True)
    k_hat = np.mean(np.log1p(-b_hat * tail), axis=-1)
    # Weakly informative prior of Vehtari et al., worth ten exceedances at 1/2.
    return (n_tail * k_hat + 10 * 0.5) / (n_tail + 10), -k_hat / b_hat[..., 0]
