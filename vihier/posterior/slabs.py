"""Read and write parts of a dataset by positions, in few contiguous requests.

h5py's own lists of indices cost a selection per element and allow one list a read; here positions are gathered into
stretches that HDF5 reads or writes in one sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import h5py
import numpy as np

from vihier.errors import VihierError

Positions = slice | Sequence[int] | np.ndarray | None


def checked_positions(name: str, size: int, at: Positions) -> np.ndarray:
    """Positions along an axis of length `size` as an int array.

    Raises
    ------
    VihierError
        A position is out of range or given twice; the message names the variable.
    """
    if at is None or isinstance(at, slice):
        return np.arange(size)[at if at is not None else slice(None)]
    positions = np.asarray(at, dtype=np.int64)
    if positions.ndim != 1 or (len(positions) and (positions.min() < 0 or positions.max() >= size)):
        raise VihierError(f"variable {name!r}: positions must lie in 0..{size - 1}")
    if len(np.unique(positions)) != len(positions):
        raise VihierError(f"variable {name!r}: a position is given twice")
    return positions


def write_at(dataset: h5py.Dataset, block: np.ndarray, positions: np.ndarray, axis: int) -> None:
    """Write `block` at `positions` of one axis, and everywhere along the others; a scalar takes the block as it is."""
    if block.ndim <= axis:
        dataset[...] = block
        return
    lead = (slice(None),) * axis
    for start, stop in stretches(positions, longest_gap=1):
        dataset[(*lead, slice(positions[start], positions[stop - 1] + 1))] = block[(*lead, slice(start, stop))]


def stretches(positions: np.ndarray, longest_gap: int) -> Iterator[tuple[int, int]]:
    """Maximal stretches of rising positions no further apart than `longest_gap`, as (start, stop) into `positions`."""
    if not len(positions):
        return
    steps = np.diff(positions)
    breaks = np.flatnonzero((steps < 1) | (steps > longest_gap)) + 1
    yield from pairwise([0, *breaks.tolist(), len(positions)])
