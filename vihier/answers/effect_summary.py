"""Posterior summaries of what effects add up to (a mean over lines, a difference), by draws and gene block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vihier.answers.control_scaling import ControlScaling
from vihier.answers.effect_draws import effect_blocks
from vihier.answers.false_sign import local_false_sign_rate
from vihier.posterior.moments import moments_of_draws
from vihier.posterior.reader import Posterior
from vihier.posterior.summary import hdi_columns

# Of the 0.89 interval, the one of the posterior file.
LOWER, UPPER = hdi_columns(0.89)
_STATISTICS = ("mean", "sd", "hdi_lower", "hdi_upper", "prob_negative")

Combination = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class EffectSummary:
    """Statistics of G genes' K quantities, each float32 [G, K].

    Attributes
    ----------
    mean, sd, hdi_lower, hdi_upper, prob_negative
        As in the posterior file; the interval holds 0.89.
    lfsr
        Local false sign rate.
    """

    mean: np.ndarray
    sd: np.ndarray
    hdi_lower: np.ndarray
    hdi_upper: np.ndarray
    prob_negative: np.ndarray
    lfsr: np.ndarray

    def columns(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """Return table columns of the elements at these places of the flattened [G, K]."""
        named = {"sd": self.sd, LOWER: self.hdi_lower, UPPER: self.hdi_upper, "prob_negative": self.prob_negative}
        return {name: values.ravel()[places] for name, values in {**named, "lfsr": self.lfsr}.items()}


def summarise_effects(
    post: Posterior,
    combine: Combination,
    n_quantities: int,
    *,
    scaling: ControlScaling | None = None,
    beyond: float = 0.0,
    lines: Sequence[str] | None = None,
) -> EffectSummary:
    """Summarise quantities that are a function of a gene's effects in all lines, draw by draw.

    Parameters
    ----------
    post
        A fit with `effect`.
    combine
        Draws of effects [N, B, C] to draws of the quantities [N, B, K].
    n_quantities
        K.
    scaling
        Brings effects to their line's unit first; of the lines wanted.
    beyond
        See `local_false_sign_rate`.
    lines
        The lines that `combine` gets, in this order; None for all.
    """
    shape = (len(post.labels("hugo_symbol")), n_quantities)
    found = {name: np.empty(shape, dtype=np.float32) for name in (*_STATISTICS, "lfsr")}
    for part, draws in effect_blocks(post, lines):
        values = combine(draws if scaling is None else scaling.of_effects(draws))
        moments = moments_of_draws(values[None])
        for name in _STATISTICS:
            found[name][part] = moments[name]
        found["lfsr"][part] = local_false_sign_rate(values, beyond)
    return EffectSummary(**found)


def strongest_first(mean: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the order that puts negative effects before positive ones, and of each the strongest first.

    Strong is what is far from 0 and surely so: effects are ranked by the bound of their interval that is nearer to 0.

    Parameters
    ----------
    mean, lower, upper
        [n], posterior means and the bounds of their intervals.

    Returns
    -------
    numpy.ndarray
        Places, int [n].

    Examples
    --------
    >>> mean = np.array([1.0, -2.0, -3.0, 2.0])
    >>> strongest_first(mean, mean - [0.1, 0.1, 4.0, 0.1], mean + [0.1, 0.1, 4.0, 0.1]).tolist()
    [1, 2, 3, 0]
    """
    return np.lexsort((np.where(mean < 0, upper, -lower), mean >= 0))
