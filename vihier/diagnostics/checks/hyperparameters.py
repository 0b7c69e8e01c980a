"""What the data say of hyper-parameters: beside their priors, and along every direction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import eigh

from vihier.diagnostics.checks.items import Item, listed

OVERLAP_WARN = 0.8
CONFLICT = 0.001
FLAT = 0.7
N_BINS = 30


def overlap(prior: np.ndarray, posterior: np.ndarray) -> float:
    """Overlap of two densities, 0 to 1, from draws of both: in bins that hold equal shares of the prior's draws.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> round(overlap(random.normal(size=4000), random.normal(size=4000)), 1)
    1.0
    """
    edges = np.quantile(prior, np.linspace(0, 1, N_BINS + 1))
    edges[0], edges[-1] = -np.inf, np.inf
    shares = [np.histogram(draws, np.unique(edges))[0] / len(draws) for draws in (prior, posterior)]
    return float(np.minimum(*shares).sum())


def prior_overlap(
    priors: Mapping[str, np.ndarray], posteriors: Mapping[str, np.ndarray], marked: Mapping[str, str]
) -> Item:
    """Judge scalar hyper-parameters: told something by the data, and not against what the prior allows.

    Parameters
    ----------
    priors, posteriors
        Site -> draws, [M] and [N].
    marked
        Variables that the fit says are not identified.
    """
    overlaps = {name: overlap(priors[name], posteriors[name]) for name in posteriors}
    told_little = [name for name, value in overlaps.items() if value > OVERLAP_WARN and name not in marked]
    beyond = []
    for name, draws in posteriors.items():
        place = float((priors[name] < np.median(draws)).mean())
        # Scales are expected to be small beside their weak priors: only the far end speaks against one.
        one_sided = bool((priors[name] >= 0).all())
        if place > 1 - CONFLICT or (place < CONFLICT and not one_sided):
            beyond.append(name)
    figures: dict[str, float | str] = dict(overlaps)
    name = "priors of hyper-parameters"
    if beyond:
        sentence = (
            f"{listed(beyond)} lie where the prior has less than {CONFLICT:.1%}: the prior speaks against the data"
        )
        return Item(name, "fail", f"{sentence}; widen it with --prior", figures)
    if told_little:
        return Item(
            name, "warn", f"the posterior of {listed(told_little)} is nearly the prior: it rests on it", figures
        )
    most = max(overlaps.values(), default=0.0)
    sentence = f"the data outweigh the priors of all {len(overlaps)} hyper-parameters (largest overlap {most:.2f})"
    known = [each for each in overlaps if each in marked]
    return Item(name, "pass", sentence + (f"; not identified: {listed(known)}" if known else ""), figures)


def directions(
    priors: Mapping[str, np.ndarray],
    posteriors: Mapping[str, np.ndarray],
    marked: Mapping[str, str],
    effect: str | None,
) -> Item:
    """Look for combinations of scalar locations of which the data say nothing: as wide as a priori.

    They are the generalised eigenvectors of the posterior covariance against the prior's with values near 1.

    Parameters
    ----------
    priors, posteriors
        Site -> draws of scalar locations, [M] and [N].
    marked
        Variables that the fit says are not identified.
    effect
        Why `effect` is not identified, where the fit says so.
    """
    name = "identification"
    if effect is not None:
        return Item(name, "fail", f"effect itself is not identified: {effect}")
    names = list(posteriors)
    if len(names) < 2:
        return Item(name, "pass", "there are no two locations that the data could confuse")
    covariances = [np.cov(np.stack([draws[each] for each in names])) for draws in (posteriors, priors)]
    values, vectors = eigh(covariances[0], covariances[1])
    flat = np.flatnonzero(values > FLAT)
    involved = sorted({names[i] for column in flat for i in np.flatnonzero(_loud(vectors[:, column]))})
    figures: dict[str, float | str] = {"directions": len(names), "flat": len(flat)}
    if not len(flat):
        return Item(name, "pass", f"the data inform every combination of {listed(names)}", figures)
    unmarked = [each for each in involved if each not in marked]
    sentence = (
        f"{len(flat)} of {len(names)} combinations of {listed(names)} are as wide as a priori: of {listed(involved)} "
        "only sums are known, so read effect and the deviations (..._dev)"
    )
    return Item(name, "warn" if unmarked else "pass", sentence + ("" if unmarked else "; the file says so"), figures)


def _loud(vector: np.ndarray) -> np.ndarray:
    return np.abs(vector) > 0.2 * np.abs(vector).max()
