"""Draws that are not in a posterior file, made again from those that are; what `StoredPosterior` is given to do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from vihier.posterior import layout
from vihier.posterior.linear_forms import GENE, LINE, SGRNA, Places
from vihier.posterior.regeneration import Cells, Regeneration
from vihier.posterior.slabs import read_at

CELLS = "cells"
ELEMENTS_AT_ONCE = 4_000_000
"""Elements of an array over genes, lines and draws."""


class RegeneratedDraws:
    """Draws of the variables that a file lists as regenerated.

    Parameters
    ----------
    text : str
        Root attribute ``regeneration``.
    read : callable
        Gives the open file.

    Notes
    -----
    Bitwise the same whatever is asked for together, on one machine.
    """

    def __init__(self, text: str, read: Callable[[], h5py.File]) -> None:
        self._how = Regeneration.of_json(text)
        self._read = read
        self._maps: dict[str, Any] = {}

    def __call__(self, variable: str, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Draws [chain, draw, genes, lines] at the outer product of positions."""
        genes, lines = positions
        file = self._read()
        n_draws = file[layout.POSTERIOR]["draw"].shape[0]
        out = np.empty((1, n_draws, len(genes), len(lines)), dtype=np.float32)
        step = max(1, ELEMENTS_AT_ONCE // (n_draws * max(1, len(lines))))
        # In the order of the file, and rising: stored draws of neighbours lie together.
        order = np.argsort(genes, kind="stable")
        for first in range(0, len(genes), step):
            some = order[first : first + step]
            values = self._of_genes(file, variable, genes[some], lines)
            out[0][:, some] = np.moveaxis(values, -1, 0)
        return out

    def _of_genes(self, file: h5py.File, variable: str, genes: np.ndarray, lines: np.ndarray) -> np.ndarray:
        places = self._places(file, genes, lines)
        known = {name: self._stored(file, name, places) for name in self._how.needs(variable)}
        total = read_at(file[CELLS]["total"], [genes, lines])
        line_count = read_at(file[CELLS]["line_count"], [genes, None])
        count = np.zeros((0, len(lines)), dtype=np.uint8)
        if "count" in file[CELLS]:
            count = read_at(file[CELLS]["count"], [places.sgrnas, lines])
        return self._how.draws([variable], Cells(total, count, line_count), known, places)[variable]

    def _stored(self, file: h5py.File, name: str, places: Places) -> tuple[tuple[str, ...], np.ndarray]:
        """Read a variable's draws at the places, draws last."""
        dataset = file[layout.POSTERIOR][name]
        dims = layout.dims_of(dataset)[2:]
        # Lines are taken whole: what varies over them is averaged over all in some sums, and small.
        wanted = [places.of_dim(dim) if dim in (SGRNA, GENE) else None for dim in dims]
        values = read_at(dataset, [None, None, *wanted], split_axis=2 if dims else 0)[0]
        values = np.moveaxis(values, 0, -1)
        if LINE in dims:
            values = values.take(places.lines, dims.index(LINE))
        return dims, np.ascontiguousarray(values, dtype=np.float32)

    def _map(self, file: h5py.File, name: str) -> np.ndarray | None:
        if name not in self._maps:
            group = file[layout.INDEX]
            self._maps[name] = group[name][()] if name in group else None
        return self._maps[name]

    def _places(self, file: h5py.File, genes: np.ndarray, lines: np.ndarray) -> Places:
        of_sgrna = self._map(file, layout.PARENTS[SGRNA][1])
        assert of_sgrna is not None
        lineages = self._map(file, layout.PARENTS[LINE][1])
        place = np.full(file[layout.INDEX][GENE].shape[0], -1)
        place[genes] = np.arange(len(genes))
        sgrnas = np.flatnonzero(place[of_sgrna] >= 0)
        return Places(
            genes, lines, sgrnas, place[of_sgrna[sgrnas]], None if lineages is None else lineages[lines], lineages
        )
