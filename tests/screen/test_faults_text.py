"""Faults of text files: each is refused in one line that names the place, the value and a cure."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from vihier.errors import VihierError
from vihier.screen import read_screen

HEADER = "sgrna,hugo_symbol,depmap_id,lineage,replicate_id,lfc\n"
ROWS = "AAA,KRAS,ACH-1,skin,A,0.5\nAAA,KRAS,ACH-1,skin,B,0.25\nCCC,KRAS,ACH-1,skin,A,-0.5\nGGG,BRAF,ACH-2,lung,A,-1.5\n"
TABLE = HEADER + ROWS


def with_row(row: str) -> str:
    """The table with one more row, on line 6."""
    return TABLE + row + "\n"


def with_column(name: str, *values: str) -> str:
    """The table's first rows (lines 2, 3, ...) with one more column."""
    lines = TABLE.splitlines()
    return "\n".join(f"{line},{value}" for line, value in zip(lines, [name, *values], strict=False)) + "\n"


# A header of 6 columns in which no column is the one named.
NO_LFC = TABLE.replace("lfc", "LFC")
LONG = HEADER + "".join(f"S{i:05d},KRAS,ACH-1,skin,A,{i / 1e5}\n" for i in range(60_000))
GZIPPED = gzip.compress(LONG.encode())

