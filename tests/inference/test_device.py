"""Devices, types and random streams."""

from __future__ import annotations

import pyro
import pytest
import torch

from vihier.errors import VihierError
from vihier.inference.device import generator, resolve_device, resolve_dtype, run_on, seed_of, seeded

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none_is_one_line() -> None:
    with pytest.raises(VihierError, match="0 CUDA device") as refused:
        resolve_device("cuda")
    assert "\n" not in str(refused.value)
    assert resolve_device("auto") == CPU


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_is_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == "cuda"
    with pytest.raises(VihierError):
        resolve_device("cuda:99")


@pytest.mark.parametrize("device", ["gpu", "tpu", "", "mps", 3.5])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(VihierError, match="choose cpu, cuda or auto"):
        resolve_device(device)


def test_types() -> None:
    assert resolve_dtype(None, torch.float64) == resolve_dtype("float64") == resolve_dtype(torch.float64)
    for dtype in ("float16", "int32", "double"):
        with pytest.raises(VihierError, match="choose float32 or float64"):
            resolve_dtype(dtype)


def test_a_run_leaves_everything_as_it_was() -> None:
    before = torch.get_default_dtype(), pyro.settings.get("validate_poutine"), torch.get_default_device()
    with pytest.raises(KeyError), run_on(torch.device("meta"), torch.float64):
        assert torch.tensor(1.0).dtype == torch.float64 and torch.zeros(2).device.type == "meta"
        raise KeyError
    assert before == (
        torch.get_default_dtype(),
        pyro.settings.get("validate_poutine"),
        torch.get_default_device(),
    )


def test_streams_are_keyed_to_their_purpose_and_leave_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(CPU, 0, "draws", 1):
        first = torch.rand(4)
    generator(CPU, 0, "other").seed()
    assert torch.equal(torch.rand(3), expected)
    with seeded(CPU, 0, "draws", 1):
        assert torch.equal(torch.rand(4), first)
    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "ab"), (0, "a", "b"), (0, 97)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
