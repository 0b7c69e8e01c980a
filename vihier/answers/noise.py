"""How noisy replicates and lines are, where a model has a noise scale for each of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.answers.effect_summary import LOWER, UPPER
from vihier.posterior.moments import moments_of_draws
from vihier.posterior.reader import Posterior

# Sites that a model may have for each line, and for each replicate.
OF_LINES, OF_REPLICATES = ("sigma", "sigma_line"), "sigma_replicate"


def has_replicate_noise(post: Posterior) -> bool:
    """Return whether the model has a noise scale for each replicate, and so `replicate_table` a table."""
    return post.variables.get(OF_REPLICATES) == ("replicate",)


def replicate_table(post: Posterior) -> pd.DataFrame | None:
    """Return a table of the noise of replicates; None where the model has no noise scale for each.

    Returns
    -------
    DataFrame
        `replicate`, `depmap_id`, and `sigma`, the scale of its rows' noise (log2 fold change; of Student-t rows their
        scale), with `sd` and bounds of its 0.89 interval.
    """
    if not has_replicate_noise(post):
        return None
    moments = post.moments(OF_REPLICATES)
    labels = post.labels("replicate")
    line = line_of_replicates(labels, post.labels("depmap_id"))
    return pd.DataFrame(
        {
            "replicate": labels,
            "depmap_id": np.concatenate([post.labels("depmap_id"), [None]])[line],
            "sigma": moments["mean"].values,
            "sd": moments["sd"].values,
            LOWER: moments["hdi_lower"].values,
            UPPER: moments["hdi_upper"].values,
        }
    )


def line_noise(post: Posterior) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and sd [C] of the noise scale of each line; None where all lines have one.

    Of a model with a scale for each replicate, the root mean square of the line's, draw by draw; NaN without any.
    """
    name = next((name for name in OF_LINES if post.variables.get(name) == ("depmap_id",)), None)
    if name is not None:
        moments = post.moments(name)
        return moments["mean"].values, moments["sd"].values
    if not has_replicate_noise(post):
        return None
    draws = post.draws(OF_REPLICATES).values.astype(np.float64)
    lines = post.labels("depmap_id")
    line = line_of_replicates(post.labels("replicate"), lines)
    share = np.equal.outer(line, np.arange(len(lines))).astype(np.float64)
    share /= np.maximum(share.sum(axis=0), 1)
    square = draws**2 @ share
    moments_of_lines = moments_of_draws(np.where(square > 0, np.sqrt(square), np.nan))
    return moments_of_lines["mean"], moments_of_lines["sd"]


def line_of_replicates(replicates: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return the position of the line of each replicate, int64 [R]; -1 where its label begins with no line's.

    A replicate is labelled ``LINE|REPLICATE`` or ``LINE|REPLICATE|SCREEN``; of lines whose labels begin alike, the
    longest is its own.

    Examples
    --------
    >>> line_of_replicates(np.array(["A|1", "B|x|1|screen", "C|1"]), np.array(["A", "B", "B|x"])).tolist()
    [0, 2, -1]
    """
    place = {line: i for i, line in enumerate(lines.tolist())}
    found = np.full(len(replicates), -1, dtype=np.int64)
    for i, label in enumerate(replicates.tolist()):
        line = label
        while "|" in line and found[i] < 0:
            line = line.rpartition("|")[0]
            found[i] = place.get(line, -1)
    return found
