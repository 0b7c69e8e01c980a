"""When to stop: a stated rule on the iterates of the shared variational parameters and on the ELBO.

Iterates of stochastic optimisation at a fixed learning rate are a chain; it is stationary when segments of it agree,
which R-hat measures, and then their average is better than any of them (Dhaka, Catalina, Andersen, Magnusson, Huggins
and Vehtari 2020, "Robust, accurate stochastic optimization for variational inference", NeurIPS 33). A parameter that
wanders slowly within a small part of its own posterior standard deviation will not pass by R-hat, which has no unit,
and is let pass by how far it moved, which has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

R_HAT_LIMIT = 1.1
SEGMENTS = 4
# In posterior standard deviations (locations), or of the logarithm (standard deviations).
MOVE_LIMIT = 0.2
# Nats a row that the ELBO may still gain between halves of a window, where its noise is smaller than that.
ELBO_LIMIT = 1e-4
STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Verdict:
    """What one window of iterates says.

    Attributes
    ----------
    settled
        Whether every shared parameter and the ELBO are stationary.
    r_hat, moved
        Largest R-hat; largest move between halves of the window, among parameters that R-hat does not pass.
    elbo_gain
        Gain in ELBO per row between the halves, nats.
    reason
        One sentence.
    """

    settled: bool
    r_hat: float
    moved: float
    elbo_gain: float
    reason: str


def r_hat(iterates: np.ndarray, n_segments: int = SEGMENTS) -> np.ndarray:
    """Potential scale reduction of consecutive segments of a window (Gelman and Rubin 1992).

    Parameters
    ----------
    iterates : ndarray [W, D]
        Parameters after each step.
    n_segments : int
        Segments that stand for chains; the earliest W modulo `n_segments` iterates are left out.

    Returns
    -------
    ndarray [D]
        1 for a parameter that does not change at all.

    Examples
    --------
    >>> still, drifting = np.tile([0.0, 1.0], 50), np.arange(100.0)
    >>> np.round(r_hat(np.stack([still, drifting], axis=1)), 1)
    array([1. , 4.5])
    """
    length = len(iterates) // n_segments
    chains = iterates[len(iterates) - n_segments * length :].reshape(n_segments, length, -1).astype(np.float64)
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    between = chains.mean(axis=1).var(axis=0, ddof=1)
    total = (length - 1) / length * within + between
    ratio = np.divide(total, within, out=np.full_like(total, np.inf), where=within > 0)
    return np.sqrt(np.where(total == 0, 1.0, ratio))


def moved(iterates: np.ndarray) -> np.ndarray:
    """Distance between the means of the two halves of a window, [W, D] -> [D].

    Examples
    --------
    >>> moved(np.array([[0.0], [0.0], [1.0], [2.0]]))
    array([1.5])
    """
    half = len(iterates) // 2
    return np.abs(iterates[-half:].mean(axis=0, dtype=np.float64) - iterates[-2 * half : -half].mean(axis=0))


def judge(iterates: np.ndarray, elbo_per_row: np.ndarray, names: list[str], move_limit: float = MOVE_LIMIT) -> Verdict:
    """Say whether a window of iterates is stationary.

    Parameters
    ----------
    iterates : ndarray [W, D]
        Shared variational parameters after each step, in units of their posterior standard deviation.
    elbo_per_row : ndarray [E]
        ELBO per row of each epoch of the window, nats.
    names : list of str
        Name of each of the D parameters.
    move_limit : float
        How far a parameter that R-hat does not pass may move between halves of the window.
    """
    ratios, moves = r_hat(iterates), moved(iterates)
    moves = np.where(ratios <= R_HAT_LIMIT, 0.0, moves)
    gain, error = _elbo_gain(elbo_per_row)
    worst = int(moves.argmax()) if len(moves) else -1
    largest = float(moves[worst]) if len(moves) else 0.0
    highest = float(ratios.max()) if len(ratios) else 1.0
    if largest > move_limit:
        reason = (
            f"{names[worst]} still moves: R-hat {ratios[worst]:.2f} over {SEGMENTS} segments of the last "
            f"{len(iterates)} steps, {largest:.2g} between its halves (limits {R_HAT_LIMIT}, {move_limit:g})"
        )
    elif gain > max(ELBO_LIMIT, STANDARD_ERRORS * error):
        reason = f"the ELBO still rises: by {gain:.2g} nats a row between halves of the last {len(iterates)} steps"
    else:
        reason = (
            f"over the last {len(iterates)} steps every shared parameter has R-hat at most {R_HAT_LIMIT} or moved at "
            f"most {move_limit:g} of its unit between halves, and the ELBO gained {gain:.1g} nats a row"
        )
        return Verdict(True, highest, largest, gain, reason)
    return Verdict(False, highest, largest, gain, reason)


def _elbo_gain(elbo_per_row: np.ndarray) -> tuple[float, float]:
    half = len(elbo_per_row) // 2
    if half < 2:
        return float("inf"), 0.0
    late, early = elbo_per_row[-half:], elbo_per_row[-2 * half : -half]
    error = np.sqrt((late.var(ddof=1) + early.var(ddof=1)) / half)
    return float(late.mean() - early.mean()), float(error)
