"""What lies in a posterior file, by variable name and position; the layer below `Posterior`."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import xarray as xr

from vihier.errors import VihierError
from vihier.posterior import layout, opening
from vihier.posterior.regenerated_draws import RegeneratedDraws
from vihier.posterior.selection import LabelIndex, Selection, nearest, shown
from vihier.posterior.slabs import read_at


class DrawSource(Protocol):
    """Where the draws of a variable come from that is listed in the root attribute ``regenerated``."""

    def __call__(self, variable: str, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Draws [chain, draw, ...] of `variable` at the outer product of positions along its index dims."""


class StoredPosterior:
    """An open posterior file. Attributes and names are read at once, labels and values when asked for.

    Parameters
    ----------
    path : Path
        A file that `vihier fit` wrote.
    regenerate : DrawSource, optional
        Yields draws of the variables whose draws are not stored.
    owned_tempdir : path-like, optional
        A directory removed when the file is closed or this object collected.

    Raises
    ------
    VihierError
        The file is missing, not ours, truncated, unfinished, damaged or from a newer format.
    """

    def __init__(
        self,
        path: Path,
        *,
        regenerate: DrawSource | None = None,
        owned_tempdir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path = path
        self._regenerate = regenerate
        self._file = opening.open_file(path)
        self._finalizer = weakref.finalize(self, _release, self._file, owned_tempdir)
        try:
            with opening.reading(path):
                self.attrs = opening.root_attrs(self._file)
                self.variables = self._dims_of_variables()
                self.index = LabelIndex(self._labelled_dims(), self._read_labels, self._read_parents)
                if regenerate is None and layout.REGENERATION in self.attrs:
                    # Through the file only: this object would otherwise keep itself alive, and its file open.
                    self._regenerate = RegeneratedDraws(self.attrs[layout.REGENERATION], partial(_same, self._file))
        except VihierError:
            # The directory is the caller's until it has a posterior to show for it.
            self._file.close()
            self._finalizer.detach()
            raise

    def _dims_of_variables(self) -> dict[str, tuple[str, ...]]:
        group = self._file[layout.POSTERIOR]
        dims = {name: layout.dims_of(node)[2:] for name, node in group.items() if not node.is_scale}
        for name in self.attrs["regenerated"]:
            dims[name] = layout.dims_of(self._file[layout.MOMENTS][f"{name}_mean"])
        return dims

    def _labelled_dims(self) -> tuple[str, ...]:
        groups = [self._file[name] for name in (layout.POSTERIOR, layout.INDEX)]
        found = {name for group in groups for name, node in group.items() if node.is_scale}
        return tuple(dim for dim in layout.ordered_dims(sorted(found)) if dim not in layout.SAMPLE_DIMS)

    def _read_labels(self, dim: str) -> np.ndarray:
        with self.reading() as file:
            return _values(next(file[g][dim] for g in (layout.POSTERIOR, layout.INDEX) if dim in file[g]))

    def _read_parents(self, dim: str) -> np.ndarray | None:
        _, name = layout.PARENTS[dim]
        with self.reading() as file:
            return file[layout.INDEX][name][()] if name in file[layout.INDEX] else None

    @contextmanager
    def reading(self) -> Iterator[h5py.File]:
        """Give the open file; what goes wrong with it becomes one line."""
        if not self.is_open:
            raise VihierError(f"{self.path}: this posterior was closed; open it again")
        with opening.reading(self.path):
            yield self._file

    @property
    def is_open(self) -> bool:
        """Whether the file can still be read."""
        return bool(self._file)

    def close(self) -> None:
        """Close the file, and remove the directory it owns."""
        self._finalizer()

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of the file."""
        with self.reading() as file:
            return tuple(file)

    @property
    def not_identified(self) -> dict[str, str]:
        """Variables the data say nothing about, each with the reason."""
        reasons = self.attrs.get("not_identified_reasons", {})
        return {name: reasons.get(name) or "not identified" for name in self.attrs["not_identified"]}

    def size(self, dim: str) -> int:
        """Length of a dimension, chain and draw included, without reading its labels."""
        with self.reading() as file:
            return next(file[g][dim].shape[0] for g in (layout.POSTERIOR, layout.INDEX) if dim in file[g])

    def resolve(self, var: str, selection: Selection, *, lenient: bool = False) -> list[np.ndarray | None]:
        """Positions along each index dim of `var` (None: all); `lenient` passes over dims it does not have."""
        if var not in self.variables:
            hint = nearest(var, list(self.variables)) or f"; there are {', '.join(self.variables)}"
            raise VihierError(f"no variable {shown(var)} in {self.path}{hint}")
        return self.index.resolve(var, self.variables[var], selection, lenient=lenient)

    def has_draws(self, var: str) -> bool:
        """Whether draws of `var` can be had: stored, or regenerated."""
        return var not in self.attrs["regenerated"] or self._regenerate is not None

    def read_draws(self, var: str, positions: Sequence[np.ndarray | None]) -> np.ndarray:
        """Draws [chain, draw, ...] at the outer product of positions along the index dims of `var`."""
        if var not in self.attrs["regenerated"]:
            with self.reading() as file:
                dataset = file[layout.POSTERIOR][var]
                return read_at(dataset, [None, None, *positions], split_axis=2 if positions else 0)
        if self._regenerate is None:
            raise VihierError(f"draws of {var!r} are not stored in {self.path}; its moments are")
        sizes = [self.size(dim) for dim in self.variables[var]]
        whole = [np.arange(n) if p is None else p for p, n in zip(positions, sizes, strict=True)]
        with self.reading():
            return self._regenerate(var, whole)

    def read_moment(self, var: str, statistic: str, positions: Sequence[np.ndarray | None]) -> np.ndarray:
        """One statistic of group `moments` at the outer product of positions along the index dims of `var`."""
        with self.reading() as file:
            return np.asarray(read_at(file[layout.MOMENTS][f"{var}_{statistic}"], positions))

    def draws_dtype(self, var: str) -> np.dtype:
        """Type of the draws of `var`."""
        with self.reading() as file:
            return file[layout.POSTERIOR][var].dtype if var in file[layout.POSTERIOR] else np.dtype(np.float32)

    def coords(self, dims: Sequence[str], positions: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """Labels of what `positions` select along `dims`."""
        every = {dim: self.index.labels(dim) for dim in dims}
        return {d: every[d] if p is None else every[d][p] for d, p in zip(dims, positions, strict=True)}

    def sample_coords(self) -> dict[str, np.ndarray]:
        """Numbers of chains and draws."""
        with self.reading() as file:
            return {dim: file[layout.POSTERIOR][dim][()] for dim in layout.SAMPLE_DIMS}

    def group(self, name: str, only: Sequence[str] | None = None) -> xr.Dataset:
        """One of the small groups with labels, all of it or only some of its variables."""
        large = (layout.POSTERIOR, layout.MOMENTS)
        with self.reading() as file:
            if name not in file or name in large:
                known = ", ".join(group for group in file if group not in large)
                raise VihierError(f"{self.path}: no small group {shown(name)}; there are {known}")
            nodes = dict(file[name].items())
            wanted = [k for k, v in nodes.items() if not v.is_scale and (only is None or k in only)]
            return xr.Dataset(
                {k: (layout.dims_of(nodes[k]), _values(nodes[k])) for k in wanted},
                coords={k: (k, _values(v)) for k, v in nodes.items() if v.is_scale},
                attrs={k: v.item() if isinstance(v, np.generic) else v for k, v in file[name].attrs.items()},
            )


def _same(file: h5py.File) -> h5py.File:
    return file


def _values(dataset: h5py.Dataset) -> np.ndarray:
    """All values of a small dataset; text as str, flags as bool."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr()[()], dtype=object)
    values = np.asarray(dataset[()])
    return values.astype(bool) if dataset.attrs.get("dtype") == "bool" else values


def _release(file: h5py.File, tempdir: str | os.PathLike[str] | None) -> None:
    file.close()
    if tempdir is not None:
        shutil.rmtree(tempdir, ignore_errors=True)
