"""Libraries -> one long table, gene by gene, written as it is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from vihier.atomic import renamed_when_whole
from vihier.errors import VihierError
from vihier.screen.faults import fault, shown
from vihier.screen.importing.copy_number import CopyNumber
from vihier.screen.importing.library import Cells, Library, Measured
from vihier.screen.importing.maps import read_lineages
from vihier.screen.importing.matrix import codes_of
from vihier.screen.importing.normalise import Centring, Normalisation
from vihier.screen.importing.report import ImportReport
from vihier.screen.importing.symbols import symbols
from vihier.screen.labels import suspicious_genes
from vihier.screen.report import counted
from vihier.screen.simulate_table import TableWriter, table_suffix

LABELS = pa.dictionary(pa.int32(), pa.string())
FIRST = ("sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc", "copy_number", "counts_final")
LAST = ("counts_initial", "counts_expected", "p_dna_batch", "days", "screen", "genome_alignment", "n_alignments")
OWN = frozenset(
    {"sgrna", "hugo_symbol", "depmap_id", "lfc", "copy_number", "counts_final", "counts_initial", "counts_expected"}
)
METADATA = "vihier_import"
SPECIAL = frozenset(",\t\"'\r\n")


def check_out(out: Path) -> Path:
    """Return the folder of the table that is to be written; temporary files are made there.

    Raises
    ------
    VihierError
        A name that is not a table's, or no such folder.
    """
    table_suffix(out)
    if not out.parent.is_dir():
        raise VihierError(f"{out}: the directory {out.parent} does not exist; make it first")
    return out.parent


@dataclass
class Account:
    """What is counted while the rows are written."""

    n_rows: int = 0
    n_missing: int = 0
    n_low: int = 0
    seen: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in ("gene", "sgrna", "line")})
    n_replicates: int = 0


def write_long(
    libraries: Sequence[Library],
    out: Path,
    how: Normalisation | Centring,
    what: str,
    *,
    line_map: Path | None = None,
    copy_number: Path | None = None,
) -> ImportReport:
    """Write the long table of one or several libraries, whole or not at all.

    Parameters
    ----------
    libraries
        Read, in the order in which they are written.
    out
        ``.parquet``, ``.csv`` or ``.tsv`` (also ``.gz``).
    how
        What is done to the numbers.
    what
        What the column ``lfc`` is, in words.
    line_map
        Table of lines and their lineages.
    copy_number
        Matrix of lines by genes.

    Raises
    ------
    VihierError
        A line without a lineage, numbers that do not make fold changes, or a table that cannot be written.
    """
    folder = check_out(out)
    lines = sorted({line for each in libraries for line in each.samples.line[each.samples.kept]})
    lineages = None if line_map is None else read_lineages(line_map, lines)
    numbers = None if copy_number is None else CopyNumber(copy_number, folder, lines)
    found, shared = symbols(np.concatenate([library.sgrnas.genes for library in libraries]))
    ends = np.cumsum([len(library.sgrnas.genes) for library in libraries])
    measured = [Measured(*each, how) for each in zip(libraries, np.split(found, ends[:-1]), strict=True)]
    rows = [_Rows(each, lineages, numbers) for each in measured]
    schema = _schema(rows)
    _refuse_odd_names(libraries[0].samples.source, schema)
    account = Account()
    files = [", ".join(library.files) for library in libraries]
    files += [f"{path.name} ({kind})" for path, kind in ((line_map, "lineages"), (copy_number, "copy numbers")) if path]
    metadata = {METADATA: json.dumps({"lfc": what, "files": files})}
    with (
        renamed_when_whole(out) as partial,
        TableWriter(partial, table_suffix(out), schema, quoted=_need_quotes(rows), metadata=metadata) as writer,
    ):
        for each in rows:
            for batch in each.batches(schema, account):
                writer.write(batch)
        if not account.n_rows:
            problem = "no value is left to be written"
            raise fault(libraries[0].matrix.source, problem, cure="look at the counts and at what is left out")
    return _report(libraries, out, what, files, account, _warnings(libraries, found, shared, numbers, lines))


class _Rows:
    """A library's rows, as record batches."""

    def __init__(self, measured: Measured, lineages: dict[str, str] | None, copy_number: CopyNumber | None) -> None:
        self.measured = measured
        self.copy_number = copy_number
        library, final = measured.library, measured.final
        self.line = library.samples.line[final]
        self.samples = {name: values[final] for name, values in library.samples.columns.items()}
        self.samples["depmap_id"] = self.line
        if lineages is not None:
            self.samples["lineage"] = np.array([lineages[line] for line in self.line], dtype=object)
        if library.screen is not None:
            self.samples["screen"] = np.full(len(final), library.screen, dtype=object)
        self.sgrnas = dict(library.sgrnas.columns)
        self.sgrnas |= {"sgrna": library.matrix.entities, "hugo_symbol": measured.symbols}
        self.cells = {"lfc": pa.float64()}
        if measured.has_counts:
            self.cells["counts_final"] = pa.float64()
        if measured.has_plasmid:
            self.cells["counts_initial"] = pa.float64()
        if measured.has_expected:
            self.cells["counts_expected"] = pa.float64()
        if copy_number is not None:
            self.cells["copy_number"] = pa.float64()
        self.cells |= dict.fromkeys(library.layers, pa.float64())

    def kinds(self) -> dict[str, pa.DataType]:
        """Return the columns and whether they hold labels or numbers."""
        per_label = {**self.samples, **self.sgrnas}
        return self.cells | {n: LABELS if v.dtype == object else pa.float64() for n, v in per_label.items()}

    def batches(self, schema: pa.Schema, account: Account) -> Iterator[pa.RecordBatch]:
        """Yield the rows that have a fold change."""
        coded = {name: codes_of(values) for name, values in self.samples.items() if values.dtype == object}
        written = np.zeros(len(self.line), dtype=bool)
        for positions, cells in self.measured.blocks():
            there = ~np.isnan(cells.lfc)
            i, j = np.nonzero(there)
            account.n_low += int(cells.low.sum())
            account.n_missing += int((~there & ~cells.low).sum())
            account.n_rows += len(i)
            kept = positions[there.any(axis=1)]
            account.seen["sgrna"].update(f"{self.measured.library.screen}|{s}" for s in self.sgrnas["sgrna"][kept])
            account.seen["gene"].update(self.measured.symbols[kept])
            written |= there.any(axis=0)
            values = self._values(positions, cells)
            arrays = [self._column(f, positions, i, j, values, coded) for f in schema]
            if len(i):
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        account.seen["line"].update(self.line[written])
        account.n_replicates += int(written.sum())

    def _values(self, positions: np.ndarray, cells: Cells) -> dict[str, np.ndarray]:
        library, final = self.measured.library, self.measured.final
        values = {name: spool.rows(positions)[:, final] for name, spool in library.layers.items()}
        values["lfc"] = cells.lfc
        if cells.counts_final is not None:
            values["counts_final"] = cells.counts_final
        if cells.counts_initial is not None:
            values["counts_initial"] = cells.counts_initial
        if cells.counts_expected is not None:
            values["counts_expected"] = cells.counts_expected
        if self.copy_number is not None:
            values["copy_number"] = self.copy_number.at(library.sgrnas.genes[positions], self.line)
        return values

    def _column(
        self,
        column: pa.Field,
        positions: np.ndarray,
        i: np.ndarray,
        j: np.ndarray,
        values: dict[str, np.ndarray],
        coded: dict[str, tuple[np.ndarray, np.ndarray]],
    ) -> pa.Array:
        name = column.name
        if name in values:
            return pa.array(values[name][i, j], from_pandas=True)
        if name in coded:
            codes, labels = coded[name]
            return _labels(codes[j], labels)
        if name in self.samples:
            return pa.array(self.samples[name][j], from_pandas=True)
        if name not in self.sgrnas:
            return pa.nulls(len(i), column.type)
        of_block = self.sgrnas[name][positions]
        if of_block.dtype != object:
            return pa.array(of_block[i], from_pandas=True)
        # Only the block's own labels: a dictionary of all sgRNAs would be written with every row group.
        codes, labels = codes_of(of_block)
        return _labels(codes[i], labels)


