"""A fit's effects and deviations beside a reference posterior's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

import vihier

LOCATIONS = ("effect", "effect_dev", "gamma_dev", "alpha_dev", "beta_dev")

Reference = Mapping[str, np.ndarray]


def differences(post: vihier.Posterior, reference: Reference, name: str) -> tuple[np.ndarray, np.ndarray]:
    """How far means are off, in sds of the reference, and ratios of sds."""
    draws = post.draws(name).to_numpy()[0]
    z = (draws.mean(0) - reference[f"{name}.mean"]) / reference[f"{name}.sd"]
    return z, draws.std(0) / reference[f"{name}.sd"]


def assert_agrees(post: vihier.Posterior, reference: Reference, scales: Sequence[str], off: float = 0.3) -> None:
    """Hold locations to 0.1 sds in the mean square, and to 15 % of their sds; scales to so many sds each."""
    for name in LOCATIONS:
        z, ratio = differences(post, reference, name)
        assert math.sqrt((z**2).mean()) < 0.1, name
        assert ratio.min() > 0.85, name
        assert ratio.max() < 1.15, name
    for name in scales:
        assert np.abs(differences(post, reference, name)[0]).max() < off, name
