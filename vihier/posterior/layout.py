"""How a posterior file is laid out: groups, dimensions, labels, chunks. Shared by its writer and its reader.

The file is HDF5 written as netCDF-4: every dimension of a group has a dataset of its own, made a dimension scale and
attached to each variable, so that xarray and ArviZ find names and labels. Each group carries its own scales; nothing
is indexed at the root, so that a group over fewer genes than the others opens beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import h5py
import numpy as np

from vihier.errors import VihierError

FORMAT_VERSION = 1
POSTERIOR, MOMENTS, INDEX, SAMPLE_STATS, TRUTH = "posterior", "moments", "index", "sample_stats", "truth"
REGENERATION = "regeneration"
"""Root attribute: how draws that are not stored are made again."""
SAMPLE_DIMS = ("chain", "draw")
# The order of indices in every variable that vihier's own models have. Dims of a user's own plates come after.
INDEX_DIMS = ("sgrna", "hugo_symbol", "depmap_id", "lineage")
# dim -> (its parent, the variable of group `index` that holds the parent's position of each label)
PARENTS = {"sgrna": ("hugo_symbol", "gene_of_sgrna"), "depmap_id": ("lineage", "lineage_of_line")}

# R and older netCDF libraries cannot read what later versions of the format may write.
LIBVER = ("earliest", "v110")
LABEL_TYPE = h5py.string_dtype(encoding="utf-8")

# 64 KiB, the draws of 16 elements at 1,000 draws: the draws of one gene lie in neighbouring chunks and are read in one
# sweep, while one line over all genes touches 1/63 of a file of 1,000 lines instead of all of it.
CHUNK_BYTES = 64 * 1024
CONTIGUOUS_BYTES = 1024 * 1024


def checked_labels(dim: str, labels: Sequence[Any] | np.ndarray | int) -> np.ndarray:
    """Labels of one dimension, ready to be written.

    Parameters
    ----------
    dim : str
        Name of the dimension.
    labels : sequence of str, sequence of int, or int
        An integer n stands for the labels 0, ..., n - 1 (a user's plate without names).

    Returns
    -------
    ndarray
        int64, or object holding str.

    Raises
    ------
    VihierError
        The name is none that a file can hold, or labels repeat, are not all str or all int, hold a NUL or a lone
        surrogate, or, for the dimensions of a screen, are not sorted by Unicode code point.
    """
    _check_legal("dimension", dim)
    if dim in SAMPLE_DIMS:
        raise VihierError(f"dimension {dim!r}: that name is taken by the draws; rename the plate")
    if isinstance(labels, int | np.integer):
        return np.arange(int(labels), dtype=np.int64)
    array = np.asarray(labels)
    if array.ndim != 1:
        raise VihierError(f"labels of {dim}: one-dimensional wanted, shape {array.shape} given")
    if np.issubdtype(array.dtype, np.integer):
        return _unique(dim, array.astype(np.int64))
    array = np.array([str(label) if isinstance(label, str) else label for label in labels], dtype=object)
    for position, label in enumerate(array):
        if not isinstance(label, str):
            raise VihierError(f"labels of {dim}: {label!r} at position {position} is not a string")
        if not _is_storable(label):
            raise VihierError(
                f"labels of {dim}: {label[:80]!r} holds a NUL or a lone surrogate, which no file can keep"
            )
    if dim in INDEX_DIMS and any(a > b for a, b in pairwise(array)):
        raise VihierError(f"labels of {dim}: not sorted by Unicode code point")
    return _unique(dim, array)


def _unique(dim: str, labels: np.ndarray) -> np.ndarray:
    if len(set(labels.tolist())) != len(labels):
        seen: set[Any] = set()
        twice = next(label for label in labels.tolist() if label in seen or seen.add(label))  # type: ignore[func-returns-value]
        raise VihierError(f"labels of {dim}: {twice!r} is there twice")
    return labels


def ordered_dims(dims: Iterable[str]) -> list[str]:
    """Dims in the file's order: chain, draw, those of a screen, then a user's own in the order given."""
    known = (*SAMPLE_DIMS, *INDEX_DIMS)
    given = list(dict.fromkeys(dims))
    return [dim for dim in known if dim in given] + [dim for dim in given if dim not in known]


def check_name(name: str, dims: Iterable[str]) -> None:
    """Refuse variable names that a netCDF group cannot hold, and those of its dimensions."""
    _check_legal("variable", name)
    if name in (*SAMPLE_DIMS, *dims):
        raise VihierError(f"variable {name!r}: that is the name of a dimension; rename the site")


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _check_legal(kind: str, name: str) -> None:
    if not name or "/" in name or not name.isprintable() or name.startswith(".") or name != name.strip():
        raise VihierError(f"{kind} {name!r}: not a name a file can hold; use letters, digits and underscores")


def chunk_shape(shape: Sequence[int], itemsize: int) -> tuple[int, ...] | None:
    """Chunks of draws: all draws of a run of the last index, for one element of the others.

    Parameters
    ----------
    shape : sequence of int
        (chain, draw, indices ...).
    itemsize : int
        Bytes of one value.

    Returns
    -------
    tuple of int or None
        None for variables of at most 1 MiB, which are stored in one piece.

    Examples
    --------
    >>> chunk_shape((1, 1000, 18000, 1000), 4)
    (1, 1000, 1, 16)
    >>> chunk_shape((1, 1000, 20), 4) is None
    True
    """
    if int(np.prod(shape, dtype=np.int64)) * itemsize <= CONTIGUOUS_BYTES:
        return None
    chunk = [1] * len(shape)
    chunk[1] = min(shape[1], 16 * CHUNK_BYTES // itemsize)
    if len(shape) > 2:
        run = max(1, CHUNK_BYTES // (itemsize * chunk[1]))
        # Equal runs: 17 elements are 9 + 8, not 16 + 1 and 15 places of padding.
        n_runs = -(-shape[-1] // run)
        chunk[-1] = -(-shape[-1] // n_runs)
    return tuple(chunk)


def make_scale(group: h5py.Group, dim: str, labels: np.ndarray) -> None:
    """Write the labels of `dim` into `group` as its dimension scale, or check them against the one that is there."""
    if dim in group:
        if group[dim].shape != labels.shape:
            raise VihierError(f"group {group.name}: {dim} has {group[dim].shape[0]} labels and now {len(labels)}")
        return
    dtype = LABEL_TYPE if labels.dtype == object else labels.dtype
    scale = group.create_dataset(dim, data=labels, dtype=dtype)
    scale.make_scale(dim)


def make_variable(group: h5py.Group, name: str, dims: Sequence[str], dtype: Any) -> h5py.Dataset:
    """Create a variable over dims whose scales `group` already has."""
    shape = tuple(group[dim].shape[0] for dim in dims)
    sampled = tuple(dims[:2]) == SAMPLE_DIMS
    chunks = chunk_shape(shape, np.dtype(dtype).itemsize) if sampled else None
    variable = group.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks)
    for axis, dim in enumerate(dims):
        variable.dims[axis].attach_scale(group[dim])
    return variable


def dims_of(variable: h5py.Dataset) -> tuple[str, ...]:
    """Names of a variable's dimensions, read from the scales attached to it."""
    return tuple(variable.dims[axis][0].name.rsplit("/", 1)[-1] for axis in range(variable.ndim))


def stored_values(values: Any) -> tuple[np.ndarray, Any, dict[str, str]]:
    """Values as they can be stored: netCDF-4 has no booleans, and labels are UTF-8 strings of variable length.

    Returns
    -------
    values : ndarray
    dtype : dtype of the dataset
    attrs : dict
        Attributes to set, by xarray's own convention for booleans.
    """
    array = np.asarray(values)
    if array.dtype == bool:
        return array.astype(np.int8), np.dtype(np.int8), {"dtype": "bool"}
    if array.dtype.kind in "OUT":
        return checked_text(array), LABEL_TYPE, {}
    if array.dtype == np.float16 or array.dtype.kind not in "iuf":
        raise VihierError(f"values of type {array.dtype} have no place in a posterior file")
    return array, array.dtype, {}


def checked_text(array: np.ndarray) -> np.ndarray:
    """Array of str as an object array, refused where an entry is not text."""
    flat = array.ravel().tolist()
    for entry in flat:
        if not isinstance(entry, str) or not _is_storable(entry):
            raise VihierError(f"{entry!r} is not text that a posterior file can hold")
    return np.array(flat, dtype=object).reshape(array.shape)


def sizes_of(labels: Mapping[str, np.ndarray], dims: Iterable[str]) -> tuple[int, ...]:
    """Lengths of `dims`, one line naming the dimension where one has no labels."""
    missing = [dim for dim in dims if dim not in labels]
    if missing:
        raise VihierError(f"dimension {missing[0]!r} has no labels; known: {', '.join(labels) or 'none'}")
    return tuple(len(labels[dim]) for dim in dims)
