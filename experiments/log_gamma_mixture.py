"""Fit mixtures of seven Normals to the logarithm of a gamma variable of mean 1, for shapes on a grid. Prints JSON.

Sweeps over read counts draw which component a row's error is from (`vihier/kernels/counts.py`), and read the mixtures
from the table that `--out` writes. For each shape a, log weights, means and log sds of the standardised variable are
fitted to its log density by least squares, weighted by the density and, to the left, where it falls slowly, by a little
more: a row far from its mean is pulled with the slope there. Each fit starts from that of the next shape.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.special import digamma, gammaln, logsumexp, polygamma

COMPONENTS, POINTS = 7, 64
FIRST, LAST, MIDDLE = 0.02, 4.0, 0.5
# Where the standardised log density is held to: finer where nearly all of it is, far to the left.
PLACES = np.concatenate([np.linspace(-14, -5, 46)[:-1], np.linspace(-5, 4.2, 140)])
STEPS = np.gradient(PLACES)
LOWEST, LEFT_WEIGHT, RIGHT_WEIGHT = -45.0, 3e-3, 3e-4


def log_density(noise: float) -> np.ndarray:
    """Log density of the standardised logarithm of a gamma variable of shape noise^-2, at `PLACES`."""
    shape = noise**-2
    mean, sd = digamma(shape) - np.log(shape), np.sqrt(polygamma(1, shape))
    x = mean + sd * PLACES
    found: np.ndarray = shape * np.log(shape) - gammaln(shape) + shape * (x - np.exp(x)) + np.log(sd)
    return found


@dataclass(frozen=True)
class Mixture:
    """Log weights, means and log sds of the components, [K] each."""

    log_weight: np.ndarray
    mean: np.ndarray
    log_sd: np.ndarray

    @classmethod
    def of(cls, flat: np.ndarray) -> Mixture:
        """Read what the optimiser moves: the log weights less the last one's, the means, the log sds."""
        log_weight = np.append(flat[: COMPONENTS - 1], 0.0)
        log_weight -= logsumexp(log_weight)
        return cls(log_weight, flat[COMPONENTS - 1 : 2 * COMPONENTS - 1], flat[2 * COMPONENTS - 1 :])

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Log densities of the components times their weights, and standardised places, [P, K] each."""
        z = (PLACES[:, None] - self.mean) / np.exp(self.log_sd)
        return self.log_weight - self.log_sd - 0.5 * z**2 - 0.5 * np.log(2 * np.pi), z

    def log_density(self) -> np.ndarray:
        """Log density at `PLACES`."""
        found: np.ndarray = logsumexp(self.parts()[0], axis=1)
        return found


def fit(noise: float, start: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what the optimiser ends with, and the cost of it."""
    exact = log_density(noise)
    counts = exact > LOWEST
    left = LEFT_WEIGHT * np.exp(-0.5 * (PLACES / 5) ** 2) * (PLACES < 0)
    right = RIGHT_WEIGHT * (PLACES >= 0) * (exact > -12)
    weight = np.sqrt((np.exp(exact) + left + right) * STEPS) * counts
    exact = np.where(counts, exact, 0.0)

    def error(flat: np.ndarray) -> np.ndarray:
        return weight * (Mixture.of(flat).log_density() - exact)

    def slope(flat: np.ndarray) -> np.ndarray:
        mixture = Mixture.of(flat)
        parts, z = mixture.parts()
        share = np.exp(parts - logsumexp(parts, axis=1)[:, None])
        of_weight = (share - np.exp(mixture.log_weight))[:, : COMPONENTS - 1]
        slopes = [of_weight, share * z / np.exp(mixture.log_sd), share * (z**2 - 1)]
        return weight[:, None] * np.concatenate(slopes, 1)

    found = least_squares(error, start, slope, x_scale="jac", max_nfev=600, ftol=1e-10, xtol=1e-10, gtol=1e-12)
    return found.x, float(found.cost)


def fit_all(noises: np.ndarray) -> np.ndarray:
    """Fit every shape, from the middle out."""
    middle = int(np.abs(noises - MIDDLE).argmin())
    first = [-((np.linspace(-1, 1.5, COMPONENTS)) ** 2)[: COMPONENTS - 1], np.linspace(1, -3.5, COMPONENTS)]
    start = np.concatenate([*first, np.linspace(-0.6, 0, COMPONENTS)])
    starts = [start + 0.25 * np.random.default_rng(seed).normal(size=len(start)) for seed in range(6)]
    found = np.zeros((len(noises), len(start)))
    found[middle] = min((fit(noises[middle], each) for each in starts), key=lambda each: each[1])[0]
    for order in (range(middle + 1, len(noises)), range(middle - 1, -1, -1)):
        before = found[middle]
        for i in order:
            before, _ = fit(noises[i], before)
            found[i] = before
    return found


def judged(noise: float, flat: np.ndarray) -> dict[str, float]:
    """How far the mixture's log density is off: root mean square, and at most where the density is above 1e-5."""
    exact = log_density(noise)
    error, density = Mixture.of(flat).log_density() - exact, np.exp(exact)
    return {
        "noise": round(float(noise), 3),
        "rms_error": round(float(np.sqrt((density * error**2 * STEPS).sum())), 6),
        "largest_error": round(float(np.abs(error[density > 1e-5]).max()), 4),
    }


def main() -> None:
    """Fit, judge, print; write the table where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="table to write, .npz")
    given = parser.parse_args()
    noises = np.geomspace(FIRST, LAST, POINTS)
    found = fit_all(noises)
    if given.out is not None:
        mixtures = [Mixture.of(flat) for flat in found]
        np.savez_compressed(
            given.out,
            log_sd=np.log(noises),
            log_weight=np.array([x.log_weight for x in mixtures], dtype=np.float32),
            mean=np.array([x.mean for x in mixtures], dtype=np.float32),
            log_sd_of=np.array([x.log_sd for x in mixtures], dtype=np.float32),
        )
    print(json.dumps([judged(noise, flat) for noise, flat in zip(noises, found, strict=True)][::7], indent=2))


if __name__ == "__main__":
    main()
