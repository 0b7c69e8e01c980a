"""Vector sites of genes as locations of their own, each with its marginal sd, and what correlates them.

To what reads a program, a MultivariateNormal site is its components, and an LKJCholesky site is held at one value: the
components' means and sds do not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from vihier.kernels.correlated import factor_of


def is_vector(node: Mapping[str, Any]) -> bool:
    """Whether a node of a trace is a vector site that can be taken apart."""
    return isinstance(node["fn"], dist.MultivariateNormal) and not node["is_observed"]


def is_factor(node: Mapping[str, Any]) -> bool:
    """Whether a node of a trace is the factor of a correlation matrix."""
    return isinstance(node["fn"], dist.LKJCholesky) and not node["is_observed"]


def component_distributions(name: str, fn: Any) -> dict[str, dist.Normal]:
    """Return the marginal distribution of each component of a vector site, by name."""
    shape, sds = fn.batch_shape, fn.scale_tril.square().sum(-1).sqrt()
    return {
        f"{name}[{i}]": dist.Normal(fn.loc[..., i].expand(shape), sds[..., i].expand(shape), validate_args=False)
        for i in range(fn.event_shape[0])
    }


def random_factor(size: int, generator: torch.Generator) -> Tensor:
    """Draw the factor of a correlation matrix of so many rows; float64."""
    return factor_of(torch.randn(size * (size - 1) // 2, generator=generator, dtype=torch.float64))
