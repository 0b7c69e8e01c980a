"""What a fit is asked for, apart from the screen, and what of that is refused before any table is read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from vihier.atomic import check_writable
from vihier.errors import VihierError
from vihier.inference.covariates import check_covariates
from vihier.inference.device import resolve_device, resolve_dtype
from vihier.inference.likelihoods import check_likelihood
from vihier.models.batch import Batch
from vihier.models.program import Program, load_program
from vihier.posterior.reader import Posterior, open_posterior

GUIDES = ("structured", "mean_field")
BATCHES = ("genes", "rows")
DRAWS_DISK_GB = 8.0
CHECKPOINT_MINUTES = 5.0

Guide = str | Callable[[Batch], Any]


@dataclass(frozen=True)
class FitRequest:
    """The arguments of `vihier.fit`, by their names there.

    Examples
    --------
    >>> FitRequest(model="additive", draws=0).check()
    Traceback (most recent call last):
    ...
    vihier.errors.VihierError: draws 0: give a whole number, 1 or more
    """

    model: str | Callable[[Batch], Any] | Program = "additive"
    guide: Guide = "structured"
    draws: int = 1000
    seed: int = 0
    device: str | torch.device = "auto"
    dtype: str | torch.dtype | None = None
    out: Path | None = None
    priors: Mapping[str, Any] | None = None
    likelihood: str = "auto"
    noise: str = "auto"
    nu: str | float = "auto"
    dispersion: str = "auto"
    covariates: Mapping[str, str | None] | None = None
    batch: str = "genes"
    batch_size: int | None = None
    init: str | os.PathLike[str] | Posterior | None = None
    max_steps: int | None = None
    draws_disk_gb: float = DRAWS_DISK_GB
    no_cache: bool = False
    checkpoint_every: float | None = CHECKPOINT_MINUTES
    resume: bool = False
    quiet: bool = False
    force: bool = False

    @property
    def guide_name(self) -> str:
        """Name that the file gives the guide."""
        return self.guide if isinstance(self.guide, str) else getattr(self.guide, "__name__", type(self.guide).__name__)

    def check(self) -> None:
        """Refuse what no screen would make right: a large table is not read, and a long fit not run, for nothing.

        Raises
        ------
        VihierError
            An argument that is not known or cannot be meant, a prior that cannot be read, a device that is not there,
            an earlier fit that cannot be opened, an output that could not be written.
        """
        self._check_guide()
        for name, least in (("draws", 1), ("batch_size", 1), ("max_steps", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name in ("batch_size", "max_steps"):
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) < 2**63:
                raise VihierError(f"{name} {value!r}: give a whole number, {least} or more")
        room = self.draws_disk_gb
        if isinstance(room, bool) or not isinstance(room, Real) or not 0 <= float(room) < math.inf:
            raise VihierError(f"draws_disk_gb {room!r}: give a number of GB, 0 or more")
        every = self.checkpoint_every
        if every is not None and (isinstance(every, bool) or not isinstance(every, Real) or not 0 <= every < math.inf):
            raise VihierError(f"checkpoint_every {every!r}: give a number of minutes, 0 or more, or None")
        if self.resume and (self.out is None or every is None):
            raise VihierError("resume: there is a checkpoint only beside an output and with checkpoints; give both")
        if self.resume and self.force:
            raise VihierError("resume and force: go on from a checkpoint, or start anew; give one of them")
        load_program(self.model, self.priors)
        check_covariates(self.model, self.covariates)
        check_likelihood(self)
        resolve_device(self.device)
        resolve_dtype(self.dtype)
        if self.out is not None:
            check_writable(self.out)
        if self.init is not None and not isinstance(self.init, Posterior):
            open_posterior(Path(self.init)).close()

    def _check_guide(self) -> None:
        if isinstance(self.guide, str) and self.guide not in GUIDES:
            raise VihierError(
                f"guide {self.guide!r}: there is none of that name; choose {' or '.join(GUIDES)}, or give a function"
            )
        if not isinstance(self.guide, str) and not callable(self.guide):
            raise VihierError(f"guide {self.guide!r}: give {' or '.join(GUIDES)}, or a Pyro guide of a batch")
        if self.batch not in BATCHES:
            raise VihierError(f"batch {self.batch!r}: not known; choose {' or '.join(BATCHES)}")
        if self.batch == "rows" and self.guide == "structured":
            raise VihierError("batch 'rows': the structured guide takes gene blocks; use --batch genes or mean_field")
