"""The HDF5 layout of the Chronos package: a matrix ``data`` and the labels of its rows and columns.

Only numbers and text are read. Other layouts (pandas' and PyTables', most of all) may hold pickled objects, which run
code of their author's choice when they are loaded; such files are refused by what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from vihier.errors import VihierError
from vihier.screen.faults import fault, one_line, shown

CURE = "write it with chronos.write_hdf5, or as CSV"
BLOCK_BYTES = 1 << 25


class Hdf5Matrix:
    """A matrix [rows, columns] in a file, with unique labels.

    Raises
    ------
    VihierError
        Not HDF5, another layout, pickled objects, or labels that do not fit the matrix.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            detail = one_line(str(error))[:120]
            raise fault(self.name, f"not a readable HDF5 file ({detail})", cure="download or write it again") from error
        try:
            self.data = self._dataset("data")
            if self.data.ndim != 2 or self.data.dtype.kind not in "iuf":
                problem = f"'data' is of shape {self.data.shape} and type {self.data.dtype}, not a matrix of numbers"
                raise fault(self.name, problem, cure=CURE)
            if not self.data.size:
                raise fault(self.name, f"'data' is empty, of shape {self.data.shape}", cure=CURE)
            self.rows, self.columns = self._labels("dim_0", 0), self._labels("dim_1", 1)
        except BaseException:
            self.close()
            raise

    def row_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row and float64 [n, columns], in blocks of bounded size."""
        height = max(1, BLOCK_BYTES // (8 * max(1, len(self.columns))))
        for start in range(0, len(self.rows), height):
            yield start, self._read(np.s_[start : start + height])

    def column_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first column and float64 [rows, n], in blocks of bounded size."""
        width = max(1, BLOCK_BYTES // (8 * max(1, len(self.rows))))
        for start in range(0, len(self.columns), width):
            yield start, self._read(np.s_[:, start : start + width])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, part: slice | tuple[slice, slice]) -> np.ndarray:
        try:
            return np.asarray(self.data[part], dtype=np.float64)
        except OSError as error:
            raise fault(self.name, "the file is damaged: 'data' cannot be read", cure="download it again") from error

    def _dataset(self, name: str) -> h5py.Dataset:
        link = self._file.get(name, getlink=True)
        if link is None:
            raise self._another_layout(name)
        dataset = None if isinstance(link, h5py.ExternalLink) else self._file.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise fault(self.name, f"{name!r} is not a dataset of this file itself", cure=CURE)
        return dataset

    def _another_layout(self, name: str) -> VihierError:
        store = "PYTABLES_FORMAT_VERSION" in self._file.attrs
        store |= any("pandas_type" in group.attrs for group in self._file.values() if isinstance(group, h5py.Group))
        if store:
            problem = "this is a store of pandas or PyTables, which may hold pickled objects, never loaded here"
            return fault(self.name, problem, cure=CURE)
        there = ", ".join(shown(each) for each in list(self._file)[:6]) or "nothing"
        return fault(self.name, f"there is no dataset {name!r}; the file has {there}", cure=CURE)

    def _labels(self, name: str, axis: int) -> np.ndarray:
        dataset = self._dataset(name)
        if h5py.check_string_dtype(dataset.dtype) is None:
            pickled = dataset.dtype.kind in "OV"
            what = "objects that may be pickled, never loaded here" if pickled else str(dataset.dtype)
            raise fault(self.name, f"{name!r} holds {what}, not text labels", cure=CURE)
        if dataset.shape != (self.data.shape[axis],):
            problem = f"{name!r} is of shape {dataset.shape} where 'data' is of shape {self.data.shape}"
            raise fault(self.name, problem, cure=CURE)
        try:
            read = np.array([label.strip() for label in dataset.asstr()[:]], dtype=object)
        except UnicodeDecodeError as error:
            raise fault(self.name, f"{name!r} holds a label that is not UTF-8 text", cure=CURE) from error
        return read
