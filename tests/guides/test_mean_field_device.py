"""A step of mean_field on another device than the CPU: under fake tensors everywhere, for real where there is CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from ragged import CPU, ragged_screen
from torch._subclasses.fake_tensor import FakeTensorMode

import vihier
from vihier.guides.mean_field import MeanField
from vihier.inference.batches import gene_blocks
from vihier.inference.device import run_on
from vihier.models.batch import Batch
from vihier.models.program import load_program

META = torch.device("meta")
F32 = torch.float32


def step_on_meta(model: Callable[[Batch], Any]) -> MeanField:
    """Forward and backward of the ELBO; an operation that mixes devices raises."""
    screen = ragged_screen()
    with run_on(CPU, F32):
        guide = MeanField(load_program("additive").model, gene_blocks(screen, 2, dtype=F32)[0], sparse=True)
        if model is not mixes_devices:
            guide = MeanField(model, gene_blocks(screen, 2, dtype=F32)[0], sparse=True)
    with FakeTensorMode(allow_non_fake_inputs=True), run_on(META, F32):
        guide.to(META)
        batch = gene_blocks(screen, 2, META, F32)[1]
        q = poutine.trace(guide).get_trace(batch)
        p = poutine.trace(poutine.replay(model, q)).get_trace(batch)
        (q.log_prob_sum() - p.log_prob_sum()).backward()
    return guide


@pytest.mark.parametrize("name", ["additive", "crossed", "gene_lineage"])
def test_a_step_keeps_to_the_device_of_the_run(name: str) -> None:
    guide = step_on_meta(load_program(name).model)
    assert guide.gene.grad.device == guide.shared.grad.device == META


def mixes_devices(batch: Batch) -> None:
    load_program("additive").model(batch)
    pyro.deterministic("mixed", batch.lfc + torch.zeros(len(batch.gene), device="cpu"))


def test_a_program_that_makes_a_tensor_elsewhere_does_raise() -> None:
    with pytest.raises((RuntimeError, TypeError)):
        step_on_meta(mixes_devices)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_and_cpu_agree() -> None:
    screen = ragged_screen()
    fits = [
        vihier.fit(screen, "additive", guide="mean_field", draws=2000, quiet=True, device=device, batch_size=2)
        for device in ("cpu", "cuda")
    ]
    a, b = (fit.moments("effect") for fit in fits)
    # 2,000 draws each put 0.03 sd on a mean; SVI's own noise, of another random stream, some 0.1 sd.
    assert float((np.abs(a["mean"] - b["mean"]) / a["sd"]).max()) < 0.4
