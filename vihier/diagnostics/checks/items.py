"""One answer of the list: what was asked, how it came out, and the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Item:
    """An item of the list.

    Attributes
    ----------
    name
        What is asked.
    status
        `pass`, `warn` (read the sentence before trusting what it concerns) or `fail`.
    sentence
        What was found, with the figures.
    figures
        The figures by name.
    """

    name: str
    status: Status
    sentence: str
    figures: Mapping[str, float | str] = field(default_factory=dict)


def judged(value: float, warn: float, fail: float) -> Status:
    """Judge a figure of which less is better; one that is not a number fails.

    Examples
    --------
    >>> judged(0.1, 0.2, 0.5), judged(0.3, 0.2, 0.5), judged(float("nan"), 0.2, 0.5)
    ('pass', 'warn', 'fail')
    """
    if value < warn:
        return "pass"
    return "warn" if value < fail else "fail"


def listed(names: list[str], most: int = 5) -> str:
    """Name some things in a sentence, the first few of many.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
