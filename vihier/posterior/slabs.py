"""Read and write parts of a dataset by positions, in few contiguous requests.

h5py's own lists of indices cost a selection per element and allow one list a read; here positions are gathered into
stretches that HDF5 reads or writes in one sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import h5py
import numpy as np

from vihier.errors import VihierError

# A request of this size is read at the speed of the disk; larger ones only cost memory.
_SLAB_BYTES = 16 * 1024 * 1024

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


def read_at(dataset: h5py.Dataset, wanted: Sequence[np.ndarray | None], *, split_axis: int = 0) -> np.ndarray:
    """Read the outer product of positions along each axis, and little else.

    Parameters
    ----------
    dataset : h5py.Dataset
        Any number of axes.
    wanted : sequence of (int array or None), one per axis
        Distinct positions in any order; None means the whole axis.
    split_axis : int
        The axis along which requests are cut so that none exceeds 16 MB.

    Returns
    -------
    ndarray
        Shape: the lengths of `wanted`, in the order asked for.
    """
    if dataset.ndim == 0 or all(positions is None for positions in wanted):
        return dataset[()]
    orders = [np.arange(n) if w is None else np.argsort(w) for w, n in zip(wanted, dataset.shape, strict=True)]
    rising = [order if w is None else w[order] for w, order in zip(wanted, orders, strict=True)]
    pieces = [list(stretches(p, gap)) for p, gap in zip(rising, _gaps(dataset), strict=True)]
    spans = [max((p[b - 1] - p[a] + 1 for a, b in its), default=1) for p, its in zip(rising, pieces, strict=True)]
    row_bytes = dataset.dtype.itemsize * int(np.prod(spans)) // int(spans[split_axis])
    rows = max(1, _SLAB_BYTES // row_bytes)
    pieces[split_axis] = [cut for piece in pieces[split_axis] for cut in _cuts(rising[split_axis], piece, rows)]
    out = np.empty([len(positions) for positions in rising], dtype=dataset.dtype)
    for place in product(*pieces):
        inside = [p[a:b] - p[a] for p, (a, b) in zip(rising, place, strict=True)]
        block = dataset[tuple(slice(p[a], p[b - 1] + 1) for p, (a, b) in zip(rising, place, strict=True))]
        for axis, positions in enumerate(inside):
            if len(positions) != block.shape[axis]:
                block = block.take(positions, axis=axis)
        out[tuple(slice(a, b) for a, b in place)] = block
    for axis, order in enumerate(orders):
        if not np.array_equal(order, np.arange(len(order))):
            out = out.take(np.argsort(order), axis=axis)
    return out


def _gaps(dataset: h5py.Dataset) -> list[int]:
    """Longest gap along each axis that is cheaper to read through than to skip."""
    if dataset.chunks is not None:
        return list(dataset.chunks)
    return [1] * (dataset.ndim - 1) + [4096 // dataset.dtype.itemsize]


def _cuts(positions: np.ndarray, piece: tuple[int, int], longest: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch so that no part spans more than `longest`."""
    start, stop = piece
    while start < stop:
        end = start + int(np.searchsorted(positions[start:stop], positions[start] + longest))
        yield start, end
        start = end
