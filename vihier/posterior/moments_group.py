"""Group `moments` of a posterior file in the making."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from vihier.posterior import layout
from vihier.posterior.moments import HDI_PROB, STATISTICS
from vihier.posterior.partial import set_attrs
from vihier.posterior.slabs import write_at

# Up to this many elements (8 MB with eight statistics) a variable's moments wait in memory: sgRNAs are sorted by label,
# so a block of genes scatters its sgRNAs over the whole index, and each would be eight requests of four bytes.
_BUFFERED_ELEMENTS = 262_144


class MomentsGroup:
    """Datasets ``V_mean, V_sd, ...`` for each variable V, with V's index dims.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    labels : mapping of str to ndarray
        Labels of each dimension.
    """

    def __init__(self, file: h5py.File, labels: Mapping[str, np.ndarray]) -> None:
        self._file = file
        self._labels = labels
        self._waiting: dict[str, np.ndarray] = {}

    def add(self, name: str, dims: Sequence[str]) -> None:
        """Create the datasets of one variable."""
        group = self._file.require_group(layout.MOMENTS)
        set_attrs(group, {"hdi_prob": HDI_PROB})
        for dim in dims:
            layout.make_scale(group, dim, self._labels[dim])
        for statistic in STATISTICS:
            dataset = layout.make_variable(group, f"{name}_{statistic}", dims, np.float32)
            if dims and dataset.size <= _BUFFERED_ELEMENTS:
                self._waiting[f"{name}_{statistic}"] = np.zeros(dataset.shape, dtype=np.float32)

    def put(self, name: str, moments: Mapping[str, np.ndarray], positions: np.ndarray) -> None:
        """Store the moments of some elements, at positions of the first index dim."""
        for statistic in STATISTICS:
            block = np.asarray(moments[statistic]).astype(np.float32)
            waiting = self._waiting.get(f"{name}_{statistic}")
            if waiting is not None:
                waiting[positions] = block
            else:
                write_at(self._file[layout.MOMENTS][f"{name}_{statistic}"], block, positions, axis=0)

    def flush(self) -> None:
        """Write what was waiting in memory."""
        for name, values in self._waiting.items():
            self._file[layout.MOMENTS][name][...] = values
        self._waiting.clear()
