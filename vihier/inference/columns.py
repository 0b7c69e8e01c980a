"""Which optional columns of a screen a program reads, found by watching it run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from vihier.errors import VihierError
from vihier.models.batch import Batch
from vihier.models.trace import trace_program


class _WatchedCovariates(Mapping[str, torch.Tensor]):
    def __init__(self, covariates: Mapping[str, torch.Tensor], seen: set[str]) -> None:
        self._covariates, self._seen = covariates, seen

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._covariates:
            there = ", ".join(sorted(self._covariates)) or "none"
            raise VihierError(f"column {name!r}: the model reads it and the screen does not have it (it has {there})")
        self._seen.add(name)
        return self._covariates[name]

    def __contains__(self, name: object) -> bool:
        return name in self._covariates

    def __iter__(self) -> Iterator[str]:
        return iter(self._covariates)

    def __len__(self) -> int:
        return len(self._covariates)


@dataclass(frozen=True)
class _WatchedBatch(Batch):
    seen: set[str] = field(default_factory=set)

    @property
    def n_lineages(self) -> int:
        self.seen.add("lineage")
        return super().n_lineages


def columns_read(model: Callable[[Batch], Any], batch: Batch) -> tuple[str, ...]:
    """Return the columns beyond the required ones that a program reads, sorted.

    Parameters
    ----------
    model
        The program.
    batch
        Any batch of the screen.

    Raises
    ------
    VihierError
        If it reads one that the screen does not have, naming it.
    """
    seen: set[str] = set()
    given = {entry.name: getattr(batch, entry.name) for entry in fields(Batch)}
    given["covariates"] = _WatchedCovariates(batch.covariates, seen)
    trace_program(model, _WatchedBatch(**given, seen=seen))
    return tuple(sorted(seen))
