"""The one place that knows ArviZ: `InferenceData` for ArviZ 0.x, xarray's `DataTree` for 1.x."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from vihier.errors import VihierError
from vihier.posterior.layout import SAMPLE_DIMS, SAMPLE_STATS
from vihier.posterior.selection import Selection

if TYPE_CHECKING:
    from vihier.posterior.stored import StoredPosterior


def to_arviz(post: StoredPosterior, selection: Selection) -> Any:
    """Posterior draws as the installed ArviZ takes them.

    Parameters
    ----------
    post : StoredPosterior
        An open posterior. With an empty selection it must stay open: variables are read when they are used.
    selection : mapping of dim to label or labels
        Applied to every variable it concerns; a dim that no variable has is refused.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        Groups ``posterior`` and, where the file has it, ``sample_stats``.
    """
    groups = {"posterior": _posterior_dataset(post, selection)}
    if SAMPLE_STATS in post.groups:
        groups[SAMPLE_STATS] = post.group(SAMPLE_STATS)
    with warnings.catch_warnings():
        # ArviZ 0.23 announces its successor at each import; both are handled here.
        warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
        arviz = importlib.import_module("arviz")
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(attrs=_plain(post), **groups)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(_plain(post))
    return tree


def _plain(post: StoredPosterior) -> dict[str, Any]:
    """Root attributes that netCDF can hold, so that the container can be saved as it is."""
    kept = ("model", "guide", "seed", "converged", "screen_hash", "created_at", "vihier_version")
    return {
        name: int(value) if isinstance(value, bool) else value for name, value in post.attrs.items() if name in kept
    }


def _posterior_dataset(post: StoredPosterior, selection: Selection) -> xr.Dataset:
    for dim in selection:
        post.index.labels(dim)
    names = [name for name in post.variables if post.has_draws(name)]
    if not names:
        raise VihierError(f"{post.path}: holds no draws; its moments are in post.moments")
    variables: dict[str, tuple[tuple[str, ...], Any]] = {}
    coords: dict[str, np.ndarray] = post.sample_coords()
    for name in names:
        dims = post.variables[name]
        positions = post.resolve(name, selection, lenient=True)
        values = post.read_draws(name, positions) if selection else indexing.LazilyIndexedArray(_LazyDraws(post, name))
        variables[name] = ((*SAMPLE_DIMS, *dims), values)
        coords |= post.coords(dims, positions)
    return xr.Dataset(variables, coords=coords)


class _LazyDraws(BackendArray):
    """Draws of one variable that are read when xarray asks for them."""

    def __init__(self, post: StoredPosterior, name: str) -> None:
        self._post, self._name = post, name
        self.shape = tuple(post.size(dim) for dim in (*SAMPLE_DIMS, *post.variables[name]))
        self.dtype = post.draws_dtype(name)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        asked = [k if isinstance(k, slice) else np.atleast_1d(k) for k in key]
        positions = [np.arange(size)[part] for part, size in zip(asked, self.shape, strict=True)]
        distinct = [np.unique(p, return_inverse=True) for p in positions]
        values = self._post.read_draws(self._name, [found for found, _ in distinct[2:]])
        values = values[distinct[0][0]][:, distinct[1][0]]
        for axis, (_, inverse) in enumerate(distinct):
            values = values.take(inverse, axis=axis)
        # xarray expects the axes that were asked for with a number to be gone.
        return values[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]
