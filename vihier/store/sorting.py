"""From provisional codes, rows in the order of the tables, to the codes of the index, rows in canonical order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vihier.screen.assemble import canonical_floats, pruned
from vihier.screen.screen import ScreenIndex
from vihier.screen.validate import count_copies, duplicate_rows
from vihier.store.covariates import Covariate
from vihier.store.keys import Keys
from vihier.store.spill import N_BUCKETS, Spill
from vihier.store.tables import Tables

GROUP_ROWS = 1 << 20
"""Rows that are sorted at once, unless one bucket has more."""

SPARE = 1 << 20


@dataclass(frozen=True, eq=False)
class Codes:
    """The index, and what each provisional code stands for in it.

    Attributes
    ----------
    index
        Only labels that rows use.
    sgrna, replicate
        int32 code of each provisional one; -1 for a reagent whose rows are dropped.
    screen_of_replicate
        int32 [R] code into ``index.categories["screen"]``, or None.
    categories
        Name to int32 code of each provisional one, its last place for missing ones.
    rows_of_gene
        int64 [G].
    """

    index: ScreenIndex
    sgrna: np.ndarray
    replicate: np.ndarray
    screen_of_replicate: np.ndarray | None
    categories: dict[str, np.ndarray]
    rows_of_gene: np.ndarray


def spilled(covariate: str) -> str:
    """Return the name that a covariate has in a spill; a table's column may be called replicate."""
    return f"covariate {covariate}"


def final_codes(
    keys: Keys,
    covariates: Sequence[Covariate],
    rows_of_reagent: np.ndarray,
    rows_of_replicate: np.ndarray,
) -> Codes:
    """Return the index of the labels that rows use, and what the provisional codes are in it."""
    sgrnas, sgrna = _kept(keys.sgrna_of_reagent, (rows_of_reagent > 0) & keys.kept)
    replicates, replicate = _kept(keys.replicate_of_code, rows_of_replicate > 0)
    lines = np.unique(keys.index.line_of_replicate[replicates])
    labels, categories = {}, {}
    screen_of_replicate = None
    if keys.screens is not None:
        screens, screen = _kept(keys.screen_of_code, rows_of_replicate > 0)
        labels["screen"] = keys.screens[screens]
        screen_of_replicate = np.zeros(len(replicates), dtype=np.int32)
        used = replicate >= 0
        screen_of_replicate[replicate[used]] = screen[used]
    for each in covariates:
        if each.labels is not None:
            positions, categories[each.name] = _kept(each.rank, each.used)
            labels[each.name] = each.labels[positions]
            categories[each.name] = np.append(categories[each.name], np.int32(-1))
    index = pruned(keys.index, sgrnas, lines, replicates, dict(sorted(labels.items())))
    rows_of_gene = np.zeros(len(index.genes), dtype=np.int64)
    used = sgrna >= 0
    np.add.at(rows_of_gene, index.gene_of_sgrna[sgrna[used]], rows_of_reagent[used])
    return Codes(index, sgrna, replicate, screen_of_replicate, categories, rows_of_gene)


