"""A table in a file, Parquet or delimited text, read in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pyarrow.types as pt

from vihier.screen.read import open_source
from vihier.screen.sources import ParquetSource, unreadable
from vihier.screen.text_source import CheckedStream, TextSource

CHUNK_ROWS = 1 << 19
"""Rows of a chunk at most: 40 MB of a table with ten columns."""


class ChunkedSource(Protocol):
    """A table that is read in chunks."""

    name: str

    def column_names(self) -> list[str]:
        """Return the names in the table's order."""

    def row_name(self, row: int) -> str:
        """Return what the user calls this row (from 0)."""

    def batches(self, places: Sequence[int], numeric: Collection[int]) -> Iterator[tuple[pa.Table, float]]:
        """Yield the columns at these places, in this order, some rows at a time; and the share of the table read."""


class ParquetChunks(ParquetSource):
    """A Parquet file; its row groups may be of any size."""

    def batches(self, places: Sequence[int], numeric: Collection[int]) -> Iterator[tuple[pa.Table, float]]:
        """Yield the columns at these places, strings dictionary-encoded."""
        names = [self.schema.names[place] for place in places]
        fields = [self.schema.field(place) for place in places]
        text = [each.name for each in fields if pt.is_string(each.type) or pt.is_large_string(each.type)]
        done = 0
        try:
            # A buffer, or Arrow would hold all of a row group's bytes.
            file = pq.ParquetFile(self.path, read_dictionary=text, buffer_size=1 << 20, pre_buffer=False)
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=names):
                done += batch.num_rows
                table = pa.Table.from_batches([batch])
                yield pa.table([table.column(name) for name in names], names=names), done / file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.name, error) from error


class TextChunks(TextSource):
    """Delimited text, also gzipped."""

    def batches(self, places: Sequence[int], numeric: Collection[int]) -> Iterator[tuple[pa.Table, float]]:
        """Yield the columns at these places; ``numeric`` ones as float64, or as labels from where one is no number."""
        delivered = 0
        kinds = set(numeric)
        while True:
            try:
                for table, share in self._stream(kinds, skip=delivered):
                    self._refuse_line_breaks(table, delivered)
                    delivered += len(table)
                    yield table.select([str(place) for place in places]), share
                return
            except pa.ArrowInvalid as error:
                if not kinds or "conversion error to double" not in str(error):
                    raise self._located(error) from error
                kinds = set()

    def _stream(self, numeric: Collection[int], skip: int) -> Iterator[tuple[pa.Table, float]]:
        size = self.path.stat().st_size
        with self._open() as stream:
            raw = getattr(stream, "fileobj", stream)  # a gzip stream's own place is that in the unpacked text
            checked = pa.PythonFile(CheckedStream(stream, self.name, self.longest_line), mode="r")
            for batch in pyarrow.csv.open_csv(checked, **self._parsing(numeric)):
                table = pa.Table.from_batches([batch])
                before, skip = skip, max(0, skip - len(table))
                if len(table) > before:
                    yield table.slice(before), raw.tell() / size


def chunked(path: Path) -> ChunkedSource:
    """Open a file as `vihier.screen.read.open_source` does, to be read in chunks."""
    source = open_source(path)
    if isinstance(source, TextSource):
        return TextChunks(source.path, source.separator, source.gzipped)
    return ParquetChunks(path)
