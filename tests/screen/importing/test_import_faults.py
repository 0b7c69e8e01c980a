"""What is wrong with a file is said in one line that names it, with exit status 2 and nothing left behind."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vihier.cli import main

CHRONOS = ["chronos", "chronos/TinyReadcounts.csv"]
DEPMAP = ["depmap", "depmap/AvanaLogfoldChange.csv"]
MAGECK = ["mageck", "mageck/counts.txt", "--samples", "mageck/samples.csv"]
BAGEL = ["bagel", "bagel/HCT116.foldchange", "--line", "HCT116"]
HDF5 = [
    "chronos",
    "spoilt.hdf5",
    "--sequence-map",
    "chronos/TinySequenceMap.csv",
    "--guide-map",
    "chronos/TinyGuideMap.csv",
]
SEQUENCES, GUIDES, COUNTS = "chronos/TinySequenceMap.csv", "chronos/TinyGuideMap.csv", "chronos/TinyReadcounts.csv"


@pytest.fixture
def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an import that must be refused; return what it says."""
    monkeypatch.chdir(folder)

    def run(*arguments: str, out: str = "screen.parquet") -> str:
        before = sorted(folder.rglob("*"))
        assert main(["import", *arguments, "--out", out]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
        assert sorted(folder.rglob("*")) == before
        return said.err

    return run


# What is spoilt: the command, the file, the text that is there once, what stands there instead, what must be said.
SPOILT: dict[str, tuple[list[str], str, str, str, list[str]]] = {
    "no sample column": (CHRONOS, SEQUENCES, "sequence_ID", "name", ["column 'sequence_ID'", "missing", "'name'"]),
    "no line column": (CHRONOS, SEQUENCES, "cell_line_name", "x", ["column 'ModelID'", "missing"]),
    "no batch column": (CHRONOS, SEQUENCES, "pDNA_batch,", "batch,", ["column 'pDNA_batch' is missing"]),
    "no gene column": (CHRONOS, GUIDES, ",gene,", ",target,", ["column 'gene'", "missing"]),
    "unmapped sample": (CHRONOS, SEQUENCES, "KU_B,SC-2", "KU_C,SC-2", ["'KU_B' is missing", "nearest is", COUNTS]),
    "sample twice in the map": (
        CHRONOS,
        SEQUENCES,
        "KU_B,SC-2",
        "KU_A,SC-2",
        ["line 5", "'KU_A' is there twice, first at line 4"],
    ),
    "sample twice in the matrix": (CHRONOS, COUNTS, "HEL_B,", "HEL_A,", ["'HEL_A' is there twice"]),
    "sgRNA twice in the matrix": (CHRONOS, COUNTS, ",CCC,", ",AAA,", ["'AAA' is there twice", "columns 2 and 3"]),
    "sample without a batch": (CHRONOS, SEQUENCES, "HEL_B,SC-1,21,1", "HEL_B,SC-1,21,", ["'HEL_B' has no plasmid"]),
    "batch without a plasmid": (CHRONOS, SEQUENCES, "pool_2,pDNA,0,2", "pool_2,pDNA,0,1", ["'KU_A'", "batch '2'"]),
    "sample without a line": (
        CHRONOS,
        SEQUENCES,
        "2DS,ACH-000074,True\nKU_B",
        "2DS,,True\nKU_B",
        ["'KU_A' has no line"],
    ),
    "negative count": (CHRONOS, COUNTS, "60,20", "-60,20", ["row 'HEL_B', column 'AAA'", "-60 is negative"]),
    "infinite count": (CHRONOS, COUNTS, "60,20", "inf,20", ["row 'HEL_B', column 'AAA'", "infinite"]),
    "text in counts": (CHRONOS, COUNTS, "60,20", "many,20", ["line 3, column 'AAA'", "'many' is not a number"]),
    "decimal comma": (CHRONOS, COUNTS, "60,20", '"60,5",20', ["line 3, column 'AAA'", "decimals with a point"]),
    "row too short": (CHRONOS, COUNTS, "60,20,80", "60,80", ["line 3", "6 fields where the header has 7"]),
    "unclosed quotation mark": (CHRONOS, COUNTS, "HEL_B", '"HEL_B', ["line 3"]),
    "no reads": (CHRONOS, COUNTS, "pool_2,10,10,10,10,10,50", "pool_2,0,0,0,0,0,0", ["'pool_2' has no reads"]),
    "row without a label": (CHRONOS, COUNTS, "HEL_B,", ",", ["line 3", "label is missing"]),
    "column without a name": (CHRONOS, COUNTS, ",TGC", ",", ["column 7 has no name"]),
    "sgRNA of two genes": (
        CHRONOS,
        GUIDES,
        "CCC,",
        "AAA,chr7_9_+,BRAF (673),1,,True\nCCC,",
        ["line 3", "'AAA' has gene 'BRAF (673)' here and 'PIK3CB (5291)' at line 2", "--on-conflict drop"],
    ),
    "day that is no number": (CHRONOS, SEQUENCES, "HEL_B,SC-1,21", "HEL_B,SC-1,late", ["'days'", "'late'"]),
    "flag that is none": (CHRONOS, SEQUENCES, "False", "perhaps", ["'PassesQC'", "neither true nor false"]),
    "counts as fold changes": (DEPMAP, "depmap/AvanaLogfoldChange.csv", "-2.5", "812", ["812 is no log2 fold", "TTT"]),
    "line without a lineage": (
        DEPMAP,
        "depmap/Model.csv",
        "Lymphoid",
        "",
        ["'OncotreeLineage', line 3", "'ACH-000074'"],
    ),
    "line not in the models": (DEPMAP, "depmap/Model.csv", "ACH-000074", "ACH-000075", ["'ACH-000074' is missing"]),
    "another library's map": (
        DEPMAP,
        "depmap/AvanaLogfoldChange.csv",
        ",HEL_A,HEL_B,KU_A",
        ",a,b,c",
        ["neither its columns nor its rows are samples of the map"],
    ),
    "sheet without a sample": (MAGECK, "mageck/samples.csv", "HEL_T14_B", "HEL_T14_C", ["'HEL_T14_B' is missing"]),
    "sheet with one too many": (
        MAGECK,
        "mageck/samples.csv",
        "T0,HEL",
        "T1,HEL,initial,leukemia,x\nT0,HEL",
        ["'T1' is not in mageck/counts.txt"],
    ),
    "unknown role": (MAGECK, "mageck/samples.csv", "initial", "control", ["column 'role', line 2", "'control'"]),
    "no initial sample": (MAGECK, "mageck/samples.csv", "initial", "final", ["none of the samples is a plasmid"]),
    "line with two lineages": (
        MAGECK,
        "mageck/samples.csv",
        "leukemia,second",
        "skin,second",
        ["'HEL' has 'skin' here"],
    ),
    "sheet column of the screen's own": (MAGECK, "mageck/samples.csv", "note", "lfc", ["column 'lfc'", "rename"]),
    "sheet column with a comma": (
        MAGECK,
        "mageck/samples.csv",
        "note",
        '"a,b"',
        ["column 'a,b' would break the header"],
    ),
    "sgRNA in two rows": (
        MAGECK,
        "mageck/counts.txt",
        "A1CF_2",
        "A1CF_1",
        ["'A1CF_1' is there twice, as rows 1 and 2"],
    ),
    "sample twice in the table": (
        MAGECK,
        "mageck/counts.txt",
        "HEL_T14_B",
        "HEL_T14_A",
        ["'HEL_T14_A' is there twice"],
    ),
    "negative count of MAGeCK": (MAGECK, "mageck/counts.txt", "883", "-883", ["negative", "row 'A1CF_1'"]),
    "text among fold changes": (BAGEL, "bagel/HCT116.foldchange", "-3.125", "low", ["line 2, column 'T18_A'", "'low'"]),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_file_is_refused(case: str, spoil: Callable[..., Path], refused: Callable[..., str]) -> None:
    command, name, old, new, words = SPOILT[case]
    spoil(name, old, new)
    said = refused(*command)
    for word in words:
        assert word in said


def spoil_hdf5(path: Path, how: str) -> None:
    """Write the Chronos layout with one thing wrong."""
    text = h5py.string_dtype()
    samples = ["HEL_A", "HEL_B", "KU_A", "KU_B", "pool_1a", "pool_1b", "pool_2"]
    sgrnas = ["AAA", "CCC", "GGG", "TTT", "ACG", "TGC"]
    pickled = np.frombuffer(b"\x80\x04\x95cposix\nsystem\n", dtype=np.uint8)
    with h5py.File(path, "w") as file:
        if how == "pandas store":
            file.attrs["PYTABLES_FORMAT_VERSION"] = "2.1"
            file.create_group("df").attrs["pandas_type"] = "frame"
            return
        if how == "another layout":
            file["matrix"] = np.ones((7, 6))
            return
        if how != "data elsewhere":
            data = np.ones((7, 6)) if how != "text" else np.full((7, 6), b"12", dtype="S2")
            file["data"] = data if how != "empty" else np.ones((7, 0))
        else:
            file["data"] = h5py.ExternalLink("other.hdf5", "data")
        if how == "pickled labels":
            objects = file.create_dataset("dim_0", (7,), dtype=h5py.vlen_dtype(np.uint8))
            for place in range(7):
                objects[place] = pickled
        elif how == "opaque labels":
            file["dim_0"] = np.array([np.void(pickled.tobytes())] * 7)
        elif how == "labels in another encoding":
            file.create_dataset("dim_0", data=np.array([b"\xff\xfe"] * 7, dtype="S2"))
        else:
            file.create_dataset("dim_0", data=samples[: 6 if how == "too few labels" else 7], dtype=text)
        file.create_dataset("dim_1", data=["AAA"] * 6 if how == "label twice" else sgrnas, dtype=text)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pandas store", ["pandas or PyTables", "pickled", "write_hdf5"]),
        ("another layout", ["no dataset 'data'", "'matrix'"]),
        ("data elsewhere", ["'data' is not a dataset of this file itself"]),
        ("text", ["not a matrix of numbers"]),
        ("empty", ["empty"]),
        ("pickled labels", ["'dim_0' holds objects that may be pickled"]),
        ("opaque labels", ["'dim_0' holds objects that may be pickled"]),
        ("labels in another encoding", ["'dim_0'", "not UTF-8"]),
        ("too few labels", ["'dim_0' is of shape (6,)"]),
        ("label twice", ["'AAA' is there twice"]),
    ],
)
def test_hdf5_that_is_not_a_plain_matrix_is_refused(
    how: str, words: list[str], folder: Path, refused: Callable[..., str]
) -> None:
    spoil_hdf5(folder / "spoilt.hdf5", how)
    said = refused(*HDF5)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89HDF\r\n\x1a\nno more", ["not a readable HDF5 file"]),
        (b"", ["empty"]),
        (b"PK\x03\x04 a workbook", ["zip archive or a spreadsheet"]),
        (b"\x80\x04\x95 a pickle", ["pickle, which vihier never loads"]),
        (b"one\n1\n", ["none of numbers"]),
        (b",AAA\n", ["no rows"]),
        (b",AAA\nHEL_A,1\0\n", ["NUL"]),
        (b",AAA\nHEL_A,\xff\n", ["not UTF-8"]),
    ],
)
def test_what_is_no_matrix_is_refused(
    content: bytes, words: list[str], folder: Path, refused: Callable[..., str]
) -> None:
    (folder / "spoilt.hdf5").write_bytes(content)  # what it is is looked at, not what it is called
    said = refused(*HDF5)
    for word in words:
        assert word in said


