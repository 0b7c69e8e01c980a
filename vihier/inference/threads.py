"""Work that falls into independent parts, a part a thread; the answer does not depend on how many threads there are."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, MAPPED_FROM_BYTES = 1 << 30, 32 << 20

AHEAD = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


_cores: int | None = None  # what `one_thread` leaves free for `in_threads`
_here = threading.local()


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> Generator[Result, None, None]:
    """Yield what a function makes of each item, in their order, without gradients.

    On the CPU as many items are worked on at once as torch has threads, each by one thread; on other devices, and
    within such a thread, one after the other. Random numbers must be keyed to the item.

    Examples
    --------
    >>> list(in_threads(lambda x: 2 * x, [1, 2, 3], torch.device("cpu")))
    [2, 4, 6]
    """

    def alone(item: Item) -> Result:
        _here.busy = True
        with torch.no_grad():  # of this thread only
            return function(item)

    threads = min(_cores or torch.get_num_threads(), len(items))
    if threads < 2 or device.type != "cpu" or getattr(_here, "busy", False):
        for item in items:
            with torch.no_grad():  # not around the yield: whoever takes may leave before the end
                result = function(item)
            yield result
        return
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        # So many results wait at most: whoever takes them may be slower than those who make them.
        coming = iter(items)
        waiting = deque(pool.submit(alone, item) for item in islice(coming, AHEAD * threads))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(alone, item) for item in islice(coming, 1))
            yield result


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch use one thread for each operation: more are slower on small tensors, many times where cores are busy.

    `in_threads` still uses as many as there were.

    Examples
    --------
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    global _cores
    before, cores = torch.get_num_threads(), _cores
    _cores = cores or before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _cores = cores


def give_memory_back() -> None:
    """Have the C library give what is freed back to the system, where arrays of many sizes have left it in pieces.

    Only glibc can be asked to; elsewhere nothing happens.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def keep_freed_memory() -> None:
    """Have the C library keep what is freed instead of giving it back to the system, which costs a third of a fit.

    Tensors of some megabytes come and go with every operation, and each that is new to the process is faulted in page
    by page. No more is kept than was in use at once. Only glibc has this setting; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
