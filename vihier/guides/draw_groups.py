"""Groups of draws or chains that threads and workers take: what is in a group does not depend on who takes it."""

from __future__ import annotations

GROUP = 125
"""Draws in a group: each group by itself covers the widest directions evenly."""
FEWEST_CHAINS, FEWEST_ELEMENTS = 4, 128_000
"""Chains in a group, and elements of its arrays, from which calls cost less than what they do."""


def groups_of(n_draws: int) -> list[slice]:
    """Cut draws into groups.

    Examples
    --------
    >>> groups_of(300)
    [slice(0, 125, None), slice(125, 250, None), slice(250, 300, None)]
    """
    return [slice(first, min(first + GROUP, n_draws)) for first in range(0, n_draws, GROUP)]


def groups_of_chains(n_chains: int, elements: int) -> list[slice]:
    """Cut chains, with so many elements in an array of one, into groups that are worth a thread each.

    Examples
    --------
    >>> groups_of_chains(16, 200_000)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 12, None), slice(12, 16, None)]
    >>> groups_of_chains(16, 100)
    [slice(0, 16, None)]
    """
    size = max(FEWEST_CHAINS, -(-FEWEST_ELEMENTS // max(1, elements)))
    return [slice(first, min(first + size, n_chains)) for first in range(0, n_chains, size)]
