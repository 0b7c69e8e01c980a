"""Fit the mean-field guide to a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vihier.guides.mean_field import SHARED, MeanField
from vihier.inference.batches import GeneBlocks, RowParts, genes_in_block
from vihier.inference.device import generator, run_on, seed_of, seeded
from vihier.inference.earlier_fit import EarlierFit
from vihier.inference.fitted import TrainedBySVI
from vihier.inference.initial_values import InitialValues
from vihier.inference.optimiser import MeanFieldOptimiser
from vihier.inference.progress import Progress
from vihier.inference.sites import LOCAL_PLATES
from vihier.inference.svi import Outcome, Schedule, run_svi
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.screen import Screen


@dataclass
class MeanFieldFit(TrainedBySVI):
    """A fitted mean-field guide; see `vihier.inference.fitted.Fitted`.

    Attributes
    ----------
    guide
        The guide, its parameters averaged.
    outcome
        What the optimisation says of itself.
    seed
        Draws are keyed to it and to the block.
    """

    guide: MeanField
    outcome: Outcome
    seed: int
    _log_q: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def sample_stats(self) -> Mapping[str, np.ndarray]:
        """`log_q` of each draw, summed over all blocks drawn."""
        return {"log_q": np.sum(list(self._log_q.values()), axis=0)} if self._log_q else {}

    def draw_globals(self, n_draws: int) -> dict[str, torch.Tensor]:
        """Draw the shared sites: site -> [n_draws, *shape]."""
        rows = torch.zeros(1, dtype=torch.int64, device=self._device)
        draws, log_q = self.guide.draw(SHARED, rows, n_draws, generator(self._device, self.seed, "globals"))
        self._log_q = {-1: log_q.cpu().numpy()}
        return draws

    def draw_locals(self, batch: Batch, global_draws: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Draw the sites of the batch's genes: site -> [n_draws, *shape there]."""
        n_draws = len(self._log_q[-1])
        first = int(batch.gene_idx[0])
        draws: dict[str, torch.Tensor] = {}
        self._log_q[first] = np.zeros(n_draws)
        for plate in LOCAL_PLATES:
            rows = self.guide.rows_of(plate, batch)
            found, log_q = self.guide.draw(plate, rows, n_draws, generator(self._device, self.seed, plate, first))
            draws.update(found)
            self._log_q[first] += log_q.cpu().numpy()
        return draws

    @property
    def _device(self) -> torch.device:
        return getattr(self.guide, SHARED).device


def fit_mean_field(
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
    schedule: Schedule | None = None,
) -> MeanFieldFit:
    """Fit a program by SVI with the mean-field guide.

    Parameters
    ----------
    program
        The program.
    screen
        The screen.
    batches
        What a step sees: gene blocks or parts of the rows.
    seed
        Of everything random.
    device, dtype
        Of the run.
    progress
        Is told of each epoch.
    max_steps
        Largest number of steps.
    init
        An earlier fit to start from; labels it does not have start from the prior.
    schedule
        Learning rates and windows.

    Raises
    ------
    FitError
        If the fit breaks down.
    VihierError
        If the program's sites are not such that the guide can take them.
    """
    with run_on(device, dtype), seeded(device, seed, "svi"):
        guide = MeanField(program.model, batches[0], sparse=isinstance(batches, GeneBlocks))
        guide.to(device)
        start_guide(guide, program, screen, batches, init)
        optimiser = MeanFieldOptimiser(program.model, guide, screen.n_rows, len(batches))
        outcome = run_svi(
            optimiser,
            batches,
            seed=seed_of(seed, "batches"),
            progress=progress,
            schedule=schedule,
            max_steps=max_steps,
        )
    return MeanFieldFit(guide, outcome, seed)


def start_guide(
    guide: MeanField, program: Program, screen: Screen, batches: Sequence[Batch], init: EarlierFit | None
) -> None:
    """Put a guide where the data, or an earlier fit, say."""
    first = batches[0]
    if isinstance(batches, GeneBlocks):
        blocks = batches
    else:
        assert first.lfc is not None
        blocks = GeneBlocks(screen, genes_in_block(screen), first.lfc.device, first.lfc.dtype)
    initial = InitialValues(program.model, guide.sites, blocks)
    if init is None:
        shared, find = initial.find_shared(), initial.find_locals
    else:
        init.check(guide.sites.latent)
        shared, find = initial.take(init.values), initial.take_locals
    guide.start_at(shared.loc, shared.sd, first)
    for block in blocks:
        if guide.sites.local:
            start = find(block)
            guide.start_at(start.loc, start.sd, block)
