"""Groups of draws, each of which by itself covers the widest directions evenly."""

from __future__ import annotations

GROUP = 125
"""Draws in a group."""


def groups_of(n_draws: int) -> list[slice]:
    """Cut draws into groups.

    Examples
    --------
    >>> groups_of(300)
    [slice(0, 125, None), slice(125, 250, None), slice(250, 300, None)]
    """
    return [slice(first, min(first + GROUP, n_draws)) for first in range(0, n_draws, GROUP)]
