"""A program run with some of its sites known: the others at the centre of their prior given those before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import biject_to

from vihier.models.batch import Batch


class Substitute(Messenger):
    """Give latent sites known values; others, and NaN, get the centre of their prior given those before them."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or msg["done"] or not hasattr(msg["fn"], "support"):
            return
        value = self.values.get(msg["name"])
        if value is None:
            value = centre_of(msg["fn"])
        elif torch.isnan(value).any():
            value = torch.where(torch.isnan(value), centre_of(msg["fn"]), value)
        msg["value"], msg["done"] = value, True


def centre_of(distribution: Any) -> torch.Tensor:
    """Return a typical value of a prior: its mean, or where it has none that is finite, one moderate value."""
    shape = distribution.shape()
    try:
        mean = distribution.mean
    except NotImplementedError:  # correlation matrices, for one
        mean = None
    if mean is not None and torch.isfinite(mean).all() and torch.as_tensor(distribution.support.check(mean)).all():
        return mean.expand(shape).clone()
    transform = biject_to(distribution.support)
    return transform(torch.zeros(transform.inverse_shape(shape))).expand(shape).clone()


def values_of(
    model: Callable[[Batch], Any], batch: Batch, known: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Run a program and return every value: those known, the rest at the centre of their prior, no gradients."""
    with Substitute(known):
        nodes = pyro.poutine.trace(model).get_trace(batch).nodes
    values = {name: node.get("value") for name, node in nodes.items()}
    return {name: value.detach() for name, value in values.items() if isinstance(value, torch.Tensor)}
