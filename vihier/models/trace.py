"""Run a Pyro program once and look at what it sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch

from vihier.errors import VihierError
from vihier.models.batch import Batch


def trace_program(model: Callable[[Batch], Any], batch: Batch) -> pyro.poutine.Trace:
    """Trace a program on a batch; torch's random state is as before afterwards.

    Raises
    ------
    VihierError
        What the batch or a prior refuses, in its own one line: Pyro appends a table of shapes.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            return pyro.poutine.trace(model).get_trace(batch)
        except VihierError as error:
            raise VihierError(str(error).splitlines()[0]) from None