def _labels(codes: np.ndarray, labels: np.ndarray) -> pa.Array:
    indices = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(labels, pa.string()))


def _schema(rows: Sequence[_Rows]) -> pa.Schema:
    kinds: dict[str, pa.DataType] = {}
    for each in rows:
        kinds |= each.kinds()
    known = [name for name in (*FIRST, *LAST) if name in kinds]
    return pa.schema([(name, kinds[name]) for name in (*known, *(name for name in kinds if name not in known))])


def _refuse_odd_names(source: str, schema: pa.Schema) -> None:
    for name in schema.names:
        if SPECIAL & set(name):
            problem = f"column {shown(name)} would break the header of a text table"
            raise fault(source, problem, cure="take commas, tabs and quotation marks out of its name")


def _need_quotes(rows: Sequence[_Rows]) -> bool:
    texts = (v for each in rows for v in (*each.samples.values(), *each.sgrnas.values()) if v.dtype == object)
    return any(SPECIAL & set(text) for values in texts for text in set(values) if text is not None)


def _warnings(
    libraries: Sequence[Library],
    genes: np.ndarray,
    shared: list[str],
    copy_number: CopyNumber | None,
    lines: list[str],
) -> list[str]:
    warnings = [note for library in libraries for note in library.samples.notes]
    if shared:
        names = f"{shared[0]!r}" + (", ..." if len(shared) > 1 else "")
        warnings.append(f"{counted(len(shared), 'symbol')} of several genes kept with the number ({names})")
    if copy_number is not None and copy_number.lines_without(lines):
        absent = copy_number.lines_without(lines)
        warnings.append(f"{counted(len(absent), 'line')} without copy number, such as {absent[0]!r}")
    return warnings + suspicious_genes(np.unique(genes[genes != None]))  # noqa: E711 - element by element


def _report(
    libraries: Sequence[Library], out: Path, what: str, files: list[str], account: Account, warnings: list[str]
) -> ImportReport:
    left_out: dict[str, int] = {}
    for library in libraries:
        for reason, count in library.sgrnas.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    left_out["missing values"] = account.n_missing
    left_out["values with too few reads in the plasmid pool"] = account.n_low
    return ImportReport(
        out=str(out),
        files=tuple(files),
        lfc=what,
        n_rows=account.n_rows,
        n_genes=len(account.seen["gene"]),
        n_sgrnas=len(account.seen["sgrna"]),
        n_lines=len(account.seen["line"]),
        n_replicates=account.n_replicates,
        left_out=left_out,
        warnings=tuple(warnings),
    )
