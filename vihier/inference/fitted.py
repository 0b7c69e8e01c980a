"""What every fitted guide offers, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch

from vihier.inference.svi import Outcome
from vihier.models.batch import Batch


class Fitted(Protocol):
    """A guide whose variational parameters are found; it only has to be drawn from."""

    @property
    def history(self) -> Mapping[str, np.ndarray]:
        """Name -> one value for each record, all of the same length: `step`, `elbo_per_row`, ..."""

    @property
    def converged(self) -> bool:
        """Whether the stated rule was met."""

    @property
    def reason(self) -> str:
        """One sentence: which rule was met, or why not."""

    @property
    def sample_stats(self) -> Mapping[str, np.ndarray]:
        """Name -> one value for each draw: `log_p`, `log_q`, where known. Complete once all blocks are drawn."""

    @property
    def not_identified(self) -> Mapping[str, str]:
        """Variable -> why the data do not identify it, beyond what the program says of itself."""

    def draw_globals(self, n_draws: int) -> dict[str, torch.Tensor]:
        """Draw the sites that belong to no gene: site -> [n_draws, *its shape]."""

    def draw_locals(self, batch: Batch, global_draws: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Draw the sites of the batch's genes, given draws of the globals: site -> [n_draws, *its shape there]."""


class TrainedBySVI:
    """What any guide that `run_svi` trained says of its training.

    Attributes
    ----------
    outcome
        What the optimisation says of itself.
    """

    outcome: Outcome

    @property
    def history(self) -> Mapping[str, np.ndarray]:
        """Records of the optimisation."""
        return self.outcome.history

    @property
    def converged(self) -> bool:
        """Whether the stated rule was met."""
        return self.outcome.converged

    @property
    def reason(self) -> str:
        """One sentence about convergence."""
        return self.outcome.reason

    @property
    def not_identified(self) -> Mapping[str, str]:
        """Nothing: only the structured guide looks for what the data do not say."""
        return {}
