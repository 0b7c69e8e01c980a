"""One gradient step on one batch, for the mean-field guide and for guides of users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from vihier.guides.mean_field import SHARED, MeanField
from vihier.inference.sites import LOCAL_PLATES
from vihier.models.batch import Batch

# The shared sites of a screen in many blocks answer to gradients that are up to an epoch old; their steps are
# shortened so that in one epoch they do not go further than in this many steps.
STEPS_AN_EPOCH = 10
MOST_WATCHED = 2_000
# For what the genes share. One absurd gradient (a draw far out in the tail of a wide scale) moves a parameter by 5
# learning rates, and by 32 with Adam's own 0.999; the sd of a scale then fell to a hundredth within a few steps and
# never came back. The tables of genes and sgRNAs, a row of which has a gradient once an epoch, do better with 0.999.
BETAS = (0.9, 0.95)


class Optimiser(Protocol):
    """Trains a guide, and can average what it went through."""

    names: list[str]
    """Name of each parameter that `watched` returns."""

    def step(self, batch: Batch, number: int, rate: float) -> float:
        """Take one step on batch `number` at a learning rate; return the ELBO per row (nats)."""

    def watched(self) -> np.ndarray:
        """Parameters whose convergence is judged, [D]."""

    def start_average(self) -> None:
        """Forget what was averaged so far."""

    def collect(self, batch: Batch) -> None:
        """Count the parameters that belong to this batch into the average."""

    def use_average(self) -> None:
        """Put the averages in the place of the parameters."""


class MeanFieldOptimiser:
    """Adam for the shared sites, sparse Adam for the tables.

    The gradient of the shared sites is the mean of every block's latest contribution, the visited block's replaced
    (stochastic average gradient, Schmidt, Le Roux and Bach 2017): genes differ so much that the gradient of one block
    alone, however unbiased, would be mostly noise.

    Parameters
    ----------
    model
        The program.
    guide
        Its guide.
    n_rows
        Rows of the screen; the ELBO is counted per row.
    n_batches
        Batches in an epoch.
    """

    def __init__(self, model: Callable[[Batch], Any], guide: MeanField, n_rows: int, n_batches: int) -> None:
        self.guide = guide
        self._model = poutine.scale(model, 1.0 / n_rows)
        self._guide = poutine.scale(guide, 1.0 / n_rows)
        self._elbo = Trace_ELBO()
        self._shared: torch.Tensor = getattr(guide, SHARED)
        tables = [getattr(guide, plate) for plate in LOCAL_PLATES if guide.columns[plate]]
        self._dense = torch.optim.Adam([self._shared], betas=BETAS) if self._shared.numel() else None
        adam = torch.optim.SparseAdam if guide.sparse else torch.optim.Adam
        self._local = adam(tables) if tables else None
        self._contributions: dict[int, torch.Tensor] = {}
        self._sum = torch.zeros_like(self._shared, dtype=torch.float64)
        self._n_batches = n_batches
        self._averages: dict[str, torch.Tensor] = {}
        self._visits: dict[str, torch.Tensor] = {}
        self.names = _names_of(guide)

    def step(self, batch: Batch, number: int, rate: float) -> float:
        """Take one step on batch `number`."""
        self.guide.zero_grad(set_to_none=True)
        loss = self._elbo.differentiable_loss(self._model, self._guide, batch)
        loss.backward()
        if self._dense is not None and self._shared.grad is not None:
            fresh = self._shared.grad.double()
            self._sum += fresh - self._contributions.get(number, 0.0)
            self._contributions[number] = fresh
            self._shared.grad.copy_(self._sum / len(self._contributions))
            _set_rate(self._dense, rate * min(1.0, STEPS_AN_EPOCH / self._n_batches))
            self._dense.step()
        if self._local is not None:
            _set_rate(self._local, rate)
            self._local.step()
        return -float(loss.detach())

    def watched(self) -> np.ndarray:
        """Return what is learned of the shared sites, in starting standard deviations, [D]."""
        return self._shared.detach().cpu().numpy().ravel().copy()

    def start_average(self) -> None:
        """Forget what was averaged so far."""
        for name, value in self.guide.named_parameters():
            self._averages[name] = torch.zeros_like(value, requires_grad=False)
            self._visits[name] = value.new_zeros(len(value), 1)

    def collect(self, batch: Batch) -> None:
        """Add the rows that this batch touched to the average."""
        with torch.no_grad():
            for name, value in self.guide.named_parameters():
                rows = self.guide.rows_of(name, batch)
                self._averages[name][rows] += value[rows]
                self._visits[name][rows] += 1

    def use_average(self) -> None:
        """Put the averages in the place of the parameters, where there is one."""
        with torch.no_grad():
            for name, average in self._averages.items():
                value, visits = getattr(self.guide, name), self._visits[name]
                value.copy_(torch.where(visits > 0, average / visits.clamp(min=1), value))


class UserOptimiser:
    """Adam for whatever parameters a user's guide turns out to have.

    Parameters
    ----------
    model, guide
        Pyro programs of a batch.
    n_rows
        Rows of the screen; the ELBO is counted per row.
    """

    def __init__(self, model: Callable[[Batch], Any], guide: Callable[[Batch], Any], n_rows: int) -> None:
        self._model = poutine.scale(model, 1.0 / n_rows)
        self._guide = poutine.scale(guide, 1.0 / n_rows)
        self._elbo = Trace_ELBO()
        self._parameters: dict[str, torch.Tensor] = {}
        self._adam: torch.optim.Adam | None = None
        self._averages: dict[str, torch.Tensor] = {}
        self._visits = 0
        self._places = torch.zeros(0, dtype=torch.int64)
        self.names: list[str] = []

    def step(self, batch: Batch, number: int, rate: float) -> float:
        """Take one step on a batch."""
        with poutine.trace(param_only=True) as capture:
            loss = self._elbo.differentiable_loss(self._model, self._guide, batch)
        sites = {name: site["value"] for name, site in capture.trace.nodes.items()}
        self._adopt({name: value.unconstrained() for name, value in sites.items() if value is not None})
        if self._adam is None:
            return -float(loss.detach())
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        _set_rate(self._adam, rate)
        self._adam.step()
        return -float(loss.detach())

    def _adopt(self, found: dict[str, torch.Tensor]) -> None:
        fresh = {name: value for name, value in found.items() if name not in self._parameters}
        for name, value in fresh.items():
            self._parameters[name] = value
            if self._adam is None:
                self._adam = torch.optim.Adam([value], betas=BETAS)
            else:
                self._adam.add_param_group({"params": [value]})
        if fresh:
            names = [f"{name}[{i}]" for name, value in self._parameters.items() for i in range(value.numel())]
            self._places = torch.linspace(0, len(names) - 1, min(len(names), MOST_WATCHED)).long()
            self.names = [names[i] for i in self._places.tolist()]

    def watched(self) -> np.ndarray:
        """Return the parameters, unconstrained, [D]: all, or as many as `MOST_WATCHED`, evenly spaced."""
        if not self._parameters:
            return np.zeros(0)
        values = torch.cat([value.detach().reshape(-1) for value in self._parameters.values()])
        return values[self._places.to(values.device)].cpu().numpy()

    def start_average(self) -> None:
        """Forget what was averaged so far."""
        self._averages, self._visits = {}, 0

    def collect(self, batch: Batch) -> None:
        """Count all parameters into the average."""
        self._visits += 1
        for name, value in self._parameters.items():
            kept = self._averages.setdefault(name, torch.zeros_like(value, requires_grad=False))
            kept += (value.detach() - kept) / self._visits

    def use_average(self) -> None:
        """Put the averages in the place of the parameters."""
        with torch.no_grad():
            for name, average in self._averages.items():
                self._parameters[name].copy_(average)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _names_of(guide: MeanField) -> list[str]:
    names = []
    for kind in ("location of {}", "sd of {}"):
        for columns in guide.columns[SHARED]:
            size = columns.last - columns.first
            name = kind.format(columns.site.name)
            names += [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]
    return names
