"""A file with a record for each gene block, which any process may write and read: what outlives a visit of a block."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]
Field = tuple[Shape, np.dtype]
"""Shape of a table, and the type that it has in the file."""


class BlockFile:
    """Records of blocks, each a few tables; the file is that of all workers, on a disk that they share.

    Parameters
    ----------
    path : Path
        Made where it is not there.
    fields : sequence of mapping
        Of each block, the tables of its record by name.
    n_slots : int
        Records of each block.

    Raises
    ------
    OSError
        The disk is full, as in all that follows.

    Examples
    --------
    >>> import tempfile
    >>> field = {"x": ((2,), np.dtype("f4"))}
    >>> file = BlockFile(Path(tempfile.mkdtemp()) / "x", [field, field], n_slots=3)
    >>> file.put(1, 2, {"x": torch.tensor([5.0, 6.0])})
    >>> file.get(1, 2)["x"].tolist()
    [5.0, 6.0]
    """

    def __init__(self, path: Path, fields: Sequence[Mapping[str, Field]], n_slots: int = 1) -> None:
        self.path, self.fields, self.n_slots = path, fields, n_slots
        sizes = [sum(_bytes_of(field) for field in of_block.values()) for of_block in fields]
        self._starts = [0, *np.cumsum(sizes).tolist()]
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._closing = weakref.finalize(self, os.close, self._descriptor)

    @property
    def n_bytes(self) -> int:
        """Size of the file once every record is in."""
        return self.n_slots * int(self._starts[-1])

    def put(self, block: int, slot: int, tables: Mapping[str, Tensor]) -> None:
        """Write a record."""
        parts = [
            np.ascontiguousarray(tables[name].cpu().numpy(), dtype=dtype).tobytes()
            for name, (_, dtype) in self.fields[block].items()
        ]
        view, place = memoryview(b"".join(parts)), slot * self._starts[-1] + self._starts[block]
        while view:
            written = os.pwrite(self._descriptor, view, place)
            view, place = view[written:], place + written

    def get(self, block: int, slot: int, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Read a record, or some tables of it, in float32."""
        place, found = slot * self._starts[-1] + self._starts[block], {}
        for name, field in self.fields[block].items():
            (shape, dtype), n_bytes = field, _bytes_of(field)
            if names is None or name in names:
                values = np.frombuffer(os.pread(self._descriptor, n_bytes, place), dtype=dtype).reshape(shape)
                found[name] = torch.from_numpy(values.astype(np.float32))
            place += n_bytes
        return found

    def sync(self) -> None:
        """Have the disk hold everything."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; it stays."""
        self._closing()


def _bytes_of(field: Field) -> int:
    return math.prod(field[0]) * field[1].itemsize
