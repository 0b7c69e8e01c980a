"""Moments and quantiles of Normal mixtures: one component a draw of all else, one even quantile of each a draw.

The component of draw r has mean m[r] and sd s[r]; its noise is the r-th of R even quantiles of the standard Normal in
an order that differs from element to element. The R values then stand for the mixture: what the noise adds to Monte
Carlo error is of order 1/R and not 1/sqrt(R), and what remains is that of the components. Quantiles are at the middles
of the steps of the empirical distribution (Hazen 1914).
"""

from __future__ import annotations

import numpy as np

from vihier.posterior.moments import HDI_PROB

_GOLDEN = (5**0.5 - 1) / 2
_QUANTILES = {"q05": 0.05, "q50": 0.50, "q95": 0.95}


def even_noise(n_draws: int) -> np.ndarray:
    """Return R orders of the R even quantiles of the standard Normal, float32 [R, R], each a shift of the last.

    In each order, any run of draws has its quantiles spread evenly: multiples of the golden ratio, modulo one, fill the
    gaps between those before them.
    """
    from scipy.special import ndtri

    quantiles = ndtri((np.arange(n_draws) + 0.5) / n_draws).astype(np.float32)
    order = np.argsort(np.argsort((np.arange(n_draws) * _GOLDEN) % 1.0))
    return quantiles[(order + np.arange(n_draws)[:, None]) % n_draws]


def even_noise_of(noise: np.ndarray, genes: np.ndarray, lines: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Give every element an order of `even_noise` along its gene's draws sorted by sd, float32 [genes, lines, R].

    The pairs of an sd and a quantile then cover the plane evenly, whatever the sd's distribution.

    Parameters
    ----------
    noise : ndarray [R, R]
        From `even_noise`.
    genes, lines : int arrays
        Positions in the screen: which order an element has.
    sd : ndarray [genes, R]
    """
    rank = np.argsort(np.argsort(sd, axis=1, kind="stable"), axis=1, kind="stable")
    shift = (genes[:, None] * np.int64(7919) + lines * np.int64(104729)) % np.int64(1_000_003) % len(noise)
    out = np.empty((len(genes), len(lines), len(noise)), dtype=np.float32)
    for gene in range(len(genes)):
        np.take(noise[:, rank[gene]], shift[gene], axis=0, out=out[gene])
    return out


def moments_of_even(values: np.ndarray) -> dict[str, np.ndarray]:
    """Summarise R values of each element, float32 [..., R]; they are sorted in place.

    Returns
    -------
    dict of str to ndarray
        The statistics of `vihier.posterior.moments`, float32.
    """
    n_draws = values.shape[-1]
    mean = values.mean(-1, dtype=np.float32)
    values.sort(axis=-1)
    centred = values - mean[..., None]
    variance = np.einsum("...r,...r->...", centred, centred) / np.float32(n_draws)
    out = {"mean": mean, "sd": np.sqrt(variance)}
    out |= {name: _between(values, at * n_draws - 0.5) for name, at in _QUANTILES.items()}
    out["hdi_lower"], out["hdi_upper"] = _narrowest(values, HDI_PROB * n_draws)
    out["prob_negative"] = np.count_nonzero(values < 0, axis=-1).astype(np.float32) / np.float32(n_draws)
    return out


def _between(ordered: np.ndarray, place: float) -> np.ndarray:
    below = min(max(int(np.floor(place)), 0), ordered.shape[-1] - 1)
    above = min(below + 1, ordered.shape[-1] - 1)
    part = np.float32(min(max(place - below, 0.0), 1.0))
    return ordered[..., below] + part * (ordered[..., above] - ordered[..., below])


def _narrowest(ordered: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Narrowest interval between a value and the place so many steps above it."""
    n_draws = ordered.shape[-1]
    whole, part = int(width), np.float32(width - int(width))
    n_starts = n_draws - whole - 1
    if n_starts < 1:
        return ordered[..., 0], ordered[..., -1]
    upper = ordered[..., whole : whole + n_starts]
    upper = upper + part * (ordered[..., whole + 1 : whole + 1 + n_starts] - upper)
    start = (upper - ordered[..., :n_starts]).argmin(-1)[..., None]
    lower = np.take_along_axis(ordered[..., :n_starts], start, -1)[..., 0]
    return lower, np.take_along_axis(upper, start, -1)[..., 0]