# id: file name, content, what the message says
FAULTS: dict[str, tuple[str, str | bytes, list[str]]] = {
    # The table as a whole.
    "empty": ("a.csv", "", ["empty", "give a table"]),
    "byte order mark only": ("a.csv", b"\xef\xbb\xbf", ["empty"]),
    "blank lines only": ("a.csv", "\n\n   \n", ["empty"]),
    "header only": ("a.csv", HEADER, ["header and no rows"]),
    "header without line end": ("a.csv", HEADER.strip(), ["header and no rows"]),
    "no header": ("a.csv", ROWS, ["'sgrna'", "'lfc'", "missing", "'KRAS'", "map it"]),
    "comment first": ("a.csv", "# made by x\n" + TABLE, ["line 1", "'#'", "take comment lines out"]),
    "only missing lfc": ("a.csv", HEADER + "AAA,KRAS,ACH-1,skin,A,NA\n", ["'lfc'", "every value is missing"]),
    # Columns.
    "missing column": ("a.csv", "sgrna,hugo_symbol,lfc\nA,B,1\n", ["'depmap_id' is missing", "columns={'depmap_id'"]),
    "column in another case": ("a.csv", NO_LFC, ["'lfc' is missing", "'LFC'", "--column lfc=LFC"]),
    "columns called otherwise": (
        "a.csv",
        TABLE.replace("hugo_symbol", "Gene").replace("depmap_id", "ModelID"),
        ["'hugo_symbol' and 'depmap_id' are missing", "--column hugo_symbol=Gene --column depmap_id=ModelID"],
    ),
    "duplicate column": ("a.csv", TABLE.replace("lineage", "lfc"), ["'lfc'", "columns 4 and 6", "rename"]),
    "both spellings of a column": (
        "a.csv",
        TABLE.replace("lineage,replicate_id", "pdna_batch,p_dna_batch"),
        ["'pdna_batch'", "'p_dna_batch'", "keep one"],
    ),
    # lfc.
    "text in lfc": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,high"), ["'lfc', line 6", "'high'", "give a number"]),
    "decimal comma": ("a.csv", with_row('TTT,BRAF,ACH-2,lung,A,"0,5"'), ["'lfc', line 6", "'0,5'", "with a point"]),
    "hexadecimal lfc": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,0x1F"), ["'lfc', line 6", "'0x1F'"]),
    "infinite lfc": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,-inf"), ["'lfc', line 6", "-inf", "log2 fold change"]),
    "overflowing lfc": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,1e400"), ["'lfc', line 6", "infinite"]),
    "absurdly high lfc": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,801"), ["'lfc', line 6", "801", "[-20, 20]"]),
    "absurdly low lfc": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,-20.1"), ["'lfc', line 6", "-20.1", "[-20, 20]"]),
    # Keys.
    "missing sgrna": ("a.csv", with_row(",BRAF,ACH-2,lung,A,1"), ["'sgrna', line 6", "missing", "fill it in"]),
    "missing gene": ("a.csv", with_row("TTT,NA,ACH-2,lung,A,1"), ["'hugo_symbol', line 6", "'NA'", "name the gene"]),
    "blank line label": ("a.csv", with_row("TTT,BRAF,   ,lung,A,1"), ["'depmap_id', line 6", "'   '", "fill it in"]),
    "missing replicate": (
        "a.csv",
        with_row("TTT,BRAF,ACH-2,lung,,1"),
        ["'replicate_id', line 6", "take the column out"],
    ),
    "missing lineage": ("a.csv", with_row("TTT,BRAF,ACH-2,nan,A,1"), ["'lineage', line 6", "--single-lineage"]),
    "missing screen": ("a.csv", with_column("screen", "broad", ""), ["'screen', line 3", "name the screen"]),
    "control character": ("a.csv", with_row("T\x07T,BRAF,ACH-2,lung,A,1"), ["'sgrna', line 6", r"'T\x07T'", "take"]),
    "invisible character": (
        "a.csv",
        with_row("TTT,BR\u200bAF,ACH-2,lung,A,1"),
        ["'hugo_symbol', line 6", r"'BR\u200bAF'", "invisible"],
    ),
    "endless label": (
        "a.csv",
        with_row(f"TTT,{'B' * 600},ACH-2,lung,A,1"),
        ["'hugo_symbol', line 6", "600 characters", "at most 500"],
    ),
    # Nesting and uniqueness.
    "sgRNA with two genes": (
        "a.csv",
        with_row("AAA,BRAF,ACH-2,lung,A,1"),
        ["'hugo_symbol', line 6", "'AAA'", "'BRAF'", "'KRAS' at line 2", "on_conflict='drop'"],
    ),
    "line with two lineages": (
        "a.csv",
        with_row("TTT,BRAF,ACH-2,skin,A,1"),
        ["'lineage', line 6", "'ACH-2'", "'skin'", "'lung' at line 5", "one lineage"],
    ),
    "duplicate": (
        "a.csv",
        with_row("AAA,KRAS,ACH-1,skin,B,0.3"),
        ["'replicate_id', line 6", "duplicate of line 3", "'AAA'", "'ACH-1|B'", "take one out"],
    ),
    "exact copy of a named replicate": ("a.csv", with_row("AAA,KRAS,ACH-1,skin,B,0.25"), ["line 6", "line 3"]),
    "labels that run together": (
        "a.csv",
        "sgrna,hugo_symbol,depmap_id,replicate_id,lfc\na,K,L|A,B,1\na,K,L,A|B,1\n",
        ["'L|A|B'", "rename"],
    ),
    # Covariates.
    "text in a number column": (
        "a.csv",
        with_column("copy_number", "1.0", "high"),
        ["'copy_number', line 3", "'high'", "NA"],
    ),
    "infinite covariate": ("a.csv", with_column("rna_expr", "1.0", "inf"), ["'rna_expr', line 3", "inf", "finite"]),
    "neither true nor false": (
        "a.csv",
        with_column("is_mutated", "TRUE", "maybe"),
        ["'is_mutated', line 3", "'maybe'", "TRUE"],
    ),
    "two is not a truth value": ("a.csv", with_column("is_mutated", "0", "2"), ["'is_mutated', line 3", "'2'"]),
    # Separators, rows and quotation marks.
    "semicolons": ("a.csv", TABLE.replace(",", ";"), ["line 1", "wrong separator", "semicolons", "commas"]),
    "tabs in .csv": ("a.csv", TABLE.replace(",", "\t"), ["line 1", "wrong separator", "tabs", ".tsv"]),
    "commas in .tsv": ("a.tsv", TABLE, ["line 1", "wrong separator", "commas", ".csv"]),
    "spaces in .txt": ("a.txt", TABLE.replace(",", " "), ["line 1", "wrong separator", "spaces"]),
    "short row": ("a.csv", with_row("TTT,BRAF,ACH-2"), ["line 6", "3 fields", "6", "as many fields"]),
    "long row": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,A,1,2"), ["line 6", "7 fields", "6"]),
    "separators at the end of every row": ("a.csv", HEADER + ROWS.replace("\n", ",\n"), ["line 2", "7 fields"]),
    "unclosed quotation mark": ("a.csv", with_row('"TTT,BRAF,ACH-2,lung,A,1') + ROWS, ["line 6", "quotation mark"]),
    "quotation mark that swallows rows": (
        "a.csv",
        with_row('TTT,BRAF,ACH-2,lung,"A,1') + 'TTG,BRAF,ACH-2,lung,"B,1\n',
        ["'replicate_id', line 6", "several lines", "close the quotation mark"],
    ),
    "quotation mark that swallows the rest": (
        "a.csv",
        with_column("note", "x", '"x', "x", "x"),
        ["'note', line 3", "several lines"],
    ),
    "line of 10 MB": ("a.csv", with_row(f"TTT,BRAF,{'x' * 10_000_000},lung,A,1"), ["line 6", "longer than", "give"]),
    "header of 10 MB": ("a.csv", "x" * 10_000_000 + "\n" + TABLE, ["line 1", "longer than"]),
    "field of 200 kB in a ragged row": ("a.csv", with_row(f"TTT,{'x' * 200_000}"), ["line 6", "field"]),
    # Bytes.
    "NUL byte": ("a.csv", with_row("TTT,BR\0AF,ACH-2,lung,A,1"), ["line 6", "NUL", "UTF-8"]),
    "NUL byte far down": ("a.csv", LONG + "TTT,BR\0AF,ACH-2,lung,A,1\n", ["line 60002", "NUL"]),
    "Latin-1": ("a.csv", with_row("TTT,BRAF,ACH-2,lung,é,1").encode("latin-1"), ["line 6", "0xe9", "UTF-8"]),
    "mixed encodings": (
        "a.csv",
        with_row("TTT,BRAF,ACH-2,lung,é,1").encode() + "TTT,BRAF,ACH-2,lung,é,1\n".encode("latin-1"),
        ["line 7", "0xe9", "save"],
    ),
    "Latin-1 far down": ("a.csv", LONG.encode() + b"TTT,BRAF,ACH-2,lung,\xe9,1\n", ["line 60002", "0xe9"]),
    "Latin-1 header": ("a.csv", TABLE.encode().replace(b"sgrna", b"sgrn\xe0"), ["line 1", "0xe0", "UTF-8"]),
    "UTF-16": ("a.csv", TABLE.encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
    "UTF-16 without a mark": ("a.csv", TABLE.encode("utf-16-le"), ["line 1", "NUL", "UTF-16"]),
    # Not delimited text at all.
    "pickle": ("a.csv", pickle.dumps({"lfc": [1.0]}), ["pickle", "never loads", "CSV or Parquet"]),
    "web page": ("a.csv", "<!DOCTYPE html>\n<html><body>Log in</body></html>\n", ["web page", "download"]),
    "web page after blanks": ("a.tsv", "\n  <html></html>\n", ["web page", "download"]),
    "JSON": ("a.csv", '[{"lfc": 1}]\n', ["JSON", "convert"]),
    "spreadsheet": ("a.csv", b"PK\x03\x04" + bytes(20), ["spreadsheet", "CSV"]),
    "HDF5": ("a.csv", b"\x89HDF\r\n\x1a\n" + bytes(20), ["HDF5", "export"]),
    "Parquet called .csv": ("a.csv", b"PAR1" + bytes(20), ["Parquet", "name it .parquet"]),
    "unknown ending": ("a.xlsx", TABLE, ["'.xlsx'", ".csv", ".parquet"]),
    "no ending": ("table", TABLE, ["ends in ''", ".csv"]),
    # Compression.
    "truncated gzip": ("a.csv.gz", GZIPPED[:-2_000], ["gzip", "truncated", "again"]),
    "gzip cut in its header": ("a.csv.gz", GZIPPED[:8], ["gzip", "truncated"]),
    "gzip with a wrong checksum": ("a.csv.gz", GZIPPED[:-8] + bytes(8), ["gzip", "damaged"]),
    "gzip damaged inside": ("a.csv.gz", GZIPPED[:5_000] + b"\xff" * 500 + GZIPPED[5_500:], ["gzip", "damaged"]),
    "gzip of nothing": ("a.csv.gz", gzip.compress(b""), ["empty"]),
    "not gzip": ("a.csv.gz", TABLE, ["says gzip", "take .gz off"]),
    "gzip called .csv": ("a.csv", GZIPPED, ["gzipped", ".gz"]),
}


def refusal(source: object, **options: object) -> str:
    """The message of the one-line refusal that reading ends in."""
    with pytest.raises(VihierError) as caught:
        read_screen(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable(), message  # no line break, no control character
    assert "; " in message, message  # the cure follows
    return message


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_a_file_is_named_in_one_line(name: str, save: Callable[[str, str | bytes], Path]) -> None:
    file, content, words = FAULTS[name]
    path = save(file, content)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert [word for word in words if word not in message] == [], message


def test_directory_is_refused(tmp_path: Path) -> None:
    assert "directory; name one file" in refusal(tmp_path)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file; check the name" in refusal(tmp_path / "a.csv")


def test_address_is_refused() -> None:
    assert "no such file; download it first" in refusal("https://example.org/screen.csv")


def test_unreadable_file_is_refused(save: Callable[[str, str | bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("a.csv", TABLE)

    def denied(*_: object, **__: object) -> None:
        # The rights of the file alone do not keep root, who may run the tests, from reading it.
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "cannot be read (Permission denied); check the file and its rights" in refusal(path)


def test_something_else_than_a_table_is_refused() -> None:
    assert "type list" in refusal([1, 2, 3])


MAPPINGS: dict[str, tuple[dict[object, object], list[str]]] = {
    "to a column that is not there": ({"lfc": "LFC2"}, ["'LFC2' is not in the table", "nearest is 'lfc'"]),
    "the wrong way round": ({"LFC": "lfc"}, ["'lfc' is needed", "ours=theirs"]),
    "twice to one column": ({"lfc": "lfc", "rna_expr": "lfc"}, ["'lfc'", "more than one name"]),
    "to a number": ({"lfc": 5}, ["{'lfc': 5}", "two names"]),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_faulty_mapping_is_refused(name: str, save: Callable[[str, str | bytes], Path]) -> None:
    mapping, words = MAPPINGS[name]
    message = refusal(save("a.csv", TABLE), columns=mapping)
    assert [word for word in words if word not in message] == [], message


def test_mapping_the_wrong_way_round_to_a_missing_column_is_explained(save: Callable[[str, str | bytes], Path]) -> None:
    message = refusal(save("a.csv", NO_LFC), columns={"LFC": "lfc"})
    assert "perhaps columns={'lfc': 'LFC'} was meant" in message


def test_unknown_choice_is_refused(save: Callable[[str, str | bytes], Path]) -> None:
    assert "on_conflict='warn'" in refusal(save("a.csv", TABLE), on_conflict="warn")


def test_dropping_every_sgrna_is_refused(save: Callable[[str, str | bytes], Path]) -> None:
    table = HEADER + "AAA,KRAS,ACH-1,skin,A,0.5\nAAA,BRAF,ACH-1,skin,B,0.5\n"
    assert "every sgRNA has two genes" in refusal(save("a.csv", table), on_conflict="drop")


def test_lines_are_counted_as_an_editor_does(save: Callable[[str, str | bytes], Path]) -> None:
    # Blank lines are skipped as rows and still counted as lines; so are Windows line ends and a quoted separator.
    table = "\r\n" + with_row("\n\n" + '"T,T",BRAF,ACH-2,lung,A,high').replace("\n", "\r\n")
    assert "line 9: value 'high'" in refusal(save("a.csv", table))
