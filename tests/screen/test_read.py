"""What a table may look like and still be read as it was meant."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vihier.errors import ScreenWarning, VihierError
from vihier.screen import Screen, read_screen, require_lineage

Save = Callable[[str, str | bytes], Path]


@pytest.fixture
def expected(frame: pd.DataFrame) -> str:
    """Content hash of the small screen."""
    return read_screen(frame).hash


def same_rows_with_stray(text: str, header: str, values: list[str]) -> str:
    lines = text.splitlines()
    return "\n".join(f"{first},{line}" for first, line in zip([header, *values], lines, strict=True)) + "\n"


# What may be done to the small CSV table without changing what it says.
SAME: dict[str, tuple[str, Callable[[str], str | bytes]]] = {
    "plain": ("a.csv", lambda text: text),
    "byte order mark": ("a.csv", lambda text: b"\xef\xbb\xbf" + text.encode()),
    "Windows line ends": ("a.csv", lambda text: text.replace("\n", "\r\n")),
    "old Mac line ends": ("a.csv", lambda text: text.replace("\n", "\r")),
    "no line end at the end": ("a.csv", lambda text: text.rstrip("\n")),
    "blank lines": ("a.csv", lambda text: "\n" + text.replace("\n", "\n\n") + "\n\n"),
    "quoted values": ("a.csv", lambda text: text.replace("ACH-1", '"ACH-1"').replace("0.25", '"0.25"')),
    "tabs": ("a.tsv", lambda text: text.replace(",", "\t")),
    "tabs in .txt": ("a.txt", lambda text: text.replace(",", "\t")),
    "commas in .txt": ("a.txt", lambda text: text),
    "upper-case ending": ("A.CSV", lambda text: text),
    "gzip": ("a.csv.gz", lambda text: gzip.compress(text.encode())),
    "gzip in two members": (
        "a.csv.gz",
        lambda text: gzip.compress(text[:60].encode()) + gzip.compress(text[60:].encode()),
    ),
    "gzipped tabs": ("a.tsv.gz", lambda text: gzip.compress(text.replace(",", "\t").encode())),
    "header with spaces": ("a.csv", lambda text: text.replace("sgrna,hugo_symbol", " sgrna , hugo_symbol ", 1)),
    "numbers with spaces and plus signs": ("a.csv", lambda text: text.replace(",0.25", ", +0.25 ")),
    "numbers with exponents": ("a.csv", lambda text: text.replace(",-0.5", ",-5E-1")),
    "row numbers of pandas": ("a.csv", lambda text: same_rows_with_stray(text, "", list("3012"))),
    "row numbers of pandas, read and written": (
        "a.csv",
        lambda text: same_rows_with_stray(text, "Unnamed: 0", list("3012")),
    ),
    "row names of R": ("a.csv", lambda text: same_rows_with_stray(text, '""', ['"1"', '"2"', '"3"', '"4"'])),
    "row names of R without a header": (
        "a.tsv",
        lambda text: same_rows_with_stray(text, "", list("1234"))[1:].replace(",", "\t"),
    ),
    "column index that counts rows": ("a.csv", lambda text: same_rows_with_stray(text, "index", list("2413"))),
    "column X that counts rows": ("a.csv", lambda text: same_rows_with_stray(text, "X", list("1234"))),
    "rows in another order": (
        "a.csv",
        lambda text: "\n".join([text.splitlines()[0], *reversed(text.splitlines()[1:])]),
    ),
    "rows without lfc": ("a.csv", lambda text: text + "TTT,TP53,ACH-3,eye,A,NA\nTTT,TP53,ACH-3,eye,B,\n,,,,,\n"),
}


@pytest.mark.parametrize("name", SAME)
def test_same_content_in_another_dress_is_the_same_screen(name: str, text: str, expected: str, save: Save) -> None:
    file, dress = SAME[name]
    screen = read_screen(save(file, dress(text)))
    assert screen.hash == expected
    assert screen.covariates == {}


def test_parquet_and_frame_give_the_same_screen_as_csv(frame: pd.DataFrame, expected: str, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "a.parquet")
    frame.astype({"sgrna": "category", "lineage": "string"}).to_parquet(tmp_path / "b.pq")
    assert read_screen(tmp_path / "a.parquet").hash == expected
    assert read_screen(str(tmp_path / "b.pq")).hash == expected
    assert read_screen(frame.astype({"sgrna": "category", "lfc": "Float64", "depmap_id": object})).hash == expected


def test_named_index_levels_of_a_frame_are_columns(frame: pd.DataFrame, expected: str) -> None:
    assert read_screen(frame.set_index(["sgrna", "depmap_id"])).hash == expected


def test_frame_that_is_read_is_left_as_it_was(frame: pd.DataFrame) -> None:
    before = frame.copy(deep=True)
    read_screen(frame.set_index("sgrna").reset_index())
    read_screen(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_columns_can_be_mapped(frame: pd.DataFrame, expected: str) -> None:
    table = frame.rename(columns={"lfc": "LFC", "sgrna": "sgRNA id"})
    screen = read_screen(table, columns={"lfc": "LFC", "sgrna": "sgRNA id"})
    assert screen.hash == expected
    assert screen.report.columns["lfc"] == "LFC"
    assert "lfc (from 'LFC')" in str(screen.report)


def test_mapped_column_goes_before_one_of_that_name(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(chronos=1.5), columns={"lfc": "chronos"})
    assert (screen.lfc == 1.5).all()
    assert screen.report.ignored == {"lfc": "'lfc' is mapped to 'chronos'"}
    assert screen.covariates == {}


def test_both_spellings_of_the_plasmid_batch_are_known(frame: pd.DataFrame) -> None:
    new = read_screen(frame.assign(p_dna_batch=["2", "2", "3", "3"]))
    old = read_screen(frame.assign(pdna_batch=["2", "2", "3", "3"]))
    assert new.hash == old.hash
    assert old.report.columns["p_dna_batch"] == "pdna_batch"


@pytest.mark.parametrize("spelling", ["", "NA", "NaN", "nan", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"])
def test_missing_values_can_be_spelt_in_many_ways(spelling: str, text: str, save: Save) -> None:
    values = ["rna_expr", "1", spelling, "2", spelling]
    lines = [f"{line},{value}" for line, value in zip(text.splitlines(), values, strict=True)]
    extra = f"TTT,TP53,ACH-1,skin,A,{spelling},4"
    screen = read_screen(save("a.csv", "\n".join([*lines, extra])))
    assert screen.report.dropped == {"missing lfc": 1}
    assert np.isnan(screen.covariates["rna_expr"]).sum() == 2


def test_rows_without_lfc_are_dropped_and_counted(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(lfc=[0.5, np.nan, None, -1.5]))
    assert screen.n_rows == 2
    assert (screen.report.n_rows_read, screen.report.n_rows_kept) == (4, 2)
    assert screen.report.dropped == {"missing lfc": 2}
    assert list(screen.index.sgrnas) == ["AAA", "GGG"]  # CCC has no row left
    assert "dropped: 2 rows, missing lfc" in screen.report.lines()


def test_faults_of_rows_without_lfc_do_not_count(frame: pd.DataFrame) -> None:
    conflict = pd.DataFrame({"sgrna": ["AAA"], "hugo_symbol": ["BRAF"], "depmap_id": [None], "lfc": [np.nan]})
    assert read_screen(pd.concat([frame, conflict])).n_rows == 4


@pytest.mark.parametrize("batches", [[3, 3, 4, 4], [3.0, 3.0, 4.0, 4.0], ["3", "3.0", " 3", 4], ["3", 3, 3.0, "4"]])
def test_batch_is_the_same_as_integer_float_or_string(batches: list[object], frame: pd.DataFrame) -> None:
    screen = read_screen(frame.assign(p_dna_batch=pd.Series(batches, dtype=object)))
    assert list(screen.index.categories["p_dna_batch"]) == ["3", "4"]


def test_integer_batches_with_gaps_keep_their_labels(frame: pd.DataFrame) -> None:
    # pandas turns integers beside a missing value into floats.
    screen = read_screen(frame.assign(p_dna_batch=[3, None, 4, 4]))
    assert list(screen.index.categories["p_dna_batch"]) == ["3", "4"]
    assert sorted(screen.covariates["p_dna_batch"].tolist()) == [-1, 0, 1, 1]


def test_replicates_are_kept_as_rows(frame: pd.DataFrame) -> None:
    screen = read_screen(frame)
    assert screen.n_rows == 4
    # A of ACH-1 and A of ACH-2 are not the same replicate.
    assert list(screen.index.replicates) == ["ACH-1|A", "ACH-1|B", "ACH-2|A"]
    assert list(screen.index.replicate_ids) == ["A", "B", "A"]
    assert screen.index.line_of_replicate.tolist() == [0, 0, 1]


def test_same_replicate_name_in_two_screens_is_two_replicates(frame: pd.DataFrame) -> None:
    both = pd.concat([frame.assign(screen="broad"), frame.assign(screen="sanger")], ignore_index=True)
    screen = read_screen(both, sgrna_per_screen=False)
    assert screen.n_rows == 8
    assert list(screen.index.replicates)[:3] == ["ACH-1|A|broad", "ACH-1|A|sanger", "ACH-1|B|broad"]


def test_without_replicate_id_repeated_rows_are_replicates(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.drop(columns="replicate_id"))
    assert screen.n_rows == 4
    assert list(screen.index.replicates) == ["ACH-1|all", "ACH-2|all"]
    assert screen.index.replicate_ids is None
    assert screen.report.exact_copies == 0


def test_without_replicate_id_exact_copies_are_kept_counted_and_warned_of(frame: pd.DataFrame) -> None:
    table = frame.drop(columns="replicate_id").assign(rna_expr=[1.0, 1.0, np.nan, 2.0])
    table = pd.concat([table, table.iloc[[2]], table.iloc[[2]], table.iloc[[0]].assign(rna_expr=9.0)])
    with pytest.warns(ScreenWarning, match="2 rows of the table are exact copies"):
        screen = read_screen(table)
    assert screen.n_rows == 7
    assert screen.report.exact_copies == 2


def test_sgrnas_with_two_genes_are_dropped_and_counted_when_asked(frame: pd.DataFrame) -> None:
    table = pd.concat([frame, frame.iloc[[0]].assign(hugo_symbol="BRAF", depmap_id="ACH-2", lineage="lung")])
    with pytest.warns(ScreenWarning, match="1 sgRNA with two genes dropped"):
        screen = read_screen(table, on_conflict="drop")
    assert list(screen.index.sgrnas) == ["CCC", "GGG"]
    assert screen.report.dropped == {"sgRNA with two genes": 3}
    assert screen.report.n_rows_read - screen.report.n_rows_kept == 3


def both_libraries(frame: pd.DataFrame) -> pd.DataFrame:
    """AAA is in both screens, CCC and GGG in one each."""
    return frame.assign(screen=["broad", "sanger", "broad", "sanger"])


def test_sequence_in_two_screens_is_two_sgrnas(frame: pd.DataFrame) -> None:
    with pytest.warns(ScreenWarning, match="1 sequence in more than one screen"):
        screen = read_screen(both_libraries(frame))
    assert list(screen.index.sgrnas) == ["AAA|broad", "AAA|sanger", "CCC", "GGG"]
    assert screen.index.genes[screen.index.gene_of_sgrna].tolist() == ["KRAS", "KRAS", "KRAS", "BRAF"]


def test_sequence_in_two_screens_may_have_a_gene_in_each(frame: pd.DataFrame) -> None:
    table = both_libraries(frame).assign(hugo_symbol=["KRAS", "HRAS", "KRAS", "BRAF"])
    with pytest.warns(ScreenWarning):
        screen = read_screen(table)
    assert screen.index.genes[screen.index.gene_of_sgrna].tolist() == ["KRAS", "HRAS", "KRAS", "BRAF"]
    with pytest.raises(VihierError, match="'AAA' has 'HRAS' here and 'KRAS'"):
        read_screen(table, sgrna_per_screen=False)


def test_sequence_in_two_screens_can_be_one_sgrna(frame: pd.DataFrame) -> None:
    screen = read_screen(both_libraries(frame), sgrna_per_screen=False)
    assert list(screen.index.sgrnas) == ["AAA", "CCC", "GGG"]


def test_lineage_may_be_absent(frame: pd.DataFrame) -> None:
    for table in (frame.drop(columns="lineage"), frame.assign(lineage=None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScreenWarning)
            screen = read_screen(table)
        assert screen.index.lineages is None
        assert screen.n_lineages == 0
        with pytest.raises(VihierError, match="model 'additive' needs the lineage") as caught:
            require_lineage(screen, "additive")
        assert "--single-lineage" in str(caught.value)


def test_single_lineage_takes_in_all_lines(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.drop(columns="lineage"), single_lineage=True)
    assert list(screen.index.lineages) == ["all"]
    assert screen.index.lineage_of_line.tolist() == [0, 0]
    require_lineage(screen, "additive")  # does not raise
    assert screen.n_lineages == 1


def test_single_lineage_sets_the_tables_lineages_aside(frame: pd.DataFrame) -> None:
    with pytest.warns(ScreenWarning, match="lineages were set aside"):
        screen = read_screen(frame.assign(lineage=["skin", "eye", None, "lung"]), single_lineage=True)
    assert list(screen.index.lineages) == ["all"]


def test_optional_key_without_a_value_counts_as_absent(frame: pd.DataFrame) -> None:
    with pytest.warns(ScreenWarning, match="'replicate_id' is empty and was taken as absent"):
        screen = read_screen(frame.assign(replicate_id=np.nan))
    assert screen.index.replicate_ids is None


def test_white_space_around_labels_is_taken_off_and_counted(frame: pd.DataFrame, expected: str) -> None:
    table = frame.assign(hugo_symbol=["KRAS ", "KRAS", "\u00a0KRAS", "BRAF"], lineage=["skin", " skin", "skin", "lung"])
    with pytest.warns(ScreenWarning, match=r"taken off 3 labels \(hugo_symbol, lineage\)"):
        screen = read_screen(table)
    assert screen.hash == expected


@pytest.mark.parametrize("gene", ["1-Mar", "Sep-02", "2023-03-01", "3/1/2023", "2.31E+13"])
def test_genes_that_a_spreadsheet_has_changed_are_warned_of(gene: str, frame: pd.DataFrame) -> None:
    with pytest.warns(ScreenWarning, match="may be a date or a number that a spreadsheet made"):
        screen = read_screen(frame.assign(hugo_symbol=["KRAS", "KRAS", "KRAS", gene]))
    assert gene in screen.index.genes  # warned of, not changed
    assert any(repr(gene) in warning for warning in screen.report.warnings)


@pytest.mark.parametrize(
    "gene", ["MARCHF1", "SEPTIN2", "DEC1", "H2BC12", "HLA-A", "C1orf112", "7SK", "NKX2-1", "2310009E13RIK"]
)
def test_true_gene_names_are_not_warned_of(gene: str, frame: pd.DataFrame) -> None:
    assert read_screen(frame.assign(hugo_symbol=["KRAS", "KRAS", "KRAS", gene])).report.warnings == ()


def test_numbers_for_genes_are_warned_of_and_lose_their_decimal(frame: pd.DataFrame) -> None:
    with pytest.warns(ScreenWarning, match="2 gene names are plain numbers, such as '3845'"):
        screen = read_screen(frame.assign(hugo_symbol=[3845.0, 3845.0, 3845.0, 673.0]))
    assert list(screen.index.genes) == ["3845", "673"]


def test_reading_a_plain_table_warns_of_nothing(frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        screen = read_screen(frame)
    assert screen.report.warnings == ()


def test_one_gene_and_one_line_can_be_read(frame: pd.DataFrame) -> None:
    screen = read_screen(frame.iloc[[3]])
    assert (screen.n_rows, screen.n_genes, screen.n_lines, screen.n_lineages) == (1, 1, 1, 1)


def maps_by_label(screen: Screen) -> tuple[dict[str, str], dict[str, str]]:
    index = screen.index
    genes = dict(zip(index.sgrnas, index.genes[index.gene_of_sgrna], strict=True))
    return genes, dict(zip(index.lines, index.lineages[index.lineage_of_line], strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_maps_follow_the_labels_whatever_the_row_order(seed: int) -> None:
    # Labels, genes and lineages are permuted against each other: a map built in order of appearance would be wrong.
    rng = np.random.default_rng(seed)
    gene_of = {f"s{i:02d}": f"g{rng.integers(5)}" for i in rng.permutation(30)}
    lineage_of = {f"c{i:02d}": f"l{rng.integers(4)}" for i in rng.permutation(12)}
    pairs = [(sgrna, line) for sgrna in gene_of for line in lineage_of if rng.random() < 0.7]
    table = pd.DataFrame(pairs, columns=["sgrna", "depmap_id"])
    table = table.assign(hugo_symbol=table["sgrna"].map(gene_of), lineage=table["depmap_id"].map(lineage_of))
    table = table.assign(lfc=rng.normal(size=len(table))).sample(frac=1, random_state=seed)
    assert maps_by_label(read_screen(table)) == (dict(sorted(gene_of.items())), dict(sorted(lineage_of.items())))
