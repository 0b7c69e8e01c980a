"""The screen: validated rows as integer codes and floats, and the index that gives the codes their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vihier.screen.content_hash import content_hash, order_of_ties
from vihier.screen.report import ReadReport, counted
from vihier.screen.rows import Rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ScreenIndex:
    """Labels and the maps between them.

    Labels are unique ``str`` in object arrays, sorted by Unicode code point; a code is a position in its array.

    Attributes
    ----------
    sgrnas
        [S]. A sequence that is in several ``screen`` s is ``SEQUENCE|screen``, only such ones.
    genes
        [G], the table's ``hugo_symbol``.
    lines
        [C], the table's ``depmap_id``.
    lineages
        [L], or None when the table has no lineage.
    replicates
        [R], ``LINE|REPLICATE`` or, with a ``screen`` column, ``LINE|REPLICATE|SCREEN``. A table without
        ``replicate_id`` does not say which rows belong together, so there its rows share ``LINE|all``.
    gene_of_sgrna
        int64 [S].
    lineage_of_line
        int64 [C], or None.
    line_of_replicate
        int64 [R].
    categories
        Labels of each categorical covariate, e.g. ``{"screen": [...], "p_dna_batch": [...]}``.
    replicate_ids
        [R], the table's own ``replicate_id`` (repeats between lines), or None when it has none.
    """

    sgrnas: np.ndarray
    genes: np.ndarray
    lines: np.ndarray
    lineages: np.ndarray | None
    replicates: np.ndarray
    gene_of_sgrna: np.ndarray
    lineage_of_line: np.ndarray | None
    line_of_replicate: np.ndarray
    categories: dict[str, np.ndarray] = field(default_factory=dict)
    replicate_ids: np.ndarray | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Screen:
    """A validated screen, its rows in canonical order.

    Rows are sorted by gene, sgRNA, line, screen, replicate, lfc, then covariates, so that a shuffled table gives the
    identical screen. Make one with :func:`vihier.read_screen`; its arrays are not to be written to.

    Attributes
    ----------
    index
        Labels and maps.
    sgrna, line, replicate
        int32 [N] codes.
    lfc
        float64 [N], log2 fold change.
    covariates
        Per row: float64 [N] (NaN is missing, booleans are 0 and 1), or int32 [N] codes into ``index.categories``
        (-1 is missing).
    report
        What was read, dropped and why.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import read_screen
    >>> table = pd.DataFrame({"sgrna": ["s1", "s2"], "hugo_symbol": "KRAS", "depmap_id": "ACH-1", "lfc": [0.5, -1.0]})
    >>> screen = read_screen(table)
    >>> screen.n_rows, screen.n_genes, list(screen.index.sgrnas)
    (2, 1, ['s1', 's2'])
    """

    index: ScreenIndex
    sgrna: np.ndarray
    line: np.ndarray
    replicate: np.ndarray
    lfc: np.ndarray
    covariates: dict[str, np.ndarray]
    report: ReadReport

    def __repr__(self) -> str:
        lineages = f", {counted(self.n_lineages, 'lineage')}" if self.n_lineages else ""
        counts = [(self.n_rows, "row"), (self.n_genes, "gene"), (self.n_sgrnas, "sgRNA"), (self.n_lines, "line")]
        return f"<Screen of {', '.join(counted(*each) for each in counts)}{lineages}>"

    @property
    def n_rows(self) -> int:
        """Number of rows, N."""
        return len(self.lfc)

    @property
    def n_genes(self) -> int:
        """Number of genes, G."""
        return len(self.index.genes)

    @property
    def n_sgrnas(self) -> int:
        """Number of sgRNAs, S."""
        return len(self.index.sgrnas)

    @property
    def n_lines(self) -> int:
        """Number of cell lines, C."""
        return len(self.index.lines)

    @property
    def n_lineages(self) -> int:
        """Number of lineages, L; 0 when the table has none."""
        return 0 if self.index.lineages is None else len(self.index.lineages)

    @property
    def n_replicates(self) -> int:
        """Number of replicates, R."""
        return len(self.index.replicates)

    @cached_property
    def gene(self) -> np.ndarray:
        """Gene code of every row, int32 [N]."""
        return self.index.gene_of_sgrna.astype(np.int32)[self.sgrna]

    @cached_property
    def gene_starts(self) -> np.ndarray:
        """Int64 [G + 1]: the rows of gene g are ``gene_starts[g]:gene_starts[g + 1]``."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.gene, minlength=self.n_genes))]).astype(np.int64)

    def rows_at(self, rows: slice | np.ndarray) -> Rows:
        """Return some rows, by position."""
        covariates = {name: values[rows] for name, values in self.covariates.items()}
        return Rows(
            self.gene[rows], self.sgrna[rows], self.line[rows], self.replicate[rows], self.lfc[rows], covariates
        )

    def rows_of(self, genes: slice) -> Rows:
        """Return all rows of consecutive genes, by code."""
        first, last, _ = genes.indices(self.n_genes)
        return self.rows_at(slice(int(self.gene_starts[first]), int(self.gene_starts[last])))

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) of the whole content: keys, lfc, lineage and every covariate."""
        lineage = [] if self.index.lineages is None else ["lineage"]
        return self.content_hash([*lineage, *self.covariates])

    def content_hash(self, columns: Iterable[str] = ()) -> str:
        """SHA-256 (hexadecimal) of the keys, ``lfc`` and the columns named; the order of the table's rows is no part.

        Parameters
        ----------
        columns
            Covariates, and ``"lineage"``, that count besides sgrna, hugo_symbol, depmap_id, replicate_id, screen (as
            far as it names replicates) and lfc. Their order is no part either.

        Raises
        ------
        VihierError
            A column that this screen does not have.
        """
        return content_hash(self.index, self.covariates, columns, _WholeColumns(self))

    def subset(
        self,
        *,
        genes: Sequence[str] | str | None = None,
        lines: Sequence[str] | str | None = None,
        lineages: Sequence[str] | str | None = None,
        n_genes: int | None = None,
        n_lineages: int | None = None,
        where: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Screen:
        """Return the screen of some of the rows, re-indexed; see :func:`vihier.screen.subset.subset`."""
        from vihier.screen.subset import subset

        return subset(
            self,
            genes=genes,
            lines=lines,
            lineages=lineages,
            n_genes=n_genes,
            n_lineages=n_lineages,
            where=where,
            seed=seed,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the long table with labels, one row a measurement, in canonical order.

        Columns are named as DESIGN's schema names them, covariates included. ``vihier.read_screen`` of the result
        gives this screen again.
        """
        import pandas as pd

        index = self.index
        columns: dict[str, np.ndarray] = {
            "sgrna": index.sgrnas[self.sgrna],
            "hugo_symbol": index.genes[self.gene],
            "depmap_id": index.lines[self.line],
        }
        if index.lineages is not None and index.lineage_of_line is not None:
            columns["lineage"] = index.lineages[index.lineage_of_line[self.line]]
        if index.replicate_ids is not None:
            columns["replicate_id"] = index.replicate_ids[self.replicate]
        columns["lfc"] = self.lfc
        for name, values in self.covariates.items():
            if name in index.categories:
                # -1 (missing) takes the None appended last.
                columns[name] = np.concatenate([index.categories[name], [None]])[values]
            else:
                columns[name] = values
        return pd.DataFrame(columns)


class _WholeColumns:
    """The rows of a screen as `content_hash` asks for them, each column in one piece."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.n_rows = screen.n_rows

    def keys(self) -> Iterator[Iterable[np.ndarray]]:
        screen = self.screen
        return ([values] for values in (screen.sgrna, screen.line, screen.replicate, screen.lfc))

    def covariates(self, names: Sequence[str]) -> Iterator[Iterable[np.ndarray]]:
        screen = self.screen
        columns = [screen.covariates[name] for name in names]
        order = order_of_ties((screen.sgrna, screen.line, screen.replicate, screen.lfc), columns)
        return ([values if order is None else values[order]] for values in columns)
