"""Delimited text (CSV, TSV, also gzipped) -> Arrow arrays, in one checked pass.

pyarrow parses; what it would let through or describe badly (NUL bytes, other encodings, endless lines, a web page, an
unclosed quotation mark) is caught in the bytes it is given. A fault is located by a second, slower pass.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from vihier.errors import VihierError
from vihier.screen.faults import fault, no_rows, one_line, shown
from vihier.screen.report import counted
from vihier.screen.values import MISSING

LONGEST_LINE = 1 << 20
LABELS = pa.dictionary(pa.int32(), pa.string())
MAGIC = {
    b"PAR1": ("a Parquet file", "name it .parquet"),
    b"\x1f\x8b": ("gzipped", "name it with .gz at the end"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "save the table as CSV"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "save the table as CSV"),
    b"\x89HDF": ("an HDF5 file", "export the table as CSV or Parquet"),
    b"ARROW1": ("an Arrow file", "write the table as Parquet"),
    b"BZh": ("compressed by bzip2", "unpack it, or use gzip"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it, or use gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it, or use gzip"),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8"),
    b"\x80\x02": ("a Python pickle, which vihier never loads", "write the table as CSV or Parquet"),
    b"\x80\x03": ("a Python pickle, which vihier never loads", "write the table as CSV or Parquet"),
    b"\x80\x04": ("a Python pickle, which vihier never loads", "write the table as CSV or Parquet"),
    b"\x80\x05": ("a Python pickle, which vihier never loads", "write the table as CSV or Parquet"),
}
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars", " ": "spaces"}


class TextSource:
    """A delimited text file.

    Parameters
    ----------
    path
        The file.
    separator
        ``","``, a tab, or None for whichever of the two the header has.
    gzipped
        Whether it is compressed.
    """

    longest_line = LONGEST_LINE

    def __init__(self, path: Path, separator: str | None, gzipped: bool) -> None:
        self.name = str(path)
        self.path = path
        self.gzipped = gzipped
        head = self._head()
        first = head.lstrip("\ufeff \r\n").split("\n", 1)[0]
        self.separator = separator or ("\t" if "\t" in first else ",")
        records = self._records(io.StringIO(head.lstrip("\ufeff"), newline=""))
        self.header_line, self.names = next(records)
        self.first_row = next(records, (0, []))[1]
        self._check_separator(first)
        if not self.first_row:
            raise no_rows(self.name)
        # R's write.table leaves the row names without a header.
        self.row_names = len(self.first_row) == len(self.names) + 1 and self.first_row[-1].strip() != ""

    def column_names(self) -> list[str]:
        """Return the names in the file's order; row names without a header are unnamed."""
        return [""] * self.row_names + self.names

    def read(self, places: Sequence[int], numeric: Collection[int]) -> dict[int, pa.ChunkedArray]:
        """Return the columns at these places; ``numeric`` ones as float64, or as labels where one is no number."""
        try:
            return self._parse(places, numeric)
        except pa.ArrowInvalid as error:
            if "conversion error to double" not in str(error):
                raise self._located(error) from error
        try:
            return self._parse(places, ())
        except pa.ArrowInvalid as error:
            raise self._located(error) from error

    def row_name(self, row: int) -> str:
        """Return the line (from 1, the header included) on which a data row starts."""
        line, _ = next(itertools.islice(self._data_records(), row, None))
        return f"line {line}"

    def _parse(self, places: Sequence[int], numeric: Collection[int]) -> dict[int, pa.ChunkedArray]:
        with self._open() as stream:
            checked = pa.PythonFile(CheckedStream(stream, self.name, self.longest_line), mode="r")
            table = pyarrow.csv.read_csv(checked, **self._parsing(numeric))
        self._refuse_line_breaks(table)
        return {place: table.column(place) for place in places}

    def _parsing(self, numeric: Collection[int]) -> dict[str, Any]:
        """Return the options of pyarrow's reader; columns are named by their place."""
        names = [str(place) for place in range(len(self.column_names()))]
        return {
            "read_options": pyarrow.csv.ReadOptions(
                column_names=names, skip_rows=self.header_line, block_size=self.longest_line
            ),
            "parse_options": pyarrow.csv.ParseOptions(delimiter=self.separator),
            "convert_options": pyarrow.csv.ConvertOptions(
                column_types={name: pa.float64() if int(name) in numeric else LABELS for name in names},
                null_values=list(MISSING),
                strings_can_be_null=False,
            ),
        }

    def _refuse_line_breaks(self, table: pa.Table, first_row: int = 0) -> None:
        # An unclosed quotation mark swallows the lines up to the next one, and the rows are lost without a word. Every
        # column is looked at: one in a column that is not wanted swallows rows just as well.
        for place, column in enumerate(table.columns):
            if not pa.types.is_dictionary(column.type) or not column.num_chunks:
                continue
            column = column.unify_dictionaries()
            if not pc.any(pc.match_substring(column.chunk(0).dictionary, "\n")).as_py():
                continue
            broken = first_row + pc.index(pc.match_substring(column.cast(pa.string()), "\n"), True).as_py()
            where = f"column {shown(self.column_names()[place])}, {self.row_name(broken)}"
            cure = "close the quotation mark that opens there"
            raise fault(self.name, where, "a value runs over several lines", cure=cure)

    def _located(self, error: pa.ArrowInvalid) -> VihierError:
        """Return the error to raise for what pyarrow refused, with the line it is on."""
        detail = one_line(str(error))
        expected = len(self.column_names())
        if "straddl" in detail:
            return _endless(self.name, None, self.longest_line)
        try:
            for line, fields in self._data_records():
                if len(fields) != expected:
                    problem = f"{counted(len(fields), 'field')} where the header has {len(self.names)}"
                    cure = "give every row as many fields as the header, and quote values that hold the separator"
                    if any("\n" in value for value in fields):
                        cure = "close the quotation mark that opens there"
                    return fault(self.name, f"line {line}", problem, cure=cure)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return _truncated(self.name)
        return fault(self.name, f"cannot be parsed ({detail[:120]})", cure="write the table again as CSV or Parquet")

    def _data_records(self) -> Iterator[tuple[int, list[str]]]:
        with (
            self._open() as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="") as text,
        ):
            yield from itertools.islice(self._records(text), 1, None)

    def _open(self) -> IO[bytes]:
        return cast(IO[bytes], gzip.open(self.path, "rb")) if self.gzipped else self.path.open("rb")

    def _head(self) -> str:
        """Return the beginning as text, after a look at what kind of file it is."""
        with self.path.open("rb") as file:
            magic = file.read(8)
        if not magic:
            raise _empty(self.name)
        if self.gzipped and not magic.startswith(b"\x1f\x8b"):
            raise fault(self.name, "the name says gzip and the content is not", cure="take .gz off the name")
        try:
            with self._open() as stream:
                head = stream.read(self.longest_line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _truncated(self.name) from error
        for start, (what, cure) in MAGIC.items():
            if head.startswith(start):
                raise fault(self.name, f"this is {what}", cure=cure)
        CheckedStream(io.BytesIO(), self.name, self.longest_line).check(head)
        text = head.decode("utf-8", errors="replace")
        letter = text.lstrip("\ufeff \t\r\n")[:1]
        if not letter:
            raise _empty(self.name)
        if letter == "#":
            cure = "take comment lines out: the header comes first"
            raise fault(self.name, "line 1", "it begins with '#'", cure=cure)
        if letter == "<":
            raise fault(self.name, "line 1", "this is a web page or XML, not a table", cure="download the table itself")
        if letter in ("{", "["):
            raise fault(self.name, "line 1", "this is JSON, not a table", cure="convert it to CSV or Parquet")
        return text

    def _check_separator(self, first: str) -> None:
        if len(self.names) > 1:
            return
        for separator, what in SEPARATORS.items():
            if separator in first.strip() and separator != self.separator:
                problem = f"the header has {what} and no {SEPARATORS[self.separator]}"
                cure = "name it .tsv" if separator == "\t" else "save it with commas and the name .csv"
                if separator == ",":
                    cure = "name it .csv"
                raise fault(self.name, "line 1", f"wrong separator: {problem}", cure=cure)

    def _records(self, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the records that are not blank, each with the line (from 1) it starts on."""
        reader = csv.reader(text, delimiter=self.separator)
        before = 0
        try:
            for record in reader:
                if record:
                    yield before + 1, record
                before = reader.line_num
        except csv.Error as error:
            cure = "close every quotation mark, and give one measurement a row"
            raise fault(self.name, f"line {before + 1}", f"it cannot be parsed ({error})", cure=cure) from error


class CheckedStream:
    """Bytes on their way to the parser; refuses what is not UTF-8 text in lines of at most `longest` bytes."""

    def __init__(self, stream: IO[bytes], name: str, longest: int) -> None:
        self.stream = stream
        self.name = name
        self.longest = longest
        self.closed = False
        self.lines_before = 0
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def read(self, size: int = -1) -> bytes:
        """Return up to this many bytes, checked."""
        try:
            chunk = self.stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _truncated(self.name) from error
        self.check(chunk)
        self.lines_before += chunk.count(b"\n")
        return chunk

    def check(self, chunk: bytes) -> None:
        """Raise for a NUL byte, a line without end, or a byte that is not UTF-8."""
        nul = chunk.find(b"\0")
        if nul >= 0:
            line = self.lines_before + chunk.count(b"\n", 0, nul) + 1
            cure = "save it as UTF-8 text; it may be UTF-16 or a binary file"
            raise fault(self.name, f"line {line}", "a NUL byte", cure=cure)
        if len(chunk) >= self.longest and b"\n" not in chunk and b"\r" not in chunk:
            raise _endless(self.name, self.lines_before + 1, self.longest)
        try:
            self.decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line = self.lines_before + error.object.count(b"\n", 0, error.start) + 1
            byte = f"byte 0x{error.object[error.start]:02x}"
            raise fault(self.name, f"line {line}", f"{byte} is not UTF-8", cure="save the table as UTF-8") from error

    def readable(self) -> bool:
        """Return True; pyarrow asks."""
        return True

    def writable(self) -> bool:
        """Return False; pyarrow asks."""
        return False

    def seekable(self) -> bool:
        """Return False; pyarrow asks."""
        return False

    def close(self) -> None:
        """Mark as closed; whoever opened the stream closes it."""
        self.closed = True


def _empty(name: str) -> VihierError:
    return fault(name, "the file is empty", cure="give a table with a header and rows")


def _truncated(name: str) -> VihierError:
    return fault(name, "the gzip file is truncated or damaged", cure="download or compress it again")


def _endless(name: str, line: int | None, longest: int) -> VihierError:
    where = "a line" if line is None else f"line {line}"
    problem = f"{where} is longer than {longest:,} bytes"
    return fault(name, problem, cure="give a long table, one measurement a row, and close every quotation mark")
