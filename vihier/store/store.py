"""An open store: a screen whose rows stay on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py

from vihier.errors import VihierError
from vihier.screen.cells import Cells, cell_statistics
from vihier.screen.content_hash import content_hash
from vihier.screen.report import ReadReport
from vihier.screen.rows import Rows
from vihier.screen.screen import Screen, ScreenIndex
from vihier.store import layout

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CURE = "pack the tables again with `vihier pack`"


def is_store(path: Path) -> bool:
    """Whether a file is a store, complete or not; False where it cannot be read."""
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            return bool(file.attrs.get("kind") == layout.KIND)
    except (OSError, RuntimeError):
        return False


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as every HDF5 file does, so that it may be a store and is no table."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def open_store(path: str | PathLike[str]) -> ScreenStore:
    """Open a store that `vihier pack` wrote.

    Raises
    ------
    VihierError
        No such file, not a store, unfinished, damaged, or of a newer format.
    """
    return ScreenStore(Path(fspath(path)))


class ScreenStore:
    """A screen whose rows are on disk, read by ranges of genes; index and sizes are those of a `Screen`.

    It may be closed, and used in a ``with`` statement.

    Attributes
    ----------
    path
        The file.
    index
        Labels and maps.
    report
        What reading the tables did.
    hash
        SHA-256 (hexadecimal) of the whole content, the `Screen`'s own.
    gene_starts
        int64 [G + 1]: the rows of gene g are ``gene_starts[g]:gene_starts[g + 1]``.
    covariates
        Names of the covariates, ascending.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        try:
            with _reading(path):
                _check(path, self._file)
                self._rows = layout.read_rows(self._file)
                self.report = _report(self._file.attrs["report"])
                self.hash = str(self._file.attrs["screen_hash"])
        except BaseException:
            self._file.close()
            raise
        self.index: ScreenIndex = self._rows.index
        self.gene_starts = self._rows.gene_starts
        self.covariates = tuple(self._rows.names)

    def __enter__(self) -> ScreenStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def n_rows(self) -> int:
        """Number of rows, N."""
        return self._rows.n_rows

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
        """Number of lineages, L; 0 when the tables have none."""
        return 0 if self.index.lineages is None else len(self.index.lineages)

    @property
    def n_replicates(self) -> int:
        """Number of replicates, R."""
        return len(self.index.replicates)

    def rows_of(self, genes: slice = slice(None)) -> Rows:
        """Return all rows of consecutive genes, by code.

        Raises
        ------
        VihierError
            A closed or damaged file.
        """
        first, last, step = genes.indices(self.n_genes)
        if step != 1:
            raise VihierError(f"genes {genes}: rows are read by ranges of genes; leave the step out")
        with self._open():
            return self._rows.read(slice(first, max(first, last)))

    def cells_of(self, genes: slice = slice(None)) -> Cells:
        """Return the cell statistics of consecutive genes, by code; they are not stored but made of the rows.

        Raises
        ------
        VihierError
            A closed or damaged file.
        """
        return cell_statistics(self.rows_of(genes))

    def to_screen(self) -> Screen:
        """Return the screen with all rows in memory; it equals `vihier.read_screen` of the tables."""
        rows = self.rows_of()
        return Screen(self.index, rows.sgrna, rows.line, rows.replicate, rows.lfc, rows.covariates, self.report)

    def content_hash(self, columns: Iterable[str] = ()) -> str:
        """SHA-256 of the keys, ``lfc`` and the columns named; see `Screen.content_hash`. It reads all rows."""
        with self._open():
            return content_hash(self.index, self.covariates, columns, self._rows)

    def verify(self) -> None:
        """Read all rows and compare their hash with the one that was written.

        Raises
        ------
        VihierError
            The content is not what was packed.
        """
        lineage = [] if self.index.lineages is None else ["lineage"]
        if self.content_hash([*lineage, *self.covariates]) != self.hash:
            raise VihierError(f"{self.path}: is damaged (its rows are not those that were packed); {_CURE}")

    @contextmanager
    def _open(self) -> Iterator[None]:
        if not self._file:
            raise VihierError(f"{self.path}: this store was closed; open it again")
        with _reading(self.path):
            yield


def _opened(path: Path) -> h5py.File:
    if path.is_dir():
        raise VihierError(f"{path}: is a directory; name a store")
    if not path.exists():
        raise VihierError(f"{path}: no such file; `vihier pack SCREEN {path.name}` writes one")
    if not is_hdf5(path):
        raise VihierError(f"{path}: is not a store (not HDF5); name the file that `vihier pack` wrote")
    try:
        # Nobody writes to a finished file, and some cluster file systems have no locks.
        return h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = f"cannot be read: {os.strerror(number)}" if number else f"is damaged or truncated; {_CURE}"
        raise VihierError(f"{path}: {reason}") from error


def _check(path: Path, file: h5py.File) -> None:
    if file.attrs.get("kind") != layout.KIND:
        raise VihierError(f"{path}: is HDF5, but not a store; name the file that `vihier pack` wrote")
    version = int(file.attrs["format_version"])
    if version > layout.FORMAT_VERSION:
        raise VihierError(
            f"{path}: has format {version}, and this vihier reads up to {layout.FORMAT_VERSION}; upgrade vihier"
        )
    if int(file.attrs["complete"]) != 1:
        raise VihierError(f"{path}: is unfinished (what wrote it did not end); {_CURE}")


def _report(text: str) -> ReadReport:
    fields: dict[str, Any] = json.loads(text)
    return ReadReport(**(fields | {"warnings": tuple(fields["warnings"])}))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except VihierError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        text = " ".join(str(error).split())
        raise VihierError(f"{path}: is damaged ({text}); {_CURE}") from error
