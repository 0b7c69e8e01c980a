"""A wide table in text (CSV or TSV, also gzipped): labels, then one column of numbers a sample, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from vihier.errors import VihierError
from vihier.screen.faults import fault, no_rows, shown
from vihier.screen.text_source import CheckedStream, TextSource
from vihier.screen.values import DECIMAL_COMMA, MISSING, Column, labels


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a wide table.

    Attributes
    ----------
    first_row
        Place (from 0) of the first among the table's rows.
    labels
        One object array [n] for each label column, None where it is missing.
    values
        float64 [n, number columns], NaN where it is missing.
    """

    first_row: int
    labels: tuple[np.ndarray, ...]
    values: np.ndarray


class WideText(TextSource):
    """A wide table: `n_labels` columns of labels first, all others numbers.

    Raises
    ------
    VihierError
        Not such a table: too few columns, or a column of numbers that has no name or another's name.
    """

    # A row of a matrix with 100,000 columns takes about 2 MB.
    longest_line = 1 << 22

    def __init__(self, path: Path, n_labels: int) -> None:
        super().__init__(path, None, path.suffix.lower() == ".gz")
        names = [name.strip() for name in self.column_names()]
        self.n_labels = n_labels
        self.number_names = names[n_labels:]
        if not self.number_names:
            cure = f"give {n_labels} of labels, then one of numbers for each sample"
            raise fault(self.name, f"the table has {len(names)} columns and none of numbers", cure=cure)
        seen: dict[str, int] = {}
        for place, name in enumerate(self.number_names, start=n_labels + 1):
            if not name:
                raise fault(self.name, f"column {place} has no name", cure="name the sample, or take the column out")
            if name in seen:
                where = f"column {shown(name)} is there twice, as columns {seen[name]} and {place}"
                raise fault(self.name, where, cure="every column needs a name of its own: rename or remove one")
            seen[name] = place

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in blocks of a few megabytes of text.

        Raises
        ------
        VihierError
            A value that is not a number, a row of another length, or what is no text table: with its line.
        """
        names = [str(place) for place in range(len(self.column_names()))]
        first_row = 0
        try:
            for batch in self._batches(names):
                yield self._block(batch, first_row)
                first_row += batch.num_rows
        except pa.ArrowInvalid as error:
            if "conversion error to double" in str(error):
                raise self._not_a_number() from error
            raise self._located(error) from error
        if not first_row:
            raise no_rows(self.name)

    def _batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        is_label = {name: int(name) < self.n_labels for name in names}
        with self._open() as stream:
            yield from pyarrow.csv.open_csv(
                pa.PythonFile(CheckedStream(stream, self.name, self.longest_line), mode="r"),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=names, skip_rows=self.header_line, block_size=self.longest_line, use_threads=False
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=self.separator),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.string() if is_label[name] else pa.float64() for name in names},
                    null_values=list(MISSING),
                    strings_can_be_null=False,
                ),
            )

    def _block(self, batch: pa.RecordBatch, first_row: int) -> Block:
        read: list[np.ndarray] = []
        for place in range(self.n_labels):
            data = batch.column(place)
            if pc.any(pc.match_substring(data, "\n")).as_py():
                row = first_row + pc.index(pc.match_substring(data, "\n"), True).as_py()
                cure = "close the quotation mark that opens there"
                raise fault(self.name, self.row_name(row), "a value runs over several lines", cure=cure)
            name = self.column_names()[place].strip() or f"column {place + 1}"
            column = Column(self.name, name, name, pa.chunked_array([data]), lambda row: self.row_name(first_row + row))
            found = labels(column, key=True)
            read.append(np.append(found.labels, np.array([None], dtype=object))[found.codes])
        table = batch.select(range(self.n_labels, batch.num_columns))
        values = table.to_tensor(null_to_nan=True, row_major=True).to_numpy()
        return Block(first_row, tuple(read), values)

    def _not_a_number(self) -> VihierError:
        """Return the error for the first value that is not a number: pyarrow names neither its line nor its column."""
        for line, fields in self._data_records():
            texts = [text.strip() for text in fields[self.n_labels :]]
            if _are_numbers(texts):
                continue
            place, text = next((place, text) for place, text in enumerate(texts) if not _are_numbers([text]))
            cure = "give a number, or NA where there is none"
            if DECIMAL_COMMA.fullmatch(text):
                cure = "write decimals with a point"
            where = f"line {line}, column {shown(self.number_names[place])}"
            return fault(self.name, where, f"value {shown(text)} is not a number", cure=cure)
        return fault(self.name, "a value is not a number", cure="give numbers, or NA where there is none")


def _are_numbers(texts: list[str]) -> bool:
    try:
        pa.array([None if text in MISSING else text for text in texts], pa.string()).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
