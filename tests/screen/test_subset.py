"""Subsets: by label, by covariate, at random."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from vihier.errors import VihierError
from vihier.screen import Screen, parse_where, read_screen


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """12 genes x 2 sgRNAs x 9 lines (3 lineages) x 2 replicates, two screens (by gene), covariates."""
    rng = np.random.default_rng(0)
    rows = [
        (f"g{g:02d}s{s}", f"g{g:02d}", f"c{c}", f"l{c % 3}", "AB"[r], "broad" if g < 8 else "sanger")
        for g in range(12)
        for s in range(2)
        for c in range(9)
        for r in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "screen"])
    batch = np.where(frame["replicate_id"] == "A", 3, 4)
    mutated = frame["hugo_symbol"].isin(["g00", "g05"]) & (frame["depmap_id"] == "c1")
    return frame.assign(
        lfc=rng.normal(size=len(frame)), p_dna_batch=batch, is_mutated=mutated, days=batch * 7, empty=np.nan
    )


@pytest.fixture(scope="module")
def screen(table: pd.DataFrame) -> Screen:
    return read_screen(table)


# What is asked for, and the same rows chosen by pandas.
CHOICES: dict[str, tuple[dict[str, object], Callable[[pd.DataFrame], pd.Series]]] = {
    "genes": ({"genes": ["g03", "g01"]}, lambda t: t["hugo_symbol"].isin(["g01", "g03"])),
    "one gene": ({"genes": "g03"}, lambda t: t["hugo_symbol"] == "g03"),
    "lines": ({"lines": ("c1", "c8")}, lambda t: t["depmap_id"].isin(["c1", "c8"])),
    "an array of lines": ({"lines": np.array(["c1", "c8"])}, lambda t: t["depmap_id"].isin(["c1", "c8"])),
    "a set of lineages": ({"lineages": {"l2", "l0"}}, lambda t: t["lineage"] != "l1"),
    "genes and lineages": (
        {"genes": ["g00"], "lineages": ["l1"]},
        lambda t: (t["hugo_symbol"] == "g00") & (t["lineage"] == "l1"),
    ),
    "where a label": ({"where": {"screen": "broad"}}, lambda t: t["screen"] == "broad"),
    "where one of two labels": ({"where": {"depmap_id": ["c0", "c2"]}}, lambda t: t["depmap_id"].isin(["c0", "c2"])),
    "where a batch by number": ({"where": {"p_dna_batch": 3}}, lambda t: t["p_dna_batch"] == 3),
    "where a batch by float": ({"where": {"p_dna_batch": 3.0}}, lambda t: t["p_dna_batch"] == 3),
    "where a batch by text": ({"where": {"pdna_batch": ["3"]}}, lambda t: t["p_dna_batch"] == 3),
    "where true": ({"where": {"is_mutated": True}}, lambda t: t["is_mutated"]),
    "where true in words": ({"where": {"is_mutated": "TRUE"}}, lambda t: t["is_mutated"]),
    "where a number": ({"where": {"days": 21}}, lambda t: t["days"] == 21),
    "where a number in text": ({"where": parse_where(["days=21"])}, lambda t: t["days"] == 21),
    "where a replicate": ({"where": {"replicate_id": "B"}}, lambda t: t["replicate_id"] == "B"),
    "where two things": (
        {"where": {"screen": "sanger", "lineage": "l2"}},
        lambda t: (t["screen"] == "sanger") & (t["lineage"] == "l2"),
    ),
    "nothing asked": ({}, lambda t: t["lfc"].notna()),
}


@pytest.mark.parametrize("name", CHOICES)
def test_subset_is_the_screen_of_those_rows(name: str, screen: Screen, table: pd.DataFrame) -> None:
    choice, rows = CHOICES[name]
    part = screen.subset(**choice)  # type: ignore[arg-type]
    alone = read_screen(table[rows(table)])
    assert part.hash == alone.hash
    assert list(part.index.genes) == list(alone.index.genes)
    assert list(part.index.replicates) == list(alone.index.replicates)
    assert list(part.index.categories["screen"]) == list(alone.index.categories["screen"])
    assert part.index.lineage_of_line.tolist() == alone.index.lineage_of_line.tolist()


def test_report_of_a_subset_counts_what_was_left_out(screen: Screen) -> None:
    part = screen.subset(genes=["g01"]).subset(lines=["c1"])
    assert part.n_rows == part.report.n_rows_kept == 4
    assert part.report.n_rows_read == screen.n_rows == 432
    assert part.report.dropped == {"outside the subset": 428}
    assert screen.report.dropped == {}


def test_random_genes_depend_on_the_seed_and_the_labels_only(screen: Screen, table: pd.DataFrame) -> None:
    drawn = [tuple(screen.subset(n_genes=5, seed=seed).index.genes) for seed in range(8)]
    assert all(len(genes) == 5 for genes in drawn)
    assert len(set(drawn)) > 1
    shuffled = read_screen(table.sample(frac=1, random_state=1))
    assert [tuple(shuffled.subset(n_genes=5, seed=seed).index.genes) for seed in range(8)] == drawn


def test_random_genes_are_drawn_evenly(screen: Screen) -> None:
    counts = pd.Series([gene for seed in range(300) for gene in screen.subset(n_genes=3, seed=seed).index.genes])
    # 300 draws of 3 among 12: 75 each, binomial sd 7.5; 4 sd covers 12 genes with probability above 0.999.
    assert counts.value_counts().between(45, 105).all()
    assert counts.nunique() == 12


def test_draws_come_from_what_the_other_conditions_leave(screen: Screen) -> None:
    part = screen.subset(n_genes=3, where={"screen": "sanger"}, lineages=["l0", "l2"], n_lineages=1, seed=4)
    assert set(part.index.genes) <= {"g08", "g09", "g10", "g11"}
    assert part.n_genes == 3
    assert part.n_lineages == 1
    assert part.index.lineages[0] in {"l0", "l2"}


def test_asking_for_lineages_too_leaves_the_genes_as_they_were(screen: Screen) -> None:
    both = screen.subset(n_genes=4, n_lineages=2, seed=3)
    assert list(both.index.genes) == list(screen.subset(n_genes=4, seed=3).index.genes)
    assert list(both.index.lineages) == list(screen.subset(n_lineages=2, seed=3).index.lineages)


def test_whole_screen_drawn_is_the_whole_screen(screen: Screen) -> None:
    assert screen.subset(n_genes=12, n_lineages=3).hash == screen.hash


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "unknown gene": ({"genes": ["G01"]}, "gene 'G01' is not in this screen; the nearest is 'g01'"),
    "unknown genes": (
        {"genes": ["TP53", "TP63", "g01"]},
        "gene 'TP53' and 1 more are not in this screen; it has 'g00', ",
    ),
    "unknown line": ({"lines": ["C1x"]}, "line 'C1x' is not in this screen; the nearest is 'c1'"),
    "unknown lineage": ({"lineages": "skin"}, "lineage 'skin' is not in this screen"),
    "unknown column": (
        {"where": {"screens": "broad"}},
        "column 'screens' is not in this screen; the nearest is 'screen'",
    ),
    "unknown value": (
        {"where": {"screen": "board"}},
        "column 'screen': value 'board' is not in this screen; the nearest is 'broad'",
    ),
    "text for a number": ({"where": {"days": "many"}}, "column 'days': value 'many' is not a number"),
    "number of no row": ({"where": {"days": 5}}, "column 'days': no row has the value 5"),
    "value of an empty column": ({"where": {"empty": 5}}, "no row has the value 5; all its values are missing"),
    "missing as a value": ({"where": {"days": float("nan")}}, "column 'days': value nan is not a number"),
    "too many genes": ({"n_genes": 13}, "n_genes=13 is more than the 12 genes there are; ask for fewer"),
    "too many lineages": ({"n_lineages": 9}, "n_lineages=9 is more than the 3 lineages there are"),
    "too many genes of those": ({"genes": ["g01"], "n_genes": 2}, "n_genes=2 is more than the 1 genes there are"),
    "no genes": ({"n_genes": 0}, "n_genes=0 is not a whole number above 0"),
    "half a gene": ({"n_genes": 1.5}, "n_genes=1.5 is not a whole number above 0"),
    "negative seed": ({"n_genes": 2, "seed": -1}, "seed=-1 is not a whole number of at least 0"),
    "empty list": ({"genes": []}, "an empty list of gene labels"),
    "nothing left": ({"genes": ["g00"], "where": {"screen": "sanger"}}, "no row is left by this subset; widen"),
    "where is no mapping": ({"where": "screen=broad"}, "where='screen=broad' is not a mapping"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_faulty_subset_is_refused_in_one_line(name: str, screen: Screen) -> None:
    choice, message = REFUSED[name]
    with pytest.raises(VihierError) as caught:
        screen.subset(**choice)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_lineages_of_a_screen_without_them_are_refused(table: pd.DataFrame) -> None:
    screen = read_screen(table.drop(columns="lineage"))
    for choice in ({"lineages": ["l1"]}, {"n_lineages": 1}):
        with pytest.raises(VihierError, match="'lineage' is not in this screen"):
            screen.subset(**choice)  # type: ignore[arg-type]
    assert screen.subset(genes=["g01"]).index.lineages is None


def test_missing_covariates_are_in_no_chosen_subset(table: pd.DataFrame) -> None:
    screen = read_screen(table.assign(note=np.where(table["depmap_id"] == "c1", None, "x")))
    part = screen.subset(where={"note": "x"})
    assert "c1" not in part.index.lines
    assert part.n_lines == 8


def test_label_of_a_sequence_of_two_screens_stays_in_the_subset(table: pd.DataFrame) -> None:
    both = pd.concat([table[table["screen"] == "broad"], table[table["screen"] == "broad"].assign(screen="sanger")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        screen = read_screen(both)
    part = screen.subset(where={"screen": "sanger"}, genes="g00")
    assert list(part.index.sgrnas) == ["g00s0|sanger", "g00s1|sanger"]


@pytest.mark.parametrize("condition", ["screen", "=broad", "screen=", "", "  = "])
def test_condition_without_column_or_value_is_refused(condition: str) -> None:
    with pytest.raises(VihierError, match="is not COLUMN=VALUE; write it like screen=broad"):
        parse_where([condition])


def test_condition_is_text_and_never_code() -> None:
    assert parse_where(["screen=__import__('os')", "a = b=c "]) == {"screen": ["__import__('os')"], "a": ["b=c"]}
