"""Whether structure is left in the residuals: by batch, by line, by replicate."""

from __future__ import annotations

import numpy as np

from vihier.diagnostics.checks.items import Item, Status, judged

SHARE_WARN, SHARE_FAIL = 0.01, 0.05
SPREAD_WARN, SPREAD_FAIL = 1.5, 2.5
FEWEST_ROWS = 30


def share_between(residual: np.ndarray, code: np.ndarray) -> float:
    """Share of the residuals' variance that is between groups, beyond what chance gives: adjusted R squared.

    Examples
    --------
    >>> round(share_between(np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]), np.array([0, 0, 0, 1, 1, 1])), 3)
    1.0
    """
    count = np.bincount(code)
    n, k = len(residual), int((count > 0).sum())
    centred = residual - residual.mean()
    total = float((centred**2).sum())
    if n <= k or k < 2 or total == 0:
        return 0.0
    mean = np.bincount(code, centred) / np.maximum(count, 1)
    within = total - float((count * mean**2).sum())
    return 1 - (within / (n - k)) / (total / (n - 1))


def structure(grouping: str, residual: np.ndarray, code: np.ndarray, labels: np.ndarray) -> Item:
    """Judge standardised residuals by group: their means, and how unequal their spreads are.

    Parameters
    ----------
    grouping
        What the groups are.
    residual
        (lfc - predicted mean) / the row's noise sd, [n]; spreads near 1 where the noise is right.
    code
        Group of each row, int [n]; -1 is none.
    labels
        Of the groups.
    """
    there = code >= 0
    residual, code = residual[there], code[there]
    share = share_between(residual, code)
    count = np.bincount(code, minlength=len(labels))
    n = np.maximum(count, 1)
    mean = np.bincount(code, residual, len(labels)) / n
    # The median absolute deviation would not see heavy tails; the sd is what the noise is meant to be.
    sd = np.sqrt(np.bincount(code, (residual - mean[code]) ** 2, len(labels)) / n)
    large = np.flatnonzero(count >= FEWEST_ROWS)
    ratio, said = 1.0, ""
    if len(large) > 1:
        low, high = large[np.argmin(sd[large])], large[np.argmax(sd[large])]
        ratio = float(sd[high] / max(sd[low], 1e-12))
        said = f" ({labels[high]} {sd[high]:.2f}, {labels[low]} {sd[low]:.2f})"
    statuses: list[Status] = [judged(share, SHARE_WARN, SHARE_FAIL), judged(ratio, SPREAD_WARN, SPREAD_FAIL)]
    worst: Status = "fail" if "fail" in statuses else "warn" if "warn" in statuses else "pass"
    sentence = (
        f"{max(share, 0):.1%} of the residual variance is between its {len(labels):,} groups, whose spreads differ by "
        f"a factor of up to {ratio:.2f}{said}"
    )
    return Item(f"residuals by {grouping}", worst, sentence, {"share_between": share, "spread_ratio": ratio})