def test_a_truncated_gzip_file_is_refused(folder: Path, refused: Callable[..., str]) -> None:
    whole = gzip.compress((folder / COUNTS).read_bytes())
    (folder / "chronos/TinyReadcounts.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused("chronos", "chronos/TinyReadcounts.csv.gz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chronos", "missing.csv"], ["missing.csv", "no such file"]),
        (["chronos", "missing.csv", *HDF5[2:]], ["missing.csv", "no such file"]),
        (["chronos", "mageck/counts.txt"], ["no 'countsSequenceMap.csv' or", "--sequence-map"]),
        ([*CHRONOS, "--sequence-map", "a.csv", "--sequence-map", "b.csv"], ["--sequence-map is given 2 times for 1"]),
        ([*CHRONOS, "--pseudocount", "0"], ["pseudocount 0"]),
        ([*CHRONOS, "--min-plasmid", "-1"], ["-1: must be 0 or above"]),
        ([*CHRONOS, "--centre", "nonessential"], ["--nonessential"]),
        ([*CHRONOS, "--centre", "median", "--nonessential", "controls.txt"], ["--centre nonessential"]),
        ([*CHRONOS, "--min-plasmid", "1e9"], ["no value is left"]),
        ([*CHRONOS, "--line-map", "chronos/TinyGuideMap.csv"], ["column 'ModelID'", "missing"]),
        ([*MAGECK, "--centre", "nonessential", "--nonessential", "mageck/samples.csv"], ["none of the 5 non-ess"]),
        (["mageck", "chronos/TinyReadcounts.hdf5", *MAGECK[2:]], ["HDF5", "sgRNA, gene"]),
        (BAGEL[:2], ["--samples", "--line"]),
        ([*BAGEL, "--samples", "mageck/samples.csv"], ["either --samples"]),
        ([*DEPMAP, "--guide-map", GUIDES, "--copy-number", "controls.txt"], ["controls.txt"]),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: list[str], words: list[str], refused: Callable[..., str]
) -> None:
    said = refused(*arguments)
    for word in words:
        assert word in said


def test_the_table_needs_a_name_and_a_place(refused: Callable[..., str]) -> None:
    assert ".parquet, .csv" in refused(*CHRONOS, out="screen.xlsx")
    assert "does not exist" in refused(*CHRONOS, out="nowhere/screen.csv")


def test_an_old_table_outlives_a_refused_import(
    folder: Path, spoil: Callable[..., Path], refused: Callable[..., str]
) -> None:
    (folder / "screen.csv").write_text("precious\n")
    spoil("depmap/AvanaLogfoldChange.csv", "-2.5", "812")
    refused(*DEPMAP, out="screen.csv")
    assert (folder / "screen.csv").read_text() == "precious\n"
