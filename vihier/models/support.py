"""The values that a distribution gives, such that equal ranges compare equal."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints


def support_of(distribution: Any) -> Any:
    """Return the support of a distribution, every positive one as `constraints.positive`.

    Torch calls the support of a HalfNormal x >= 0 and that of a LogNormal x > 0. To a density they are the same, and
    the open one has the plain logarithm as its map.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> support_of(dist.HalfNormal(1.0)) is support_of(dist.LogNormal(0.0, 1.0))
    True
    """
    support = distribution.support
    if isinstance(support, constraints.greater_than_eq | constraints.greater_than):
        bound = torch.as_tensor(support.lower_bound)
        if bound.ndim == 0 and float(bound) == 0:
            return constraints.positive
    return support
