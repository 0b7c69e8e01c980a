"""Where a run computes, in what precision, and from which random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pyro
import torch

from vihier.errors import VihierError

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device meant by `cpu`, `cuda` (or `cuda:1`) or `auto`: CUDA where there is one.

    Raises
    ------
    VihierError
        If the name is another one, or CUDA is asked for and not there.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda", "meta"):
        raise VihierError(f"device {str(device)!r}: not known; choose cpu, cuda or auto")
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise VihierError(
                f"device {str(device)!r}: torch sees {count} CUDA device(s) here; use --device cpu or auto"
            )
    return resolved


def resolve_dtype(dtype: str | torch.dtype | None, default: torch.dtype = torch.float32) -> torch.dtype:
    """Return the floating-point type meant by `float32`, `float64`, a torch dtype, or None (the default).

    Raises
    ------
    VihierError
        If it is another one.

    Examples
    --------
    >>> resolve_dtype("float64")
    torch.float64
    """
    if dtype is None:
        return default
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise VihierError(f"dtype {name!r}: not supported; choose float32 or float64")
    return _DTYPES[name]


@contextmanager
def run_on(device: torch.device, dtype: torch.dtype, *, validate: bool = False) -> Iterator[None]:
    """Run programs on a device: constants made inside them get the device and the dtype of the run.

    Pyro's validation is off inside (it doubles the time of a step), and modules keep their parameters to themselves
    instead of a global store. Everything is as before afterwards.
    """
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, before)
        torch.set_default_dtype(dtype)
        if device.type != "cpu":  # the mode looks at every torch call, and constants are made on the CPU anyhow
            stack.enter_context(device)
        stack.enter_context(pyro.validation_enabled(validate))
        stack.enter_context(pyro.settings.context(module_local_params=True))
        yield


def seed_of(seed: int, *keys: int | str) -> int:
    """Return a 63-bit seed for one purpose: a block, a site, a phase; streams of different keys are independent.

    Examples
    --------
    >>> seed_of(0, "draws", 3) == seed_of(0, "draws", 3), seed_of(0, "draws", 3) == seed_of(0, "draws", 4)
    (True, False)
    """
    numbers = [seed]
    for key in keys:
        # Each key ends in a stop that no byte can be and that tells its kind, so that keys cannot run together.
        numbers += [*key.encode(), 1 << 20] if isinstance(key, str) else [key, 1 << 21]
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(device: torch.device, seed: int, *keys: int | str) -> torch.Generator:
    """Return a generator keyed to a purpose, independent of torch's global state."""
    made = torch.Generator(device="cpu" if device.type == "meta" else device)
    return made.manual_seed(seed_of(seed, *keys))


@contextmanager
def seeded(device: torch.device, seed: int, *keys: int | str) -> Iterator[None]:
    """Give code that draws from torch's global state, as Pyro's does, a state of its own, and put the old one back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed_of(seed, *keys))
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed_of(seed, *keys))
        yield
