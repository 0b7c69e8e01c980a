"""Reading by positions gives what numpy's outer indexing gives, and reads little else."""

import h5py
import numpy as np
import pytest

from vihier.errors import VihierError
from vihier.posterior import slabs


@pytest.fixture(params=["chunked", "contiguous"])
def dataset(request, tmp_path):
    values = np.arange(1 * 6 * 23 * 40, dtype=np.float32).reshape(1, 6, 23, 40)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        chunks = (1, 6, 1, 8) if request.param == "chunked" else None
        yield file.create_dataset("x", data=values, chunks=chunks)


@pytest.mark.parametrize("genes", [None, [3], [22, 0, 5, 6, 7], list(range(23))[::-1]])
@pytest.mark.parametrize("lines", [None, [39], [0, 39, 20, 21, 1], [7, 8]])
@pytest.mark.parametrize("slab_bytes", [1, 3000, 2**26])
def test_equals_outer_indexing(dataset, genes, lines, slab_bytes, monkeypatch):
    monkeypatch.setattr(slabs, "_SLAB_BYTES", slab_bytes)
    wanted = [None, None] + [None if p is None else np.array(p) for p in (genes, lines)]
    full = [np.arange(n) if p is None else p for p, n in zip(wanted, dataset.shape, strict=True)]
    np.testing.assert_array_equal(slabs.read_at(dataset, wanted, split_axis=2), dataset[()][np.ix_(*full)])


def test_scattered_writes_land_where_they_belong(dataset):
    before = dataset[()]
    at = np.array([20, 3, 4, 5, 0])
    block = -np.random.default_rng(0).random((1, 6, 5, 40)).astype(np.float32)
    slabs.write_at(dataset, block, at, axis=2)
    np.testing.assert_array_equal(dataset[()][:, :, at], block)
    untouched = np.setdiff1d(np.arange(23), at)
    np.testing.assert_array_equal(dataset[()][:, :, untouched], before[:, :, untouched])


@pytest.mark.parametrize("at", [[0, 23], [-1], [1, 1], [[0, 1]]])
def test_positions_out_of_range_or_repeated_are_refused(at):
    with pytest.raises(VihierError, match="variable 'gamma'"):
        slabs.checked_positions("gamma", 23, np.array(at))


def test_slices_become_positions():
    np.testing.assert_array_equal(slabs.checked_positions("gamma", 10, slice(8, 20)), [8, 9])
    np.testing.assert_array_equal(slabs.checked_positions("gamma", 3, None), [0, 1, 2])
