"""How large a screen is: from a store's index, or from the keys of its tables, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vihier.store.store import is_hdf5, open_store
from vihier.store.tables import Tables, table_paths

KEYS = ("sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id")


@dataclass(frozen=True)
class Sizes:
    """Numbers of what is in a screen, and whether it is a store."""

    rows: int
    genes: int
    sgrnas: int
    lines: int
    lineages: int
    is_packed: bool

    @property
    def pairs(self) -> int:
        """Pairs of a gene and a line."""
        return self.genes * self.lines


def sizes_of(path: Path, columns: Mapping[str, str] | None = None) -> Sizes:
    """Say how large a screen is, without reading its values.

    Parameters
    ----------
    path : Path
        A store, a table, or a folder of Parquet tables.
    columns : mapping, optional
        As in `vihier.read_screen`.

    Raises
    ------
    VihierError
        As `vihier.store.store.open_store`, or for a table's header.
    """
    if is_hdf5(path):
        with open_store(path) as store:
            return Sizes(store.n_rows, store.n_genes, store.n_sgrnas, store.n_lines, store.n_lineages, True)
    tables = Tables(table_paths(path), columns)
    names = [name for name in KEYS if name in tables.plan.position]
    seen: dict[str, set[str | None]] = {name: set() for name in names}
    rows = 0
    for chunk in tables.chunks(names):
        rows += chunk.n_rows
        for name, column in chunk.columns.items():
            seen[name].update(column.data.unique().to_pylist())
    counts = {name: len(values - {None}) for name, values in seen.items()}
    return Sizes(rows, counts["hugo_symbol"], counts["sgrna"], counts["depmap_id"], counts.get("lineage", 0), False)
