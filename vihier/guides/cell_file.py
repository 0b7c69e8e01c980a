"""Gene blocks whose cells wait on disk: the rows are read once, and every later pass reads a few bytes a cell.

A screen of 144 million rows is 1.4 GB as rows and 0.4 GB as cells, of which memory holds one block for each thread.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vihier.guides.block import Block, make_block
from vihier.guides.structure import Structure
from vihier.inference.batches import GeneBlocks
from vihier.inference.threads import give_memory_back
from vihier.kernels.cells import GeneData

BLOCKS_BETWEEN = 16
"""Blocks of rows, some 20 MB of arrays each, after which freed memory goes back to the system."""
COUNT_TYPES = (np.uint8, np.uint16, np.uint32)


@dataclass(frozen=True)
class _Record:
    """Where a block's cells are, and everything of it that is small."""

    skeleton: Block
    shape: tuple[int, int, int]
    place: int
    count_type: np.dtype


class CellFile:
    """A fixed list of gene blocks, their cells in a nameless file that goes away with this object.

    Parameters
    ----------
    structure
        What the cells are for.
    batches
        All rows of the screen, by blocks of genes; they are read once, in order.
    dtype
        Of the blocks given out; cells are summed in the batches' own.
    folder
        Where there is room for five bytes a cell (nine in float64).
    done
        Told of each block that is summed.

    Raises
    ------
    OSError
        The disk is full.
    """

    def __init__(
        self,
        structure: Structure,
        batches: GeneBlocks,
        dtype: torch.dtype,
        folder: Path | None = None,
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.dtype = dtype
        self.n_genes, self.n_lines = batches.screen.n_genes, batches.screen.n_lines
        self.n_rows, self.n_sgrnas = batches.screen.n_rows, batches.screen.n_sgrnas
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".vihier-cells-")  # noqa: SIM115
        self._floats = np.dtype(str(dtype).removeprefix("torch."))
        self._records: list[_Record] = []
        self._rows: set[float] = set()
        place = 0
        for number, batch in enumerate(batches):
            block = make_block(structure, batch)
            record, content = self._record(block, place)
            for values in content:
                self._file.write(values.tobytes())
                place += values.nbytes
            self._records.append(record)
            self._rows |= set(block.data.line_count.unique().tolist())
            if number % BLOCKS_BETWEEN == 0:
                give_memory_back()
            done(number + 1)
        self._file.flush()
        give_memory_back()
        self.n_bytes = place

    def _record(self, block: Block, place: int) -> tuple[_Record, tuple[np.ndarray, np.ndarray]]:
        count, total = block.data.count.cpu().numpy(), block.data.total.cpu().numpy()
        largest = count.max(initial=0)
        count_type = next(np.dtype(kind) for kind in COUNT_TYPES if largest <= np.iinfo(kind).max)
        none = torch.zeros(0, dtype=torch.long, device=block.slot.device)
        batch = replace(block.batch, gene=none, sgrna=none, line=none, lfc=None, covariates={}, replicate=None)
        zero = block.data.count.new_zeros((), dtype=self.dtype)
        assert block.data.pairs is not None  # rows of one noise scale
        data = replace(
            block.data,
            count=zero.expand_as(block.data.count),
            total=zero.expand_as(block.data.total),
            pairs=zero.expand_as(block.data.pairs),
            square=block.data.square.to(self.dtype),
            lineage=self._shared_lineage(block.data.lineage),
        )
        record = _Record(replace(block, batch=batch, data=data), count.shape, place, count_type)
        return record, (
            np.ascontiguousarray(total, dtype=self._floats),
            np.ascontiguousarray(count, dtype=count_type),
        )

    def _shared_lineage(self, lineage: Tensor) -> Tensor:
        """Return the one copy that all blocks have of which line is in which lineage."""
        return self._records[0].skeleton.data.lineage if self._records else lineage.to(self.dtype)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def skeletons(self) -> list[Block]:
        """The blocks with zeros for cells, which take no room."""
        return [record.skeleton for record in self._records]

    def skeleton(self, number: int) -> Block:
        """Return a block with zeros for cells."""
        return self._records[number].skeleton

    def __getitem__(self, number: int) -> Block:
        """Read a block; any thread may."""
        record = self._records[number]
        skeleton, size = record.skeleton, int(np.prod(record.shape))
        n_bytes = size * (self._floats.itemsize + record.count_type.itemsize)
        content = os.pread(self._file.fileno(), n_bytes, record.place)
        total = np.frombuffer(content, dtype=self._floats, count=size).reshape(record.shape)
        count = np.frombuffer(content, dtype=record.count_type, offset=total.nbytes).reshape(record.shape)
        device = skeleton.slot.device
        counts = torch.as_tensor(count.astype(self._floats), device=device)
        totals = torch.tensor(total, device=device)
        i, j = torch.tril_indices(record.shape[1], record.shape[1], device=device)
        data: GeneData = replace(skeleton.data, count=counts, total=totals, pairs=counts[:, i] * counts[:, j])
        return replace(skeleton, data=data)

    @property
    def count_type(self) -> np.dtype:
        """Type that holds every cell's number of rows."""
        return max((record.count_type for record in self._records), key=lambda kind: kind.itemsize)

    @property
    def rows(self) -> Tensor:
        """Every number of rows that a gene has in a line, ascending."""
        return torch.tensor(sorted(self._rows), dtype=self.dtype, device=self._records[0].skeleton.slot.device)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
