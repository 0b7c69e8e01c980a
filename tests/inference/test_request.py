"""What no screen would make right is refused before any is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vihier
from vihier.errors import VihierError


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"guide": "laplace"}, "guide 'laplace'"),
        ({"guide": 3}, "guide 3"),
        ({"draws": 0}, "draws 0"),
        ({"draws": 1.5}, "draws 1.5"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"max_steps": 0}, "max_steps 0"),
        ({"seed": -1}, "seed -1"),
        ({"batch": "cells"}, "batch 'cells'"),
        ({"batch": "rows", "guide": "structured"}, "structured guide takes gene blocks"),
        ({"dtype": "float16"}, "dtype 'float16'"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"model": "addative"}, "model 'addative'"),
        ({"init": "missing.h5"}, "missing.h5: no such file"),
        ({"out": "no/such/folder/fit.h5"}, "does not exist"),
        ({"out": "."}, "is a directory"),
        ({"priors": {"sigma": "HalfNormal(-1)"}}, "must be positive"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_the_screen_is_read(options: dict[str, Any], what: str) -> None:
    with pytest.raises(VihierError, match=what) as refused:
        vihier.fit("no_such_screen.csv", **options)
    assert "\n" not in str(refused.value)


def test_a_device_that_is_not_there_is_refused_before_the_screen_is_read() -> None:
    index = torch.cuda.device_count()
    with pytest.raises(VihierError, match=f"torch sees {index} CUDA device"):
        vihier.fit("no_such_screen.csv", device=f"cuda:{index}")


def test_with_arguments_that_can_be_it_is_the_screen_that_is_missing() -> None:
    with pytest.raises(VihierError, match=r"no_such_screen\.csv"):
        vihier.fit("no_such_screen.csv", device="cpu")
