"""Gene blocks whose cells wait on disk: the rows are read once, and every later pass reads a few bytes a cell.

A screen of 144 million rows is 1.4 GB as rows and 0.4 GB as cells, of which memory holds one block for each thread.
Where sums over cells do not say all, the rows themselves wait there, sorted by cell: some six bytes each.
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
from vihier.guides.pass_sums import blocks_of_worker
from vihier.guides.structure import Structure
from vihier.inference.batches import GeneBlocks
from vihier.inference.threads import give_memory_back, one_thread
from vihier.inference.workers import ALONE, Workers
from vihier.kernels.cells import GeneData
from vihier.kernels.rows import table_of_cells

BLOCKS_BETWEEN = 16
"""Blocks of rows, some 20 MB of arrays each, after which freed memory goes back to the system."""
COUNT_TYPES = (np.uint8, np.uint16, np.uint32)
CODES = ("noise", "freedom")


@dataclass(frozen=True)
class _Record:
    """Where a block's cells are, and everything of it that is small."""

    skeleton: Block
    shape: tuple[int, int, int]
    place: int
    types: tuple[np.dtype, ...]
    codes: tuple[str, ...] | None
    n_rows: int

    @property
    def count_type(self) -> np.dtype:
        """Type of the numbers of rows."""
        return self.types[1]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of what is in the file: sums and numbers of rows by cell; or each row, these numbers, codes."""
        size = int(np.prod(self.shape))
        return (size if self.codes is None else self.n_rows, size, *[self.n_rows] * (len(self.types) - 2))


class CellFile:
    """A fixed list of gene blocks, their cells in a nameless file that goes away with this object.

    Of several workers each has the blocks of its own part in its file, and reads another's when it is asked for.

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
    workers
        Among whom the blocks are shared.

    Attributes
    ----------
    mine : list of int
        This worker's blocks.
    rows : Tensor
        Every number of rows that a gene has in a line, ascending.
    count_type : numpy.dtype
        Type that holds every cell's number of rows.
    sizes : list of tuple of int
        Genes of each block, the most sgRNAs that one has in a cell's table, and all sgRNAs; those of other workers too.

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
        workers: Workers = ALONE,
    ) -> None:
        self.dtype, self.workers = dtype, workers
        self.n_genes, self.n_lines = batches.screen.n_genes, batches.screen.n_lines
        self.n_rows, self.n_sgrnas = batches.screen.n_rows, batches.screen.n_sgrnas
        self._structure, self._batches = structure, batches
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".vihier-cells-")  # noqa: SIM115
        self._floats = np.dtype(str(dtype).removeprefix("torch."))
        self._records: dict[int, _Record] = {}
        self.n_bytes = 0
        self.mine = blocks_of_worker(workers, len(batches))
        found: set[float] = set()
        for at, number in enumerate(self.mine):
            block = self._take(number)
            found |= set(np.unique(block.data.line_count.cpu().numpy()).tolist())
            if at % BLOCKS_BETWEEN == 0:
                give_memory_back()
            done(at + 1)
        give_memory_back()
        largest = max(record.count_type.itemsize for record in self._records.values())
        sizes = [_sizes_of(self._records[number].skeleton) for number in self.mine]
        told = workers.gathered((found, largest, sizes))
        self.rows = torch.tensor(
            sorted(set().union(*(rows for rows, _, _ in told))), dtype=self.dtype, device=self.skeleton(0).slot.device
        )
        largest = max(size for _, size, _ in told)
        self.sizes = [each for _, _, of_worker in told for each in of_worker]
        self.count_type = next(np.dtype(kind) for kind in COUNT_TYPES if np.dtype(kind).itemsize == largest)

    def _take(self, number: int) -> Block:
        """Read a block's rows, put its cells at the end of the file, and return it."""
        with one_thread():
            block = make_block(self._structure, self._batches[number])
            self._batches.forget()
            record, content = self._record(block, self.n_bytes)
        for values in content:
            self._file.write(values.tobytes())
            self.n_bytes += values.nbytes
        self._file.flush()
        self._records[number] = record
        return block

    def _record(self, block: Block, place: int) -> tuple[_Record, list[np.ndarray]]:
        count, total, rows = block.data.count.cpu().numpy(), block.data.total.cpu().numpy(), block.rows
        none = torch.zeros(0, dtype=torch.long, device=block.slot.device)
        batch = replace(block.batch, gene=none, sgrna=none, line=none, lfc=None, covariates={}, replicate=None)
        zero = block.data.count.new_zeros((), dtype=self.dtype)
        assert block.data.pairs is not None
        data = replace(
            block.data,
            count=zero.expand_as(block.data.count),
            total=zero.expand_as(block.data.total),
            pairs=zero.expand_as(block.data.pairs),
            square=block.data.square.to(self.dtype),
            lineage=self._shared_lineage(block.data.lineage),
        )
        content = [total.astype(self._floats), count.astype(_least_type(count))]
        codes = None
        if rows is not None:
            found = {name: x.cpu().numpy() for name in CODES if (x := getattr(rows, name)) is not None}
            content[0] = rows.lfc.cpu().numpy()
            content += [x.astype(_least_type(x)) for x in found.values()]
            codes = tuple(found)
        skeleton = replace(block, batch=batch, data=data, rows=None)
        types = tuple(x.dtype for x in content)
        return _Record(skeleton, count.shape, place, types, codes, len(content[0])), content

    def _shared_lineage(self, lineage: Tensor) -> Tensor:
        """Return the one copy that all blocks have of which line is in which lineage."""
        first = next(iter(self._records.values()), None)
        return lineage.to(self.dtype) if first is None else first.skeleton.data.lineage

    def __len__(self) -> int:
        return len(self._batches)

    def skeleton(self, number: int) -> Block:
        """Return a block with zeros for cells, which take no room."""
        if number not in self._records:
            self._take(number)
        return self._records[number].skeleton

    def __getitem__(self, number: int) -> Block:
        """Read a block; any thread may, one of another worker only the first."""
        skeleton = self.skeleton(number)
        record = self._records[number]
        n_bytes = sum(n * kind.itemsize for n, kind in zip(record.lengths, record.types, strict=True))
        content = os.pread(self._file.fileno(), n_bytes, record.place)
        parts, place = [], 0
        for n, kind in zip(record.lengths, record.types, strict=True):
            parts.append(np.frombuffer(content, dtype=kind, count=n, offset=place))
            place += n * kind.itemsize
        device = skeleton.slot.device
        counts = torch.as_tensor(parts[1].reshape(record.shape).astype(self._floats), device=device)
        if record.codes is not None:
            lengths = torch.tensor(parts[1].astype(np.int64), device=device)
            codes = [torch.tensor(part.astype(np.int64), device=device) for part in parts[2:]]
            given = dict(zip(record.codes, codes, strict=True))
            rows = table_of_cells(lengths, torch.tensor(parts[0], device=device), record.shape, **given)
            return replace(skeleton, data=replace(skeleton.data, count=counts), rows=rows)
        totals = torch.tensor(parts[0].reshape(record.shape), device=device)
        i, j = torch.tril_indices(record.shape[1], record.shape[1], device=device)
        data: GeneData = replace(skeleton.data, count=counts, total=totals, pairs=counts[:, i] * counts[:, j])
        return replace(skeleton, data=data)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def _sizes_of(block: Block) -> tuple[int, int, int]:
    return (*block.data.count.shape[:2], len(block.slot))


def _least_type(values: np.ndarray) -> np.dtype:
    """Return the smallest type that holds whole numbers."""
    largest = values.max(initial=0)
    return next(np.dtype(kind) for kind in COUNT_TYPES if largest <= np.iinfo(kind).max)
