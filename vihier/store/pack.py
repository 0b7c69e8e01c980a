"""Tables of any size -> a store: read once in chunks, sorted by gene through a file, in bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Literal

import numpy as np

from vihier.atomic import check_writable
from vihier.errors import ScreenWarning, VihierError
from vihier.inference.progress import Progress, Silent
from vihier.screen.faults import fault
from vihier.screen.read import full_report
from vihier.screen.report import ReadReport
from vihier.screen.validate import Findings, Options, read_lfc, warn_of_copies
from vihier.store.ahead import one_ahead
from vihier.store.covariates import CovariateStream, ReadAgain, is_exact_in_float32
from vihier.store.keys import KeyStream
from vihier.store.request import Request
from vihier.store.sorting import Sorter, final_codes, recount, spilled
from vihier.store.spill import Spill
from vihier.store.store import ScreenStore, open_store
from vihier.store.tables import PathLikes, Tables, table_paths
from vihier.store.writer import StoreWriter

MEGABYTE = 1_000_000
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt", ".gz", ".parquet", ".pq"})


def pack(
    sources: PathLikes,
    store: str | PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
    sgrna_per_screen: bool = True,
    covariates: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> ScreenStore:
    """Write the rows of one or more tables, by gene, to one file: the same one whatever the order of rows and tables.

    Memory holds a chunk, a million rows or the largest gene. Until the store is whole, a file without a name beside it
    takes 20 bytes a row and 8 for each covariate.

    Parameters
    ----------
    sources
        Files as `vihier.read_screen` reads them, or directories of Parquet files; all rows are one screen.
    store
        The file to write; replaced if it is there.
    columns, single_lineage, on_conflict, sgrna_per_screen
        As in `vihier.read_screen`.
    covariates
        Those to keep; None keeps all. ``screen`` is always kept.
    progress
        What is told while it runs; nothing when None.

    Returns
    -------
    ScreenStore
        Open; its hash is that of `vihier.read_screen` of the same rows and columns.

    Raises
    ------
    VihierError
        As `vihier.read_screen`, in the same words; of several faults perhaps another.

    Warns
    -----
    ScreenWarning
        For each of ``report.warnings``.

    Examples
    --------
    >>> import tempfile, vihier
    >>> folder = Path(tempfile.mkdtemp())
    >>> table = vihier.simulate(folder / "screen.parquet", genes=3, lines=5, seed=1).table
    >>> pack(table, folder / "screen.h5").n_genes
    3
    """
    paths = table_paths(sources)
    out = Path(fspath(store))
    _check_output(out, paths)
    options = Options(single_lineage, on_conflict, sgrna_per_screen)
    request = Request.of(Tables(paths, columns), options, covariates)
    report = _until_read(request, out, progress or Silent())
    for text in report.warnings:
        warnings.warn(f"{report.source}: {text}", ScreenWarning, stacklevel=2)
    return open_store(out)


def _until_read(request: Request, out: Path, progress: Progress) -> ReadReport:
    while True:
        try:
            return _pack(request, out, progress)
        except ReadAgain as again:
            request = request.after(again)


def _check_output(out: Path, paths: Sequence[Path]) -> None:
    if out.suffix.lower() in TABLE_SUFFIXES:
        raise fault(str(out), "the store has the name of a table", cure="name the store last, e.g. screen.h5")
    if out.resolve() in {path.resolve() for path in paths}:
        raise fault(str(out), "the store would replace a table", cure="give it another name")
    check_writable(out)


def _pack(request: Request, out: Path, progress: Progress) -> ReadReport:
    tables, options, findings = request.tables, request.options, Findings(ignored=dict(request.ignored))
    keys = KeyStream(tables, request.names, options)
    streams = [CovariateStream(name, tables, name in request.as_labels) for name in request.covariates]
    with _disk(out), Spill(out.parent, _spill_types(streams)) as spill:
        read = _read(tables, keys, streams, spill, progress)
        if read.n_kept < read.n_rows:
            findings.dropped["missing lfc"] = read.n_rows - read.n_kept
        known = keys.finish(findings)
        covariates = [each for each in (stream.finish(findings) for stream in streams) if each is not None]
        rows_of_replicate = keys.rows_of_replicate
        if not known.kept.all():
            rows_of_replicate, covariates = recount(spill, known, covariates)
        codes = final_codes(known, covariates, keys.rows_of_reagent, rows_of_replicate)
        in_float32 = {each.name: each.exact_in_float32 for each in covariates}
        sorter = Sorter(spill, codes, sorted(in_float32), tables)
        with StoreWriter(out, codes, in_float32, read.lfc_in_float32, tables.name) as writer:
            progress.start("sorting", len(codes.index.genes))
            done = 0
            with closing(one_ahead(sorter.groups())) as groups:
                for rows in groups:
                    done += writer.add(rows)
                    progress.update(done)
            if codes.index.replicate_ids is None:
                warn_of_copies(sorter.copies, findings)
            kept = int(codes.rows_of_gene.sum())
            report = full_report(ReadReport(tables.name, read.n_rows, kept), tables.plan, findings)
            writer.finish(report, sorter.ties)
    return report


def _spill_types(streams: Sequence[CovariateStream]) -> dict[str, np.dtype]:
    code = np.dtype(np.int32)
    fixed: dict[str, np.dtype] = {"reagent": code, "replicate": code, "lfc": np.dtype(np.float64)}
    return fixed | {spilled(stream.name): stream.dtype for stream in streams}


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """Say in one line that there is no room for the rows on their way."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise VihierError(f"{out}: cannot be written: {reason}, in sorting rows beside it") from error


@dataclass(frozen=True)
class _Read:
    """What reading the tables came to."""

    n_rows: int
    n_kept: int
    lfc_in_float32: bool


def _read(
    tables: Tables, keys: KeyStream, streams: Sequence[CovariateStream], spill: Spill, progress: Progress
) -> _Read:
    """Read all chunks into the spill, checking them."""
    n_rows = n_kept = 0
    in_float32 = True
    progress.start("reading MB", round(tables.n_bytes / MEGABYTE))
    names = [*keys.names, "lfc", *(stream.name for stream in streams)]
    with closing(one_ahead(tables.chunks(names))) as chunks:
        for chunk in chunks:
            every = read_lfc(chunk.columns["lfc"])
            rows = np.flatnonzero(~np.isnan(every))
            lfc = every[rows]
            codes = keys.read(chunk, rows)
            values = {spilled(stream.name): stream.read(chunk, rows) for stream in streams}
            columns = {"reagent": codes.reagent, "replicate": codes.replicate, "lfc": lfc, **values}
            spill.append(codes.gene, columns, rows, chunk.first_row)
            in_float32 = in_float32 and is_exact_in_float32(lfc)
            n_rows += chunk.n_rows
            n_kept += len(rows)
            progress.update(round(chunk.bytes_done / MEGABYTE), {"million rows": n_rows / 1e6})
    if not n_kept:
        raise tables.column("lfc").fault("every value is missing", cure="give at least one measured row")
    return _Read(n_rows, n_kept, in_float32)
