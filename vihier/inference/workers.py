"""The processes that fit one screen together, started by torchrun: who does which part, and what they tell each other.

Each worker reads and visits the blocks of its own genes; what genes share is known to all. What others have to know
of a worker's genes is put into its rows of a table that is zero elsewhere, and the tables are added: a sum with zeros
is exact in any order, so that no bit depends on how many workers there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vihier.errors import FitError, Stopped, VihierError

# A worker that dies closes its connections, which the others notice at once; one that packs a table may take hours.
PATIENCE = timedelta(hours=12)
BY_LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """A worker among `count`, the first of which is 0.

    Examples
    --------
    >>> [list(Workers(rank, 3).share(7)) for rank in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    >>> Workers().any(False), Workers().in_turn(lambda: "made")
    (False, 'made')
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks, and writes what there is one of."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Return which of n things in a row are this worker's."""
        return range(self.rank * n // self.count, (self.rank + 1) * n // self.count)

    def device(self, device: torch.device) -> torch.device:
        """Return this worker's own device of the kind given.

        Raises
        ------
        VihierError
            More workers on this machine than GPUs.
        """
        if self.count == 1 or device.type != "cuda" or device.index is not None:
            return device
        local, n_devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= n_devices:
            raise VihierError(
                f"worker {self.rank}: is number {local + 1} on this machine, where torch sees {n_devices} CUDA "
                "device(s); start as many workers as there are, or give --device cpu"
            )
        return torch.device("cuda", local)

    def add_up(self, *tables: Tensor) -> None:
        """Add all workers' tables, in place: each has its own rows filled, and zeros elsewhere.

        Raises
        ------
        FitError
            Another worker has ended, as in all that follows.
        """
        for table in tables if self.count > 1 else ():
            with _connected():
                dist.all_reduce(table)

    def as_first(self, *tables: Tensor) -> None:
        """Replace tables by those of the first worker, in place: processors may differ in how they round."""
        for table in tables if self.count > 1 else ():
            with _connected():
                dist.broadcast(table, 0)

    def any(self, flag: bool) -> bool:
        """Whether any worker says so."""
        if self.count == 1:
            return flag
        said = torch.tensor([int(flag)])
        self.add_up(said)
        return bool(said.item())

    def wait(self) -> None:
        """Wait until all workers are here."""
        self.any(False)

    def gathered(self, value: T) -> list[T]:
        """Return what each worker has, of anything that can be pickled."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _connected():
            dist.all_gather_object(found, value)
        return found

    def by_first(self, make: Callable[[], T]) -> T:
        """Return what the first worker makes, for which the others wait.

        Raises
        ------
        Stopped
            On the others, where the first failed; it says why.
        """
        if self.count == 1:
            return make()
        made: list[Any] = [None, False]
        if self.is_first:
            try:
                made = [make(), True]
            finally:
                self._tell(made)
        else:
            self._tell(made)
        if not made[1]:
            raise Stopped("the first worker was refused")
        return made[0]

    def in_turn(self, make: Callable[[], T]) -> T:
        """Have the first worker make something, and then each of the others: what is refused is refused once."""
        made: list[T] = []
        self.by_first(lambda: made.append(make()))
        return made[0] if made else make()

    def _tell(self, content: list[Any]) -> None:
        with _connected():
            dist.broadcast_object_list(content, 0)


ALONE = Workers()


@contextmanager
def joined() -> Iterator[Workers]:
    """Join the workers that a launcher such as torchrun has started, by the variables that it has set; else be alone.

    Raises
    ------
    VihierError
        They do not find each other.
    """
    if any(name not in os.environ for name in BY_LAUNCHER) or int(os.environ["WORLD_SIZE"]) < 2:
        yield ALONE
        return
    there = dist.is_initialized()
    if not there:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())[:120]
            raise VihierError(f"the workers do not find each other ({text}); start them with torchrun") from error
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        if not there:
            dist.destroy_process_group()


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise FitError(
            "another worker has ended, and so has this fit: look for what that one said; where there is a checkpoint, "
            "go on with --resume"
        ) from error
