"""Gene blocks of a store, the next one read while this one is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import overload

import torch

from vihier.inference.batches import ROWS_KEPT, GeneBlocks
from vihier.models.batch import Batch
from vihier.store.store import ScreenStore


class StoreBlocks(GeneBlocks):
    """The `GeneBlocks` of a store, equal to those of the screen in memory.

    Where blocks are asked for one after another, the next one is made in a thread meanwhile. Memory holds two blocks,
    or all of them where the store is small enough.

    Parameters
    ----------
    store
        Stays open as long as blocks are asked for.
    genes_per_block, device, dtype
        As for `GeneBlocks`.

    Raises
    ------
    VihierError
        If `genes_per_block` is not positive.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vihier import simulate
    >>> from vihier.store.pack import pack
    >>> folder = Path(tempfile.mkdtemp())
    >>> table = simulate(folder / "screen.parquet", genes=5, lines=4, seed=1).table
    >>> blocks = StoreBlocks(pack(table, folder / "screen.h5"), genes_per_block=2)
    >>> [len(block.gene_idx) for block in blocks], blocks[1].gene_idx.tolist()
    ([2, 2, 1], [2, 3])
    """

    def __init__(
        self,
        store: ScreenStore,
        genes_per_block: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(store, genes_per_block, device, dtype)
        # All blocks are made in this one thread, so that nothing of the slicer or the file is shared between two.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blocks")
        self._coming: tuple[int, Future[Batch]] | None = None
        self._expected = 0

    @overload
    def __getitem__(self, number: int) -> Batch: ...

    @overload
    def __getitem__(self, number: slice) -> list[Batch]: ...

    def __getitem__(self, number: int | slice) -> Batch | list[Batch]:
        """Return block `number`: its rows, its genes, their sgRNAs, and every line."""
        if isinstance(number, slice):
            return list(self.in_order(range(*number.indices(len(self)))))
        if not -len(self) <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        number %= len(self)
        following = (number + 1) % len(self)
        in_turn, self._expected = number == self._expected, following
        return self._take(number, following if in_turn else None)

    def __iter__(self) -> Iterator[Batch]:
        return self.in_order(range(len(self)))

    def in_order(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """Yield these blocks, each made while the one before it is used."""
        listed = list(numbers)
        for number, following in zip(listed, [*listed[1:], None], strict=True):
            yield self._take(number, following)

    def _take(self, number: int, following: int | None) -> Batch:
        batch = self._kept.get(number)
        if batch is None:
            coming, self._coming = self._coming, None
            batch = (coming[1] if coming and coming[0] == number else self._pool.submit(self._cut, number)).result()
            if self.screen.n_rows <= ROWS_KEPT:
                self._kept[number] = batch
        if following is not None and following != number and following not in self._kept:
            self._coming = following, self._pool.submit(self._cut, following)
        return batch
