"""SHA-256 of what a screen holds, whatever the order of its table's rows and wherever the rows are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.screen.screen import ScreenIndex

HASH_FORMAT = "vihier screen 1"
ALWAYS = frozenset({"sgrna", "hugo_symbol", "depmap_id", "replicate_id", "lfc"})


class RowColumns(Protocol):
    """Rows in canonical order, column after column, each in pieces: int32 codes and float64.

    Attributes
    ----------
    n_rows
        Number of rows, N.
    """

    n_rows: int

    def keys(self) -> Iterable[Iterable[np.ndarray]]:
        """Yield sgrna, line, replicate, lfc."""

    def covariates(self, names: Sequence[str]) -> Iterable[Iterable[np.ndarray]]:
        """Yield these covariates; rows equal in key and lfc are ordered by `order_of_ties` of them."""


def content_hash(index: ScreenIndex, covariates: Collection[str], columns: Iterable[str], rows: RowColumns) -> str:
    """Return the SHA-256 (hexadecimal) of the keys, ``lfc`` and the columns named.

    Parameters
    ----------
    index
        Labels and maps.
    covariates
        The covariates that there are.
    columns
        Covariates, and ``"lineage"``, that count besides the keys and ``lfc``. Their order is no part.
    rows
        The rows.

    Raises
    ------
    VihierError
        A column that is not there.
    """
    wanted = sorted(set(columns) - ALWAYS)
    digest = hashlib.sha256(f"{HASH_FORMAT}\n".encode())
    for labels in (index.sgrnas, index.genes, index.lines, index.replicates):
        _hash_labels(digest, labels)
    for codes in (index.gene_of_sgrna, index.line_of_replicate):
        _hash_array(digest, len(codes), [codes])
    of_rows: list[str] = []
    for name in wanted:
        digest.update(f"column {name}\n".encode())
        if name == "lineage" and index.lineages is not None and index.lineage_of_line is not None:
            _hash_labels(digest, index.lineages)
            _hash_array(digest, len(index.lineage_of_line), [index.lineage_of_line])
            continue
        if name not in covariates:
            raise VihierError(f"column {name!r} is not in this screen, which has {sorted(covariates)}")
        if name in index.categories:
            _hash_labels(digest, index.categories[name])
        of_rows.append(name)
    for pieces in rows.keys():  # noqa: SIM118 - not a mapping
        _hash_array(digest, rows.n_rows, pieces)
    for pieces in rows.covariates(of_rows):
        _hash_array(digest, rows.n_rows, pieces)
    return digest.hexdigest()


def order_of_ties(keys: Sequence[np.ndarray], covariates: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the order [N] of rows in which those equal in all keys stand by these covariates; None to leave it.

    Rows equal in key and lfc (possible without replicate_id) are in the canonical order of *all* covariates, so also
    of ones that a hash does not name.
    """
    tied = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for values in keys:
        tied &= values[1:] == values[:-1]
    if not tied.any() or not covariates:
        return None
    position = np.concatenate([[0], np.cumsum(~tied)])
    return np.lexsort([*reversed(covariates), position])


def _hash_labels(digest: Any, labels: np.ndarray) -> None:
    encoded = [label.encode() for label in labels]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    _hash_array(digest, len(lengths), [lengths])
    digest.update(b"".join(encoded))


def _hash_array(digest: Any, size: int, pieces: Iterable[np.ndarray]) -> None:
    # Little-endian whatever the machine, with type and length, so that neighbouring arrays cannot run together.
    for number, values in enumerate(pieces):
        stored = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        if number == 0:
            digest.update(f"{stored.dtype.str} {size}\n".encode())
        digest.update(stored)
