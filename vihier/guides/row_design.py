"""What a row's mean has of covariates: how much it moves with each location, worked out by running the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vihier.guides.probe import Prober
from vihier.inference.device import run_on
from vihier.models.batch import Batch

Parents = Mapping[str, Sequence[tuple[str, float | None]]]
"""Site -> the locations in its mean, each with its coefficient; None where that is of the rows."""

Reach = float | Tensor


@dataclass(frozen=True)
class ProgramDesign:
    """The design of a program's rows; see `vihier.guides.mixed_model.RowDesign`.

    Attributes
    ----------
    model : callable
        The program.
    observed : str
        The site of the rows.
    parents : mapping
        Of every location and of `observed`, parents before children.
    offsets : mapping
        The constant in each location's mean.
    scales : tuple of str
        The positive sites.
    leads : tuple of str
        The locations whose reach is a design.
    """

    model: Callable[[Batch], Any]
    observed: str
    parents: Parents
    offsets: Mapping[str, float]
    scales: tuple[str, ...]
    leads: tuple[str, ...]

    def of(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return how much rows move with each design, [n], and their means with every deviation zero, [n]."""
        device, dtype = batch.gene.device, torch.float64
        with run_on(torch.device("cpu"), dtype), torch.no_grad():
            reach, mean = self.probe(Prober(self.model, batch, made_up=False))
        designs = {}
        for name in self.leads:
            found = reach[name]
            designs[name] = found.to(device) if isinstance(found, Tensor) else mean.new_full((), found).expand_as(mean)
        return designs, mean.to(device)

    def probe(self, prober: Prober) -> tuple[dict[str, Reach], Tensor]:
        """Return how much rows move with each location's own deviation, over all paths, and their means without any."""
        zero = {name: torch.zeros_like(prober.random(name)) for name in self.offsets}
        zero |= {name: torch.ones_like(prober.random(name)) for name in self.scales}
        mean = prober.run(zero)[self.observed]["loc"]
        direct: dict[str, Reach] = {}
        for name, coefficient in self.parents[self.observed]:
            if coefficient is None:
                moved = prober.run(zero | {name: torch.ones_like(zero[name])})[self.observed]["loc"]
                direct[name] = moved - mean
            else:
                direct[name] = coefficient
        reach = reaches(self.parents, self.observed, direct)
        for name, offset in self.offsets.items():
            mean = mean + reach[name] * offset
        return reach, mean


def reaches(parents: Parents, observed: str, direct: Mapping[str, Reach]) -> dict[str, Reach]:
    """How much a row's mean moves with each location's own deviation, over all paths, from the direct ones."""
    total: dict[str, Reach] = dict.fromkeys(parents, 0.0)
    total.update(direct)
    for child in reversed([name for name in parents if name != observed]):
        for site, coefficient in parents[child]:
            assert coefficient is not None
            total[site] = total[site] + coefficient * total[child]
    total.pop(observed, None)
    return total
