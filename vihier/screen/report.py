"""What reading a screen did: rows read, kept and dropped, columns used, and what deserves a second look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ReadReport:
    """Account of how a table became a screen.

    Attributes
    ----------
    source
        The file, or ``"DataFrame"``.
    n_rows_read, n_rows_kept
        Rows of the table, and rows of the screen.
    dropped
        Reason to number of rows dropped for it; the values sum to ``n_rows_read - n_rows_kept``.
    warnings
        One sentence for each thing a user should look at.
    columns
        Column of the screen to the table's own name for it, for every column that was read.
    ignored
        Column of the table to the reason why it was not carried.
    layout
        Name of a historic layout, where the table has it.
    exact_copies
        Rows equal to another in every column, in a table without ``replicate_id``; they are kept.

    Examples
    --------
    >>> report = ReadReport("screen.csv", 3, 2, {"missing lfc": 1}, columns={"lfc": "LFC"})
    >>> print(report)
    screen.csv: 3 rows read, 2 kept
    dropped: 1 row, missing lfc
    columns: lfc (from 'LFC')
    """

    source: str
    n_rows_read: int
    n_rows_kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    layout: str | None = None
    exact_copies: int = 0

    def lines(self) -> list[str]:
        """Return the report as short lines of text for a person."""
        lines = [f"{self.source}: {counted(self.n_rows_read, 'row')} read, {self.n_rows_kept:,} kept"]
        if self.layout is not None:
            lines.append(f"layout: {self.layout}")
        lines += [f"dropped: {counted(count, 'row')}, {reason}" for reason, count in self.dropped.items() if count]
        if self.columns:
            names = (ours if ours == theirs else f"{ours} (from {theirs!r})" for ours, theirs in self.columns.items())
            lines.append("columns: " + ", ".join(names))
        lines += [f"ignored: column {name!r}, {reason}" for name, reason in self.ignored.items()]
        lines += [f"warning: {text}" for text in self.warnings]
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def counted(count: int, noun: str) -> str:
    """Return ``'1 row'`` or ``'2,000 rows'``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
