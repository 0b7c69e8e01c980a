"""Work done one step ahead, in a thread: the next chunk is read while this one is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the items of an iterator whose next item is always being made, in another thread.

    What it raises is raised when its turn comes. Arrow, HDF5 and NumPy let other threads run while they work.

    Examples
    --------
    >>> list(one_ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = pool.submit(_next, items)
        while item := coming.result():
            coming = pool.submit(_next, items)
            yield item[0]
    finally:
        # Also where whoever takes the items stops early: nothing of theirs goes on behind its back.
        pool.shutdown(wait=True)
        if isinstance(items, Generator):
            items.close()


def _next(items: Iterator[T]) -> tuple[T] | None:
    # Not StopIteration, which a future cannot carry.
    for item in items:
        return (item,)
    return None
