"""Columns of a table -> label codes, numbers and flags; what cannot be one is refused with its row."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from vihier.errors import VihierError
from vihier.screen.faults import fault, shown

MISSING = (
    "",
    "NA",
    "na",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "NAN",
    "-nan",
    "-NaN",
    "#N/A",
    "#NA",
    "<NA>",
    "NULL",
    "null",
    "None",
)
TRUE = frozenset({"true", "t", "yes", "1", "1.0"})
FALSE = frozenset({"false", "f", "no", "0", "0.0"})
# True and false, in any of their spellings and of cases letter by letter, are some eighty words.
MOST_SPELLINGS = 1000
WHOLE = r"^([+-]?\d+)\.0+$"
NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)$"
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
LONGEST_LABEL = 500
UNSEEN = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table as it was read.

    Attributes
    ----------
    source
        The file or frame, for messages.
    name, header
        What the screen calls it, and what the table calls it.
    data
        Its values, [rows of the table].
    row_name
        Row (from 0) to what the user calls it: ``line 17``, ``row 15 (counted from 0)``.
    """

    source: str
    name: str
    header: str
    data: pa.ChunkedArray
    row_name: Callable[[int], str]

    def fault(self, problem: str, *, cure: str, row: int | None = None) -> VihierError:
        """Return the error that names this column, the row if there is one, the problem and the cure."""
        where = f"column {self.name!r}" + ("" if self.header == self.name else f" (here {shown(self.header)})")
        if row is not None:
            where += f", {self.row_name(row)}"
        return fault(self.source, where, problem, cure=cure)


@dataclass(frozen=True, eq=False)
class Labels:
    """A column of labels: int32 codes [rows] (-1 is missing) into sorted unique labels, object [labels].

    ``n_trimmed`` is the number of rows whose label had white space around it.
    """

    codes: np.ndarray
    labels: np.ndarray
    n_trimmed: int = 0

    @property
    def all_missing(self) -> bool:
        """Whether no row has a label."""
        return len(self.labels) == 0


