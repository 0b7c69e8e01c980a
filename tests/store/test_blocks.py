"""Blocks of a store are those of the screen in memory, to the bit, in whatever order they are asked for."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks
from vihier.models.batch import Batch
from vihier.screen import Screen, read_screen
from vihier.screen.rows import Rows
from vihier.store import blocks as module
from vihier.store.blocks import StoreBlocks
from vihier.store.pack import pack
from vihier.store.store import ScreenStore


@pytest.fixture
def both(frame: pd.DataFrame, tmp_path: Path) -> Iterator[tuple[Screen, ScreenStore]]:
    frame.to_parquet(tmp_path / "a.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pack(tmp_path / "a.parquet", tmp_path / "a.h5") as store:
            yield read_screen(frame), store


def check_same(left: Batch, right: Batch) -> None:
    for field in fields(Batch):
        check_same_values(getattr(left, field.name), getattr(right, field.name))


def check_same_values(left: Any, right: Any) -> None:
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and left.device == right.device
        assert left.numpy().tobytes() == right.numpy().tobytes()  # NaN included
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for name, values in left.items():
            check_same_values(values, right[name])
    else:
        assert left == right


@pytest.mark.parametrize("kept", [0, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 5, 12, 99])
def test_blocks_are_those_of_the_screen(
    size: int, dtype: torch.dtype, kept: int, both: tuple[Screen, ScreenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_KEPT", kept)
    screen, store = both
    expected = list(GeneBlocks(screen, size, "cpu", dtype))
    blocks = StoreBlocks(store, size, "cpu", dtype)
    assert len(blocks) == len(expected)
    jumps = np.random.default_rng(size).integers(-len(expected), len(expected), 20).tolist()
    for number in [*range(len(expected)), *range(len(expected)), *jumps]:
        check_same(blocks[number], expected[number])
    for block, other in zip(blocks, expected, strict=True):
        check_same(block, other)
    for block, other in zip(blocks[::-2], expected[::-2], strict=True):
        check_same(block, other)
    assert isinstance(blocks, GeneBlocks)
    with pytest.raises(IndexError):
        blocks[len(expected)]


def test_gene_blocks_take_a_store_too(both: tuple[Screen, ScreenStore]) -> None:
    screen, store = both
    for block, other in zip(GeneBlocks(store, 4), GeneBlocks(screen, 4), strict=True):
        check_same(block, other)


def test_the_next_block_is_read_ahead_and_no_other(
    both: tuple[Screen, ScreenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_KEPT", 0)
    _, store = both
    read: list[int] = []
    rows_of = store.rows_of

    def noted(genes: slice) -> Rows:
        read.append(genes.start)
        return rows_of(genes)

    monkeypatch.setattr(store, "rows_of", noted)
    blocks = StoreBlocks(store, 1)
    waited = time.monotonic() + 30
    blocks[0]
    while read != [0, 1] and time.monotonic() < waited:
        time.sleep(0.001)
    assert read == [0, 1]
    list(blocks.in_order([1, 7, 3]))  # block 1 is there already
    assert read == [0, 1, 7, 3]
    blocks[5]  # out of turn, so nothing is read ahead
    blocks[9]
    assert read == [0, 1, 7, 3, 5, 9]


def test_a_fault_in_reading_ahead_is_raised_in_its_turn(
    both: tuple[Screen, ScreenStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_KEPT", 0)
    _, store = both
    blocks = StoreBlocks(store, 1)
    blocks[0]
    store.close()
    with pytest.raises(VihierError, match="closed"):
        list(blocks)
