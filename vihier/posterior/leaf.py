"""The gene x line table given everything else: diagonal Normal, its noise in an order that knows its mean over lines.

A row has mean `coefficient x gamma[g,c] + rest`, and gamma a Normal prior, so that given all else each gamma[g,c] is
Normal with closed-form mean and sd: `leaf_posterior`. Its draws are the mean plus noise with that sd, independent over
lines. `leaf_noise` makes the noise top-down: the sum over all lines first, then those of the first and second half
given that, and so on (Levy's construction of Brownian motion). The noise of one line costs log2(lines) numbers, and its
sum over a gene's lines is known without making it, so that draws of a gene's mean effect can be stored beside draws of
its effects that are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vihier.posterior.counter_noise import normals


def leaf_posterior(
    total: np.ndarray,
    count: np.ndarray,
    rest: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray],
    noise: np.ndarray,
    coefficient: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of the gene x line table given all else.

    Parameters
    ----------
    total, count : ndarray [genes, lines, 1]
        Sum of lfc and number of rows.
    rest : ndarray [genes, lines, draws]
        Sum over the rows of all else in their mean.
    prior : tuple of ndarray
        Mean and sd of the prior, broadcastable.
    noise : ndarray [draws]
        Sd of the rows.
    coefficient : float
        Of the table in a row's mean.

    Returns
    -------
    mean, sd : ndarray
        float32; the sd broadcastable to [genes, lines, draws].
    """
    mean, sd = prior
    gain = np.float32(coefficient) * sd * sd / (noise * noise)
    shrink = 1 / (1 + np.float32(coefficient) * gain * count)
    left = total - rest
    left -= (np.float32(coefficient) * count) * mean
    left *= gain * shrink
    left += mean
    return left, sd * np.sqrt(shrink)


def leaf_variances(
    levels: Sequence[int], prior_sd: np.ndarray, noise: np.ndarray, coefficient: float
) -> list[np.ndarray]:
    """Variances of the table's elements with so many rows, one array for each number of rows."""
    gain = np.float32(coefficient) ** 2 * prior_sd * prior_sd / (noise * noise)
    return [prior_sd * prior_sd / (1 + gain * np.float32(level)) for level in levels]


def level_counts(count: np.ndarray, levels: Sequence[int], lines: np.ndarray) -> list[np.ndarray]:
    """Return how many of the first c lines, of those in a mask, have so many rows: int32 [genes, lines + 1] each."""
    found = []
    for level in levels:
        summed = np.zeros((count.shape[0], count.shape[1] + 1), dtype=np.int32)
        np.cumsum((count == level) & lines, axis=1, out=summed[:, 1:])
        found.append(summed)
    return found


def leaf_noise(
    key: tuple[int, int],
    genes: np.ndarray,
    lines: np.ndarray,
    counts: Sequence[np.ndarray],
    variances: Sequence[np.ndarray],
) -> np.ndarray:
    """Noise of some lines' elements of the table, float32 [genes, len(lines), draws].

    Parameters
    ----------
    key : tuple of int
        From `vihier.posterior.counter_noise.key_of`.
    genes, lines : int arrays
        Positions in the screen.
    counts, variances : sequence of ndarray
        From `level_counts` and `leaf_variances`; the variances are [genes, 1, draws].
    """
    n_lines, n_draws = counts[0].shape[1] - 1, variances[0].shape[-1]
    depth = max(0, (n_lines - 1).bit_length())

    def variance(nodes: np.ndarray, at: int) -> np.ndarray:
        first = np.minimum(nodes << (depth - at), n_lines)
        last = np.minimum((nodes + 1) << (depth - at), n_lines)
        total = np.zeros((len(genes), len(nodes), n_draws), dtype=np.float32)
        for summed, each in zip(counts, variances, strict=True):
            number = (summed[:, last] - summed[:, first]).astype(np.float32)
            if number.any():
                total += number[..., None] * each
        return total

    nodes = np.zeros(1, dtype=np.int64)
    sums = np.sqrt(variance(nodes, 0)) * normals(key, genes, nodes, n_draws)
    for at in range(depth):
        # Widths are counted anew at every level: a difference of two would leave a node without lines some.
        width, left = variance(nodes, at), variance(2 * nodes, at + 1)
        share = np.divide(left, width, out=np.zeros_like(left), where=width > 0)
        step = np.sqrt(left * np.maximum(1 - share, 0)) * normals(key, genes, (1 << at) + nodes, n_draws)
        of_left = share * sums + step
        children = np.unique(lines >> (depth - at - 1))
        place = np.searchsorted(nodes, children >> 1)
        sums = np.where((children & 1)[:, None] == 0, of_left[:, place], sums[:, place] - of_left[:, place])
        nodes = children
    order = np.searchsorted(nodes, lines)
    return sums if np.array_equal(order, np.arange(len(lines))) else sums[:, order]


def noise_of_sum(
    key: tuple[int, int], genes: np.ndarray, counts: Sequence[np.ndarray], variances: Sequence[np.ndarray]
) -> np.ndarray:
    """Sum of `leaf_noise` over all lines, float32 [genes, draws], without making it."""
    total = sum(c[:, -1:, None].astype(np.float32) * v for c, v in zip(counts, variances, strict=True))
    total = np.asarray(total, dtype=np.float32)
    return (np.sqrt(total) * normals(key, genes, np.zeros(1), total.shape[-1]))[:, 0]