def label_of(value: object) -> str:
    """Return the label that a single value stands for: 3, 3.0, ``"3"`` and ``" 3.0 "`` are all ``"3"``."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return re.sub(WHOLE, r"\1", str(value).strip(), flags=re.ASCII)


def flag_of(value: object) -> float | None:
    """Return 1.0 or 0.0 for a word for true or false (or several joined by ``;``: any true), else None."""
    words = {word.strip().casefold() for word in str(value).split(";")}
    if not words <= TRUE | FALSE:
        return None
    return float(bool(words & TRUE))


def encode(column: Column) -> tuple[np.ndarray, pa.Array]:
    """Return int32 codes [rows] (-1 is null) and the values that occur, in no particular order."""
    data = column.data
    try:
        if pt.is_dictionary(data.type):
            array = data.unify_dictionaries().combine_chunks()
        else:
            array = data.combine_chunks().dictionary_encode()
    except pa.ArrowNotImplementedError as error:
        raise column.fault(f"it holds {kind_name(data.type)}", cure="give one plain value a row") from error
    if isinstance(array, pa.ChunkedArray):  # pyarrow leaves it chunked when there is no chunk
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], data.type)
    codes = array.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    return _occurring(codes, array.dictionary)


def _occurring(codes: np.ndarray, values: pa.Array) -> tuple[np.ndarray, pa.Array]:
    # A category that no row has, or a value of a later part of the column, is no concern of these rows.
    occurs = np.zeros(len(values) + 1, dtype=bool)
    occurs[codes] = True  # -1 falls on the last, spare place
    if occurs[:-1].all():
        return codes, values
    occurs[-1] = False
    place = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    place[-1] = -1
    return place[codes], values.filter(pa.array(occurs[:-1]))


def is_text(data: pa.ChunkedArray) -> bool:
    """Whether the column holds strings."""
    kind = data.type.value_type if pt.is_dictionary(data.type) else data.type
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def labels(column: Column, *, key: bool = False) -> Labels:
    """Read a column as labels.

    White space around a label is taken off; whole numbers written as floats lose the ``.0``, so that a batch is the
    same in a source that has integers and in one that has strings. With ``key``, dates, truth values and labels with
    characters that cannot be seen are refused.
    """
    codes, values = encode(column)
    text, trimmed = cleaned(column, codes, values, key)
    found = text.dictionary_encode()
    order = pc.array_sort_indices(found.dictionary).to_numpy()  # by UTF-8 bytes, which is by code point
    position = np.empty(len(order) + 1, dtype=np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    position[-1] = -1
    of_value = np.append(position[found.indices.fill_null(-1).to_numpy(zero_copy_only=False)], np.int32(-1))
    names = np.array(found.dictionary.to_pylist(), dtype=object)
    return Labels(of_value.astype(np.int32)[codes], names[order], int(np.append(trimmed, False)[codes].sum()))


def cleaned(column: Column, codes: np.ndarray, values: pa.Array, key: bool) -> tuple[pa.Array, np.ndarray]:
    """Return the label that each value stands for, null where it is missing, and which had white space around them.

    Parameters
    ----------
    column, codes, values
        A column and what `encode` made of it.
    key
        As in `labels`.
    """
    raw = _texts(column, values, key)
    text = pc.utf8_trim_whitespace(raw)
    missing = pc.or_(pc.is_in(text, value_set=pa.array(MISSING)), pc.is_null(text))
    trimmed = pc.and_(pc.not_equal(raw, text), pc.invert(missing)).fill_null(False)
    text = pc.replace_substring_regex(pc.if_else(missing, None, text), WHOLE, r"\1")
    if key:
        _refuse_long(column, codes, text)
        unseen = pc.match_substring_regex(text, UNSEEN).fill_null(False).to_numpy(zero_copy_only=False)
        if unseen.any():
            row = first_row(codes, unseen)
            value = shown(text[int(codes[row])].as_py())
            cure = "take the control or invisible characters out"
            raise column.fault(f"label {value} holds a character that cannot be seen", row=row, cure=cure)
    return text, trimmed.to_numpy(zero_copy_only=False)


def _refuse_long(column: Column, codes: np.ndarray, text: pa.Array) -> None:
    long = pc.greater(pc.utf8_length(text), LONGEST_LABEL).fill_null(False).to_numpy(zero_copy_only=False)
    if long.any():
        row = first_row(codes, long)
        value = text[int(codes[row])].as_py()
        problem = f"label {shown(value)} has {len(value):,} characters"
        raise column.fault(problem, row=row, cure=f"give labels of at most {LONGEST_LABEL} characters")


def numbers(column: Column) -> np.ndarray:
    """Read a column as float64 [rows], NaN where it is missing; what is not a number is refused with its row."""
    kind = column.data.type
    if pt.is_null(kind):
        return np.full(len(column.data), np.nan)
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        return _floats(column.data)
    if not is_text(column.data) and not pt.is_dictionary(kind):
        raise column.fault(f"it holds {kind_name(kind)}, not numbers", cure="give a column of numbers")
    codes, values = encode(column)
    if not is_text(column.data):
        return np.append(_floats(pa.chunked_array([values])), np.nan)[codes]
    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    wrong = ~_is_number_or_missing(text)
    if wrong.any():
        row = first_row(codes, wrong)
        value = values[int(codes[row])].as_py()
        cure = "give a number, or NA where there is none"
        if DECIMAL_COMMA.fullmatch(value.strip()):
            cure = "write decimals with a point"
        raise column.fault(f"value {shown(value)} is not a number", row=row, cure=cure)
    missing = pc.is_in(text, value_set=pa.array(MISSING))
    return np.append(_floats(pa.chunked_array([pc.if_else(missing, None, text).cast(pa.float64())])), np.nan)[codes]


def flags(column: Column) -> np.ndarray:
    """Read a column of TRUE/FALSE, T/F, yes/no or 1/0 as float64 1, 0 and NaN [rows]; anything else is refused.

    Several joined by ``;`` count as true if any of them is.
    """
    codes, values = encode(column)
    listed = values.to_pylist()
    flag = [None if value is None or str(value).strip() in MISSING else flag_of(value) for value in listed]
    wrong = np.array(
        [f is None and v is not None and str(v).strip() not in MISSING for f, v in zip(flag, listed, strict=True)]
    )
    if wrong.any():
        row = first_row(codes, wrong)
        value = shown(listed[int(codes[row])])
        raise column.fault(f"value {value} is neither true nor false", row=row, cure="write TRUE, FALSE, 1, 0 or NA")
    return np.array([np.nan if f is None else f for f in flag] + [np.nan])[codes]


def carried(column: Column) -> np.ndarray | Labels | None:
    """Read a column that vihier does not know: numbers if all are, else flags if all are, else labels.

    None where it is of a nested type, which is not carried.
    """
    kind = column.data.type
    if is_text(column.data):
        all_numbers, all_flags = what_text_holds(column)
        if all_numbers:
            return numbers(column)
        return flags(column) if all_flags else labels(column)
    if pt.is_boolean(kind):
        return flags(column)
    if pt.is_null(kind) or pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        return numbers(column)
    if pt.is_temporal(kind) or pt.is_dictionary(kind):
        return labels(column)
    return None


def what_text_holds(column: Column) -> tuple[bool, bool]:
    """Whether all values of a text column that are there are numbers, and whether all are words for true or false."""
    _, values = encode(column)
    text = pc.utf8_trim_whitespace(values.cast(pa.string())).unique()
    all_numbers = bool(_is_number_or_missing(text).all())
    if len(text) > MOST_SPELLINGS:
        return all_numbers, False
    words = {word for word in text.to_pylist() if word is not None and word not in MISSING}
    return all_numbers, all(word.casefold() in TRUE | FALSE for word in words)


def first_row(codes: np.ndarray, of_value: np.ndarray) -> int:
    """Return the first row whose value is marked; ``of_value`` is bool [values]."""
    return int(np.argmax(np.append(of_value, False)[codes]))


def _floats(data: pa.ChunkedArray) -> np.ndarray:
    # Not "safe": an integer above 2^53 is rounded, as any number is.
    return np.array(data.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(), dtype=np.float64)


def _is_number_or_missing(text: pa.Array) -> np.ndarray:
    number = pc.match_substring_regex(text, NUMBER)
    return pc.or_(number, pc.is_in(text, value_set=pa.array(MISSING))).fill_null(True).to_numpy(zero_copy_only=False)


def _texts(column: Column, values: pa.Array, key: bool) -> pa.Array:
    """Return the values as strings, before any cleaning."""
    kind = values.type
    if pt.is_floating(kind):
        return pa.array([None if v is None or v != v else label_of(v) for v in values.to_pylist()], pa.string())
    if pt.is_nested(kind) or (key and (pt.is_temporal(kind) or pt.is_boolean(kind))):
        raise column.fault(f"it holds {kind_name(kind)}, not labels", cure="give a column of text")
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise column.fault(f"it holds {kind_name(kind)}, not labels", cure="give a column of UTF-8 text") from error


def kind_name(kind: pa.DataType) -> str:
    """Return what a column of this type holds, in words."""
    if pt.is_nested(kind):
        return "lists or records"
    if pt.is_temporal(kind):
        return "dates or times"
    return "truth values" if pt.is_boolean(kind) else f"values of type {kind}"
