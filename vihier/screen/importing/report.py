"""What an import did: what was read, what the fold changes are, what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vihier.screen.report import counted


@dataclass(frozen=True)
class ImportReport:
    """Account of how files became a long table.

    Attributes
    ----------
    out
        The table that was written.
    files
        What was read, one text for each library, then the tables of lineages and copy numbers.
    lfc
        What the column ``lfc`` is, in words.
    n_rows, n_genes, n_sgrnas, n_lines, n_replicates
        Sizes of the table.
    left_out
        What was left out, to how many of it.
    warnings
        One sentence for each thing a user should look at.

    Examples
    --------
    >>> left_out = {"sgRNAs without a gene": 1}
    >>> report = ImportReport("screen.csv", ("counts.csv",), "log2(reads + 1)", 8, 2, 4, 1, 2, left_out)
    >>> print(report)
    screen.csv: 8 rows, 2 genes, 4 sgRNAs, 1 line, 2 replicates
    read: counts.csv
    lfc: log2(reads + 1)
    left out: 1 sgRNAs without a gene
    """

    out: str
    files: tuple[str, ...]
    lfc: str
    n_rows: int
    n_genes: int
    n_sgrnas: int
    n_lines: int
    n_replicates: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the report as short lines of text for a person."""
        sizes = [(self.n_rows, "row"), (self.n_genes, "gene"), (self.n_sgrnas, "sgRNA"), (self.n_lines, "line")]
        listed = ", ".join(counted(*size) for size in [*sizes, (self.n_replicates, "replicate")])
        lines = [f"{self.out}: {listed}", *(f"read: {each}" for each in self.files), f"lfc: {self.lfc}"]
        lines += [f"left out: {count:,} {what}" for what, count in self.left_out.items() if count]
        return lines + [f"warning: {text}" for text in self.warnings]

    def __str__(self) -> str:
        return "\n".join(self.lines())