def _kept(code: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which codes are used, ascending, and the place among those of each provisional one, -1 where not used."""
    positions, place = np.unique(code[used], return_inverse=True)
    places = np.full(len(code), -1, dtype=np.int32)
    places[used] = place
    return positions, places


@dataclass(frozen=True, eq=False)
class SortedRows:
    """All rows of some genes, in canonical order.

    Attributes
    ----------
    sgrna, replicate
        int32 [n] codes.
    lfc
        float64 [n].
    covariates
        float64 [n], or int32 [n] codes.
    """

    sgrna: np.ndarray
    replicate: np.ndarray
    lfc: np.ndarray
    covariates: dict[str, np.ndarray]


class Sorter:
    """Sorts the rows of a spill, some buckets at a time.

    Parameters
    ----------
    spill
        Rows with the columns ``reagent``, ``replicate``, ``lfc`` and, `spilled`, the covariates.
    codes
        What the provisional codes are.
    covariates
        Names of the covariates, ascending.
    tables
        Where the rows are from, for messages.

    Attributes
    ----------
    copies
        Exact copies so far, where there is no ``replicate_id``.
    ties
        Whether there are rows equal in key and lfc so far.
    """

    def __init__(self, spill: Spill, codes: Codes, covariates: Sequence[str], tables: Tables) -> None:
        self.spill, self.codes, self.covariates, self.tables = spill, codes, list(covariates), tables
        self.copies = 0
        self.ties = False
        index = codes.index
        self._named = index.replicate_ids is not None
        self._place = np.empty(len(index.sgrnas), dtype=np.int64)
        self._place[np.argsort(index.gene_of_sgrna, kind="stable")] = np.arange(len(index.sgrnas))
        screen = np.zeros(len(index.replicates)) if codes.screen_of_replicate is None else codes.screen_of_replicate
        self._rank = np.empty(len(index.replicates), dtype=np.int64)
        self._rank[np.lexsort([screen, index.line_of_replicate])] = np.arange(len(index.replicates))  # then by label
        self._n_duplicates = 0
        self._first_duplicate: tuple[int, int, str, str] | None = None

    def groups(self) -> Iterator[SortedRows]:
        """Yield all rows, genes in no order, the rows of a gene together and genes ascending within a group.

        Raises
        ------
        VihierError
            Two rows of one sgRNA, replicate and screen; after all rows have been looked at.
        """
        for buckets in self._bucket_groups():
            rows = self._sorted(buckets)
            if rows is not None and not self._n_duplicates:
                yield rows
        if self._first_duplicate is not None:
            first, second, sgrna, replicate = self._first_duplicate
            column = self.tables.column("replicate_id")
            raise duplicate_rows(column, first, second, sgrna, replicate, self._n_duplicates)

    def _bucket_groups(self) -> Iterator[list[int]]:
        group: list[int] = []
        n_rows = 0
        for bucket, count in enumerate(self.spill.bucket_rows.tolist()):
            if group and n_rows + count > GROUP_ROWS:
                yield group
                group, n_rows = [], 0
            if count:
                group.append(bucket)
                n_rows += count
        yield group

    def _sorted(self, buckets: Sequence[int]) -> SortedRows | None:
        sgrna = self.codes.sgrna[self.spill.read("reagent", buckets)]
        kept = sgrna >= 0
        every = bool(kept.all())
        sgrna = sgrna if every else sgrna[kept]
        if not len(sgrna):
            return None

        def column(name: str) -> np.ndarray:
            values = self.spill.read(name, buckets)
            return values if every else values[kept]

        def covariate(name: str) -> np.ndarray:
            values = column(spilled(name))
            codes = self.codes.categories.get(name)
            return canonical_floats(values) if codes is None else codes[values]

        replicate = self.codes.replicate[column("replicate")]
        key = _numbered(self._place, sgrna) * len(self._rank) + self._rank[replicate]
        lfc = canonical_floats(column("lfc"))
        order = _order_of_different(key)
        if order is None and self._named:
            rows = self.spill.rows(buckets)
            self._note_duplicates(sgrna, replicate, rows if every else rows[kept])
            return None
        if order is None:
            # Twice as fast as sorting by two columns. Equal lfc have different ranks, but stand side by side.
            rank = np.empty(len(lfc), dtype=np.int64)
            rank[np.argsort(lfc)] = np.arange(len(lfc))
            order = np.argsort(key * len(lfc) + rank)
        covariates = {name: covariate(name)[order] for name in self.covariates}
        found = SortedRows(sgrna[order], replicate[order], lfc[order], covariates)
        return found if self._named else self._with_ties_in_order(key[order], found)

    def _with_ties_in_order(self, key: np.ndarray, rows: SortedRows) -> SortedRows:
        """Put rows, sorted by key and lfc, in order by their covariates where both are equal, and count the copies."""
        again = (key[1:] == key[:-1]) & (rows.lfc[1:] == rows.lfc[:-1])
        if not again.any():
            return rows
        self.ties = True
        tied = np.flatnonzero(np.append(again, False) | np.append(False, again))
        key, lfc = key[tied], rows.lfc[tied]
        values = {name: each[tied] for name, each in rows.covariates.items()}
        order = np.lexsort([*reversed(values.values()), lfc, key])
        values = {name: each[order] for name, each in values.items()}
        self.copies += count_copies([key, lfc, *values.values()])
        for name, each in values.items():
            rows.covariates[name][tied] = each  # all else is equal in rows that change places
        return rows

    def _note_duplicates(self, sgrna: np.ndarray, replicate: np.ndarray, rows: np.ndarray) -> None:
        order = np.lexsort([rows, replicate, sgrna])
        sgrna, replicate, rows = sgrna[order], replicate[order], rows[order]
        again = 1 + np.flatnonzero((sgrna[1:] == sgrna[:-1]) & (replicate[1:] == replicate[:-1]))
        self._n_duplicates += len(again)
        second = again[np.argmin(rows[again])]
        if self._first_duplicate is None or rows[second] < self._first_duplicate[1]:
            index = self.codes.index
            labels = index.sgrnas[sgrna[second]], index.replicates[replicate[second]]
            self._first_duplicate = int(rows[second - 1]), int(rows[second]), *labels


def _numbered(place: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the rank [n] of each code's place among the places of the codes that occur."""
    occurs = np.zeros(len(place), dtype=bool)
    occurs[codes] = True
    there = np.flatnonzero(occurs)
    rank = np.zeros(len(place), dtype=np.int64)
    rank[there[np.argsort(place[there])]] = np.arange(len(there))
    return rank[codes]


def _order_of_different(key: np.ndarray) -> np.ndarray | None:
    """Return the order [n] of keys, not negative, that are all different; None where two are equal."""
    span = int(key.max()) + 1
    if span > 4 * len(key) + SPARE:
        order = np.argsort(key)
        ranked = key[order]
        return order if (ranked[1:] != ranked[:-1]).all() else None
    # Each to the place of its key: faster than sorting.
    row = np.full(span, -1, dtype=np.int64)
    row[key] = np.arange(len(key))
    found = row[row >= 0]
    return found if len(found) == len(key) else None


def recount(spill: Spill, keys: Keys, covariates: Sequence[Covariate]) -> tuple[np.ndarray, list[Covariate]]:
    """Return the rows of each provisional replicate, and the labels used, without the rows that are dropped."""
    rows_of_replicate = np.zeros(len(keys.replicate_of_code), dtype=np.int64)
    used = {each.name: np.zeros_like(each.used) for each in covariates if each.labels is not None}
    for bucket in range(N_BUCKETS):
        kept = keys.kept[spill.read("reagent", [bucket])]
        codes = spill.read("replicate", [bucket])[kept]
        rows_of_replicate += np.bincount(codes, minlength=len(rows_of_replicate))
        for name, of_label in used.items():
            codes = spill.read(spilled(name), [bucket])[kept]
            of_label[codes[codes >= 0]] = True
    return rows_of_replicate, [replace(each, used=used.get(each.name, each.used)) for each in covariates]
