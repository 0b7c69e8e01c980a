"""Draws that are not in a posterior file, made again from those that are; what `StoredPosterior` is given to do it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np

from vihier.posterior import layout
from vihier.posterior.linear_forms import GENE, LINE, SGRNA, Places
from vihier.posterior.regeneration import Cells, Regeneration
from vihier.posterior.slabs import read_at

CELLS = "cells"
THREADS = min(4, os.cpu_count() or 1)
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
        parts = [order[first : first + step] for first in range(0, len(genes), step)]
        # sgRNAs are sorted by label: those of many genes lie all over, and every part would read them all again.
        everything: dict[str, np.ndarray] | None = {} if len(parts) > 1 else None
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
            for part in parts:
                if len(waiting) > THREADS:
                    _put(out, *waiting.popleft())
                cells, known, places = self._made_of(file, variable, genes[part], lines, everything)
                waiting.append((part, pool.submit(self._make, variable, cells, known, places)))
            while waiting:
                _put(out, *waiting.popleft())
        return out

    def _made_of(
        self,
        file: h5py.File,
        variable: str,
        genes: np.ndarray,
        lines: np.ndarray,
        everything: dict[str, np.ndarray] | None,
    ) -> tuple[Cells, dict[str, tuple[tuple[str, ...], np.ndarray]], Places]:
        """Read what draws of some genes are made of."""
        places = self._places(file, genes, lines)
        known = {name: self._stored(file, name, places, everything) for name in self._how.needs(variable)}
        if self._how.kept:
            steps = read_at(file[CELLS]["deviation"], [genes, lines, None])
            step = read_at(file[CELLS]["deviation_step"], [genes])
            return Cells.of_kept(steps * step[:, None, None]), known, places
        total = read_at(file[CELLS]["total"], [genes, lines])
        line_count = read_at(file[CELLS]["line_count"], [genes, None])
        count = np.zeros((0, len(lines)), dtype=np.uint8)
        if "count" in file[CELLS]:
            count = read_at(file[CELLS]["count"], [places.sgrnas, lines])
        return Cells(total, count, line_count), known, places

    def _make(
        self, variable: str, cells: Cells, known: dict[str, tuple[tuple[str, ...], np.ndarray]], places: Places
    ) -> np.ndarray:
        return self._how.draws([variable], cells, known, places)[variable]

    def _stored(
        self, file: h5py.File, name: str, places: Places, everything: dict[str, np.ndarray] | None
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read a variable's draws at the places, draws last."""
        dataset = file[layout.POSTERIOR][name]
        dims = layout.dims_of(dataset)[2:]
        if everything is not None and SGRNA in dims:
            if name not in everything:
                everything[name] = np.moveaxis(read_at(dataset, [None] * dataset.ndim, split_axis=2)[0], 0, -1)
            return dims, np.ascontiguousarray(everything[name][places.sgrnas], dtype=np.float32)
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


def _put(out: np.ndarray, part: np.ndarray, made: Future[np.ndarray]) -> None:
    out[0][:, part] = np.moveaxis(made.result(), -1, 0)
