"""How a fault is worded: one line that names the source, the column, the row, the value and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from vihier.errors import VihierError

LONGEST_VALUE = 60


def fault(*parts: str, cure: str) -> VihierError:
    """Return the error to raise: the parts joined by ``": "``, then the cure.

    Examples
    --------
    >>> print(fault("screen.csv", "column 'lfc', line 17", "value 'abc' is not a number", cure="write NA"))
    screen.csv: column 'lfc', line 17: value 'abc' is not a number; write NA
    """
    return VihierError(one_line(": ".join(parts) + f"; {cure}"))


def no_rows(source: str) -> VihierError:
    """Return the error for a table that has a header only."""
    return fault(source, "the table has a header and no rows", cure="give at least one measured row")


def one_line(text: str) -> str:
    """Return the text with a space for each line break or other character that does not print."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shown(value: object) -> str:
    """Return a value as a message quotes it, shortened where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 4]}...{text[-1]}"


def nearest(name: str, known: Iterable[object]) -> str:
    """Return ``"; the nearest is 'X'"`` for the known name closest to this one, case apart, or an empty string."""
    by_case = {str(label).casefold(): str(label) for label in known}
    close = difflib.get_close_matches(name.casefold(), list(by_case), n=1, cutoff=0.5)
    return f"; the nearest is {shown(by_case[close[0]])}" if close else ""
