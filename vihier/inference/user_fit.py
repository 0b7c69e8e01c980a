"""Fit a user's own Pyro guide by SVI, and draw from it by running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.autoguide import AutoGuide

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks, RowParts
from vihier.inference.device import run_on, seed_of, seeded
from vihier.inference.draws import draw_by_draw
from vihier.inference.earlier_fit import EarlierFit
from vihier.inference.fitted import TrainedBySVI
from vihier.inference.optimiser import UserOptimiser
from vihier.inference.progress import Progress
from vihier.inference.sites import Sites
from vihier.inference.svi import Outcome, Schedule, run_svi
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.screen import Screen

# Parameters of a user's guide are in units of their own (log2 fold changes, logarithms of scales) and may start
# anywhere, so phases are long and the tolerance is in those units.
SCHEDULE = Schedule(rates=(0.05, 0.02, 0.006, 0.002), window=200, max_windows=8, move_limit=0.05)


@dataclass
class UserFit(TrainedBySVI):
    """A user's guide after training; see `vihier.inference.fitted.Fitted`."""

    guide: Callable[[Batch], Any]
    sites: Sites
    outcome: Outcome
    seed: int
    device: torch.device
    dtype: torch.dtype
    parameters: Any
    first: Batch
    whole: bool
    """Whether `first` holds all genes: then the guide is only ever run on it, as in training."""
    _drawn: dict[str, torch.Tensor] = field(default_factory=dict)
    _n_draws: int = 0

    @property
    def sample_stats(self) -> Mapping[str, np.ndarray]:
        """Nothing: the density of a guide is its own affair."""
        return {}

    def draw_globals(self, n_draws: int) -> dict[str, torch.Tensor]:
        """Draw the shared sites: site -> [n_draws, *shape]."""
        self._n_draws = n_draws
        drawn = self._run(self.first, {}, n_draws, "globals")
        self._drawn = drawn if self.whole else {}
        return {site.name: drawn[site.name] for site in self.sites.shared}

    def draw_locals(self, batch: Batch, global_draws: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Draw the sites of the batch's genes, given the shared ones: site -> [n_draws, *shape there]."""
        local = self.sites.local
        if self.whole:
            return {
                site.name: self._drawn[site.name].index_select(1 + site.local_axis, site.index_in(batch))
                for site in local
            }
        if not local:
            return {}
        drawn = self._run(batch, global_draws, self._n_draws, "locals")
        return {site.name: drawn[site.name] for site in local}

    def _run(
        self, batch: Batch, known: Mapping[str, torch.Tensor], n_draws: int, purpose: str
    ) -> dict[str, torch.Tensor]:
        def once(draw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            draw.pop("", None)
            nodes = pyro.poutine.trace(pyro.condition(self.guide, data=draw)).get_trace(batch).nodes
            values = {name: node["value"] for name, node in nodes.items() if node["type"] == "sample"}
            return {name: value for name, value in values.items() if name in self.sites.names and value is not None}

        numbered = {**known, "": torch.arange(n_draws, device=self.device)}
        with (
            run_on(self.device, self.dtype),
            seeded(self.device, self.seed, purpose, int(batch.gene_idx[0])),
            pyro.settings.context(module_local_params=False),
            pyro.get_param_store().scope(self.parameters),
            torch.no_grad(),
        ):
            return dict(draw_by_draw(once, numbered))


def fit_user_guide(guide: Callable[[Batch], Any], sites: Sites) -> Callable[..., UserFit]:
    """Return what fits a user's guide, to be called as `fit_mean_field` is.

    Parameters
    ----------
    guide
        `def guide(batch)`, sampling every latent site of the program.
    sites
        Of the program.

    Raises
    ------
    VihierError
        When called: for a guide whose parameters have the size of one batch and cannot serve several, for one that
        leaves out a site, and for `init`, which a guide of one's own has to see to itself.
    """

    def fitter(
        program: Program,
        screen: Screen,
        *,
        batches: GeneBlocks | RowParts,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress,
        max_steps: int | None = None,
        init: EarlierFit | None = None,
    ) -> UserFit:
        if init is not None:
            raise VihierError("init: a guide of your own starts where it says itself; leave init out")
        whole = isinstance(batches, RowParts) or len(batches) == 1
        if isinstance(guide, AutoGuide) and not whole:
            raise VihierError(
                f"guide {type(guide).__name__}: its parameters have the size of one batch; give batch_size="
                f"{screen.n_genes} (all genes), batch='rows', or guide='mean_field'"
            )
        if isinstance(guide, torch.nn.Module):
            guide.to(device)
        first = batches[0]
        with (
            run_on(device, dtype),
            seeded(device, seed, "svi"),
            pyro.settings.context(module_local_params=False),
            pyro.get_param_store().scope() as parameters,
        ):
            _check_guide(guide, sites, first)
            outcome = run_svi(
                UserOptimiser(program.model, guide, screen.n_rows),
                batches,
                seed=seed_of(seed, "batches"),
                progress=progress,
                schedule=SCHEDULE,
                max_steps=max_steps,
            )
        return UserFit(guide, sites, outcome, seed, device, dtype, parameters, first, whole)

    return fitter


def _check_guide(guide: Callable[[Batch], Any], sites: Sites, batch: Batch) -> None:
    nodes = pyro.poutine.trace(guide).get_trace(batch).nodes
    sampled = {name for name, node in nodes.items() if node["type"] == "sample"}
    missing = [name for name in sites.names if name not in sampled]
    if missing:
        raise VihierError(f"the guide does not sample {missing[0]!r}; it has to sample every latent site of the model")
