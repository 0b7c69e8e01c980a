"""A screen table written row group by row group: Parquet with dictionary-encoded labels, CSV or TSV, also gzipped."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from vihier.errors import VihierError

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


def table_suffix(path: Path) -> str:
    """Suffix that says how a table is written.

    Raises
    ------
    VihierError
        If it is none of ``SUFFIXES``.

    Examples
    --------
    >>> table_suffix(Path("screen.csv.gz"))
    '.csv.gz'
    """
    for suffix in SUFFIXES:
        if path.name.endswith(suffix) and path.name != suffix:
            return suffix
    raise VihierError(f"output {path.name!r}: give a name that ends in one of {', '.join(SUFFIXES)}")


class TableWriter:
    """Streams record batches to a table; one batch is one row group.

    Parameters
    ----------
    path
        Where to write, under whatever name.
    suffix
        One of ``SUFFIXES``.
    schema
        Columns; labels are ``dictionary(int32, string)``.
    quoted
        Put labels in quotation marks in text, for labels that hold a delimiter, a quotation mark or a line break.
    metadata
        Key-value metadata of a Parquet file; text has no place for it.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        schema: pa.Schema,
        *,
        quoted: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._raw: Any = None
        if suffix == ".parquet":
            labels = [field.name for field in schema if pa.types.is_dictionary(field.type)]
            # Only labels: hashing floats into a dictionary costs time and, being mostly distinct, saves nothing.
            self._writer: Any = pq.ParquetWriter(
                path,
                schema,
                use_dictionary=labels,
                compression="zstd",
                # Minimum and maximum of the gene let a reader skip groups; those of all labels would halve the speed.
                write_statistics=["hugo_symbol"],
                # Readers then see text, as in a real screen's table, and not pandas categories.
                store_schema=False,
            )
            self._writer.add_key_value_metadata(dict(metadata or {}))
            return
        plain = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema]
        self._plain = pa.schema(plain)
        delimiter = "\t" if suffix.startswith(".tsv") else ","
        # Arrow would quote all labels and the header even where none needs it.
        style: Literal["needed", "none"] = "needed" if quoted else "none"
        options = pyarrow.csv.WriteOptions(delimiter=delimiter, quoting_style=style, include_header=False)
        self._raw = path.open("wb")
        self._sink = self._raw
        if suffix.endswith(".gz"):
            # Neither the time of day nor the temporary name in the header: equal runs give equal files.
            self._sink = gzip.GzipFile("", "wb", compresslevel=1, fileobj=self._raw, mtime=0)
        self._sink.write((delimiter.join(schema.names) + "\n").encode())
        self._writer = pyarrow.csv.CSVWriter(self._sink, self._plain, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        if self._raw is None:
            self._writer.write_table(pa.Table.from_batches([batch]), row_group_size=max(1, batch.num_rows))
        else:
            self._writer.write_batch(batch.cast(self._plain))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        if self._raw is not None:
            self._sink.close()
            self._raw.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
