"""Keys of rows that arrive in chunks: checked as they come, and as a whole over the distinct combinations of labels.

What `read_screen` asks of all rows at once (an sgRNA has one gene, a line one lineage, labels put together differ) is
asked here of a small table: each combination of labels in the order in which it was met first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from vihier.errors import VihierError
from vihier.screen.labels import ONE_LINEAGE, per_screen_sgrnas, replicate_labels, suspicious_genes
from vihier.screen.screen import ScreenIndex
from vihier.screen.validate import (
    EMPTY_COLUMN,
    KEYS,
    OPTIONAL_KEYS,
    TWO_GENES,
    Findings,
    Options,
    missing_key,
    nested_genes,
    nested_lineages,
    warn_of_labels,
)
from vihier.screen.values import Labels
from vihier.store.growing import GrowingLabels, GrowingPairs
from vihier.store.tables import Chunk, Tables

Named = Callable[[str, np.ndarray], Labels]


@dataclass(frozen=True, eq=False)
class KeyCodes:
    """Provisional codes of rows, int32 [n] each: (sgRNA, gene, screen), gene, and (line, replicate, screen)."""

    reagent: np.ndarray
    gene: np.ndarray
    replicate: np.ndarray


@dataclass(frozen=True, eq=False)
class Keys:
    """What the provisional codes stand for.

    Attributes
    ----------
    index
        All labels and maps, without categories; may hold labels that no row uses.
    sgrna_of_reagent, replicate_of_code
        int32 codes into the index.
    kept
        Whether the rows of a reagent are kept, bool.
    screens
        Labels of ``screen``, or None where the tables have none.
    screen_of_code
        int32 code into ``screens`` of each provisional replicate.
    """

    index: ScreenIndex
    sgrna_of_reagent: np.ndarray
    kept: np.ndarray
    replicate_of_code: np.ndarray
    screens: np.ndarray | None
    screen_of_code: np.ndarray


class KeyStream:
    """Reads the keys of chunks.

    Parameters
    ----------
    tables
        Where the chunks are from.
    names
        The columns that there are.
    options
        What the caller asked for.

    Attributes
    ----------
    rows_of_reagent, rows_of_replicate
        Number of rows of each provisional code so far.
    """

    def __init__(self, tables: Tables, names: Collection[str], options: Options) -> None:
        self.tables = tables
        self.options = options
        self.set_aside = options.single_lineage and "lineage" in names
        self.books = {
            name: GrowingLabels(key=True)
            for name in KEYS
            if name in names and not (name == "lineage" and options.single_lineage)
        }
        self.rows_of_reagent = np.zeros(0, dtype=np.int64)
        self.rows_of_replicate = np.zeros(0, dtype=np.int64)
        self._pairs = {name: GrowingPairs() for name in ("gene", "lineage", "replicate_id", "sgrna+", "replicate+")}
        self._missing: dict[str, Callable[[], VihierError]] = {}
        self._present: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Columns that are read."""
        return list(self.books)

    def read(self, chunk: Chunk, rows: np.ndarray) -> KeyCodes:
        """Return provisional codes of the rows of a chunk that are kept, [n].

        Raises
        ------
        VihierError
            A label that is missing where it must not be, or that is no label.
        """
        codes = {name: self._labels(name, chunk, rows) for name in self.books}
        places = chunk.first_row + rows
        none = np.full(len(rows), -1, dtype=np.int32)
        line, gene = codes["depmap_id"], codes["hugo_symbol"]
        if "lineage" in codes:
            self._pairs["lineage"].encode(line, codes["lineage"], places)
        reagent = self._pairs["gene"].encode(codes["sgrna"], gene, places)
        replicate = self._pairs["replicate_id"].encode(line, codes.get("replicate_id", none), places)
        if "screen" in codes:
            reagent = self._pairs["sgrna+"].encode(reagent, codes["screen"], places)
            replicate = self._pairs["replicate+"].encode(replicate, codes["screen"], places)
        self.rows_of_reagent = _added(self.rows_of_reagent, reagent)
        self.rows_of_replicate = _added(self.rows_of_replicate, replicate)
        return KeyCodes(reagent, gene, replicate)

    def _labels(self, name: str, chunk: Chunk, rows: np.ndarray) -> np.ndarray:
        column = chunk.columns[name]
        codes = self.books[name].encode(column)[rows]
        missing = codes < 0
        if missing.any():
            row = int(rows[np.argmax(missing)])
            # A column that is empty so far may be so to the end, and then counts as absent.
            self._missing.setdefault(name, lambda: missing_key(column, row))
        if name not in OPTIONAL_KEYS or not missing.all():
            self._present.add(name)
        if name in self._missing and name in self._present:
            raise self._missing[name]()
        return codes

    def finish(self, findings: Findings) -> Keys:
        """Check the combinations of all chunks, and return what the codes stand for.

        Raises
        ------
        VihierError
            An sgRNA with two genes, a line with two lineages, or labels that run together.
        """
        labels, ranks = {}, {}
        for name, book in self.books.items():
            if name in self._missing:
                findings.warnings.append(EMPTY_COLUMN.format(name))
            else:
                labels[name], ranks[name] = book.ranks()
        trimmed = {name: book.n_trimmed for name, book in self.books.items()}
        warn_of_labels(trimmed, self.set_aside, findings)
        findings.warnings += suspicious_genes(labels["hugo_symbol"])

        def named(name: str, codes: np.ndarray) -> Labels:
            return Labels(ranks[name][codes], labels[name])

        sgrnas, gene_of_sgrna, kept = self._sgrnas(named, findings)
        lineages = lineage_of_line = None
        if self.options.single_lineage:
            lineages = np.array([ONE_LINEAGE], dtype=object)
            lineage_of_line = np.zeros(len(labels["depmap_id"]), dtype=np.int64)
        elif "lineage" in labels:
            lineages, lineage_of_line = labels["lineage"], self._lineages(named)
        replicate, replicates, replicate_ids, line_of_replicate, screen = self._replicates(named)
        index = ScreenIndex(
            sgrnas=sgrnas.labels,
            genes=labels["hugo_symbol"],
            lines=labels["depmap_id"],
            lineages=lineages,
            replicates=replicates,
            gene_of_sgrna=gene_of_sgrna,
            lineage_of_line=lineage_of_line,
            line_of_replicate=line_of_replicate,
            replicate_ids=replicate_ids,
        )
        return Keys(index, sgrnas.codes, kept, replicate, labels.get("screen"), screen)

    def _sgrnas(self, named: Named, findings: Findings) -> tuple[Labels, np.ndarray, np.ndarray]:
        """Return each reagent's sgRNA, each sgRNA's gene, and which reagents are kept."""
        sequence, gene = self._pairs["gene"].table()
        pairs = self._pairs["gene"]
        by_screen = "screen" in self.books and "screen" not in self._missing
        if "screen" in self.books:
            pairs = self._pairs["sgrna+"]
            of_pair, screen = pairs.table()
            sequence, gene = sequence[of_pair], gene[of_pair]
        keys = {"sgrna": named("sgrna", sequence), "hugo_symbol": named("hugo_symbol", gene)}
        if by_screen and self.options.sgrna_per_screen:
            column = self.tables.column("sgrna")
            keys["sgrna"] = per_screen_sgrnas(column, keys["sgrna"], named("screen", screen), findings.warnings)
        columns = {"hugo_symbol": self.tables.column("hugo_symbol")}
        gene_of_sgrna, kept = nested_genes(columns, pairs.first_rows, keys, self.options, findings)
        if not kept.all():
            findings.dropped[TWO_GENES] = int(self.rows_of_reagent[~kept].sum())
        return keys["sgrna"], gene_of_sgrna, kept

    def _lineages(self, named: Named) -> np.ndarray:
        pairs = self._pairs["lineage"]
        line, lineage = pairs.table()
        keys = {"depmap_id": named("depmap_id", line), "lineage": named("lineage", lineage)}
        return nested_lineages({"lineage": self.tables.column("lineage")}, pairs.first_rows, keys)

    def _replicates(self, named: Named) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
        """Return what `replicate_labels` does of the provisional replicates, and each one's screen."""
        line, replicate_id = self._pairs["replicate_id"].table()
        screen = np.zeros(len(line), dtype=np.int32)
        if "screen" in self.books:
            of_pair, screen = self._pairs["replicate+"].table()
            line, replicate_id = line[of_pair], replicate_id[of_pair]
        there = self.books.keys() - self._missing.keys()
        screens = named("screen", screen) if "screen" in there else None
        made = replicate_labels(
            self.tables.column("depmap_id"),
            named("depmap_id", line),
            named("replicate_id", replicate_id) if "replicate_id" in there else None,
            screens,
        )
        return *made, screen if screens is None else screens.codes


def _added(counts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    more = np.bincount(codes, minlength=len(counts))
    more[: len(counts)] += counts
    return more
