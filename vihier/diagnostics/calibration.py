"""Is a posterior calibrated? Ranks of the truth among draws, and how often intervals cover, over many replicates.

Where truth and data come from the joint distribution that a fit assumes, the rank of the truth among posterior draws is
uniform and a central interval covers as often as it says (Talts et al. 2018, arXiv 1804.06788).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import legendre
from scipy.stats import binomtest, chi2, norm, t

LOCATIONS = ("effect", "effect_dev", "gamma_dev", "alpha_dev", "beta_dev")
LEVELS = (0.5, 0.9)
SLACK = 0.02
"""Coverage this near to nominal is good enough, however small the Monte Carlo error."""
BAND, FAMILY = 0.99, 0.01
COMPONENTS = 4


def ranks(draws: np.ndarray, truth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return where the truth lies among draws, as a probability: exactly uniform for draws of the same distribution.

    Parameters
    ----------
    draws, truth
        Shape [D, n] and [n].
    random
        Spreads each of the D + 1 possible ranks over its share of (0, 1).
    """
    below = (draws < truth).sum(axis=0)
    return (below + random.random(truth.shape)) / (len(draws) + 1)


def shrunk(draws: np.ndarray, factor: float) -> np.ndarray:
    """Return draws [D, n] pulled towards their mean, so that every sd is multiplied by the factor."""
    mean = draws.mean(axis=0)
    return mean + factor * (draws - mean)


def rank_statistics(draws: np.ndarray, truth: np.ndarray, factor: float, key: Sequence[int]) -> list[float]:
    """Rank one element, picked at random, and count how often intervals cover.

    Draws [D, n] of the truth [n] have their sds multiplied by the factor first; the key seeds the pick. The list holds
    the picked element's rank in (0, 1), the shares of elements in the central intervals of `LEVELS`, and the shares
    below and above the wider one.
    """
    random = np.random.default_rng(list(key))
    picked = random.integers(len(truth))
    rank = ranks(shrunk(draws, factor), truth, random)
    inside = [float((np.abs(rank - 0.5) <= level / 2).mean()) for level in LEVELS]
    edge = (1 - LEVELS[-1]) / 2
    return [float(rank[picked]), *inside, float((rank < edge).mean()), float((rank > 1 - edge).mean())]


def uniformity(rank: np.ndarray) -> float:
    """P value of uniform ranks: Neyman's smooth test (1937), the chi-square of four Legendre components.

    The first component is a bias, the second an sd that is wrong: together they see what a histogram of ranks shows,
    with more power than its bins.
    """
    values = legendre.legvander(2 * rank - 1, COMPONENTS)[:, 1:] * np.sqrt(2 * np.arange(1, COMPONENTS + 1) + 1)
    return float(chi2.sf((values.sum(axis=0) ** 2).sum() / len(rank), COMPONENTS))


def coverage(share: np.ndarray, level: float) -> dict[str, Any]:
    """Judge the coverage of one interval, the screen being the unit.

    `share` is the share of a variable's elements covered in each screen, shape [n]; `level` the nominal probability.
    """
    n = len(share)
    off = float(share.mean()) - level
    if np.isin(share, (0.0, 1.0)).all():
        error, wide = np.sqrt(level * (1 - level) / n), norm.ppf((1 + BAND) / 2)
        p = binomtest(int(share.sum()), n, level).pvalue
    else:
        # One more screen, of all or nothing: of few, most of them covered whole, the shares alone vary too little.
        variance = (n * share.var() + level * (1 - level)) / n
        error, wide = np.sqrt(variance / n), t.ppf((1 + BAND) / 2, n - 1)
        p = 2 * t.sf(abs(off) / error, n - 1)
    return {
        "covered": round(level + off, 4),
        "band_99": round(float(wide * error), 4),
        "z": round(float(off / error), 2),
        "p": float(f"{p:.3g}"),
        "ok": bool(abs(off) <= max(SLACK, wide * error)),
    }


def ranked(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ranks of the screens that were fitted."""
    return [record["ranks"] for record in records if "ranks" in record]


def judge(records: Iterable[dict[str, Any]], factor: float) -> dict[str, Any]:
    """Judge one model's screens at one shrinkage.

    Coverage is held to nominal for the locations named in `LOCATIONS` and for every scale; rank uniformity for every
    identified variable; each at `FAMILY` over them all, so that an exact posterior seldom fails however many variables
    there are.
    """
    fitted = ranked(records)
    variables: dict[str, dict[str, Any]] = {}
    for name in fitted[0]:
        table = np.array([each[name][str(factor)] for each in fitted])
        entry: dict[str, Any] = {f"{level:.0%}": coverage(table[:, 1 + i], level) for i, level in enumerate(LEVELS)}
        entry |= {"below": round(float(table[:, 3].mean()), 4), "above": round(float(table[:, 4].mean()), 4)}
        entry["mean_rank"] = round(float(table[:, 0].mean()), 4)
        entry["uniform_p"] = float(f"{uniformity(table[:, 0]):.3g}")
        variables[name] = entry
    judged = [name for name in variables if name in LOCATIONS or name.startswith("sigma")]
    checks = len(judged) * len(LEVELS)
    off = [
        f"{name} {level:.0%}"
        for name in judged
        for level in LEVELS
        if abs(variables[name][f"{level:.0%}"]["covered"] - level) > SLACK
        and variables[name][f"{level:.0%}"]["p"] * checks < FAMILY
    ]
    uneven = [name for name, entry in variables.items() if entry["uniform_p"] * len(variables) < FAMILY]
    return {
        "coverage_off": off,
        "coverage_checks": checks,
        "ranks_not_uniform": uneven,
        "calibrated": not off and not uneven,
        "variables": variables,
    }
