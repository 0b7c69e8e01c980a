"""Answers as files: CSV or TSV, also gzipped, or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vihier.atomic import renamed_when_whole
from vihier.screen.simulate_table import TableWriter, table_suffix

# Lines of a matrix that are turned into text at a time.
_LINES_AT_ONCE = 64


def write_rows(blocks: Iterable[pd.DataFrame], out: Path, *, quoted: bool = False) -> int:
    """Write blocks of rows with the same columns to one table, whole or not at all; return the number of rows.

    Parameters
    ----------
    blocks
        At least one.
    out
        The table; its suffix says how it is written.
    quoted
        Put labels in quotation marks in text: for labels that hold a separator, a quotation mark or a line break.

    Raises
    ------
    VihierError
        A suffix that is not a table's, or a path that cannot be written.
    """
    suffix = table_suffix(out)
    tables = (pa.Table.from_pandas(block, preserve_index=False) for block in blocks)
    first = next(tables)
    # What pandas would restore a frame from is of no use to other readers, and its index range is the first block's.
    schema = first.schema.remove_metadata()
    if suffix != ".parquet":
        schema = pa.schema([pa.field(_quoted(field.name), field.type) for field in schema])
    n_rows = 0
    with renamed_when_whole(out) as partial, TableWriter(partial, suffix, schema, quoted=quoted) as writer:
        for table in chain([first], tables):
            for batch in table.rename_columns(schema.names).replace_schema_metadata(None).cast(schema).to_batches():
                writer.write(batch)
                n_rows += batch.num_rows
    return n_rows


def write_frame(frame: pd.DataFrame, out: Path) -> int:
    """Write one table, its index left out; return the number of rows."""
    texts = [frame[name] for name in frame if frame[name].dtype.kind not in "biuf"]
    # Seven digits, as everywhere in a posterior file, are more than any of these numbers is known to.
    plain = frame.astype({name: np.float32 for name in frame if frame[name].dtype == np.float64})
    return write_rows([plain], out, quoted=any(map(needs_quotes, texts)))


def write_matrix(matrix: pd.DataFrame, out: Path) -> int:
    """Write a line x gene matrix with its index as the first column; return the number of lines."""
    return write_rows(_row_blocks(matrix), out, quoted=needs_quotes(matrix.index))


def needs_quotes(labels: Iterable[str]) -> bool:
    """Return whether a label of a text table must stand in quotation marks.

    Examples
    --------
    >>> needs_quotes(["KRAS", "NKX2-1"]), needs_quotes(["KRAS", "A,B"])
    (False, True)
    """
    texts = pa.array(labels, pa.string())
    return bool(pc.any(pc.match_substring_regex(texts, '[,\t"\r\n]')).as_py())


def _row_blocks(matrix: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, len(matrix), _LINES_AT_ONCE):
        yield matrix.iloc[start : start + _LINES_AT_ONCE].reset_index()


def _quoted(name: str) -> str:
    """Return a column's name as a header needs it: the writer of tables takes names as they are."""
    if not needs_quotes([name]):
        return name
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="").writerow([name])
    return text.getvalue()
