"""The screen: canonical rows, labels, maps, content hash, the table it gives back."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest

from vihier.errors import VihierError
from vihier.screen import Screen, read_screen
from vihier.screen.screen import ScreenIndex


def made_table(seed: int, named_replicates: bool = True) -> pd.DataFrame:
    """A ragged table: 1 to 5 sgRNAs a gene, missing cells, unequal replicates, two screens, covariates."""
    rng = np.random.default_rng(seed)
    rows = []
    for gene in range(8):
        for sgrna in range(rng.integers(1, 6)):
            for line in range(6):
                for replicate in range(rng.integers(0, 4)):
                    rows.append((f"s{9 - gene}_{sgrna}", f"g{gene}", f"c{line}", f"l{line % 3}", "ABC"[replicate]))
    table = pd.DataFrame(rows, columns=["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id"])
    table["lfc"] = rng.normal(size=len(table)).round(1)  # rounded, so that there are ties
    table["rna_expr"] = rng.choice([0.5, 1.5, np.nan], size=len(table))
    table["screen"] = rng.choice(["broad", "sanger"], size=len(table))
    table["note"] = rng.choice(["x", "y", None], size=len(table))
    return table if named_replicates else table.drop(columns="replicate_id")


def quietly(table: pd.DataFrame) -> Screen:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_screen(table)


def assert_identical(one: Screen, other: Screen) -> None:
    for field in dataclasses.fields(ScreenIndex):
        first, second = getattr(one.index, field.name), getattr(other.index, field.name)
        if field.name == "categories":
            assert first.keys() == second.keys()
            assert all((first[name] == second[name]).all() for name in first)
        elif first is None:
            assert second is None
        else:
            assert first.dtype == second.dtype
            assert (first == second).all()
    for name in ("sgrna", "line", "replicate", "lfc"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.covariates.keys() == other.covariates.keys()
    for name in one.covariates:
        np.testing.assert_array_equal(one.covariates[name], other.covariates[name])


@pytest.mark.parametrize("named_replicates", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_shuffled_table_gives_the_identical_screen(seed: int, named_replicates: bool) -> None:
    table = made_table(seed, named_replicates)
    shuffled = table.sample(frac=1, random_state=seed).sample(frac=1, axis=1, random_state=seed)
    assert_identical(quietly(table), quietly(shuffled))
    assert quietly(table).hash == quietly(shuffled).hash


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_in_canonical_order(seed: int) -> None:
    screen = quietly(made_table(seed))
    library = screen.covariates["screen"]
    keys = np.stack([screen.gene, screen.sgrna, screen.line, library, screen.replicate]).astype(np.int64)
    assert (np.lexsort(keys[::-1]) == np.arange(screen.n_rows)).all()


def test_labels_are_unique_and_sorted_by_code_point() -> None:
    # By code point: capitals before small letters, digits first, and no number sense (10 before 9).
    genes = ["b", "B", "a10", "a9", "é", "A", "\U0001f9ec", "\uff21", "10"]
    table = pd.DataFrame({"sgrna": [f"s{i}" for i in range(9)], "hugo_symbol": genes, "depmap_id": "c", "lfc": 0.0})
    screen = quietly(table)
    assert list(screen.index.genes) == sorted(genes)
    assert all(isinstance(label, str) for label in screen.index.genes)


def test_types_are_as_documented() -> None:
    screen = quietly(made_table(0))
    assert {screen.sgrna.dtype, screen.line.dtype, screen.replicate.dtype, screen.gene.dtype} == {np.dtype(np.int32)}
    assert screen.lfc.dtype == np.float64
    assert screen.covariates["rna_expr"].dtype == np.float64
    assert screen.covariates["note"].dtype == screen.covariates["screen"].dtype == np.int32
    index = screen.index
    maps = {index.gene_of_sgrna.dtype, index.lineage_of_line.dtype, index.line_of_replicate.dtype}
    assert maps == {np.dtype(np.int64)}
    assert (index.line_of_replicate[screen.replicate] == screen.line).all()


def test_gene_starts_bound_the_rows_of_each_gene() -> None:
    screen = quietly(made_table(1))
    assert screen.gene_starts.dtype == np.int64
    assert len(screen.gene_starts) == screen.n_genes + 1
    for gene in range(screen.n_genes):
        rows = slice(screen.gene_starts[gene], screen.gene_starts[gene + 1])
        assert (screen.gene[rows] == gene).all()
        assert len(screen.gene[rows]) == (screen.gene == gene).sum() > 0


@pytest.mark.parametrize("named_replicates", [True, False])
def test_frame_of_a_screen_is_the_table_that_was_read(named_replicates: bool) -> None:
    table = made_table(2, named_replicates)
    screen = quietly(table.assign(sgrna=table["sgrna"] + table["screen"]))
    frame = screen.to_frame()
    order = [*frame.columns.drop(["lfc", "rna_expr", "note"]), "lfc", "rna_expr", "note"]
    expected = table.assign(sgrna=table["sgrna"] + table["screen"])[order].sort_values(order, ignore_index=True)
    found = frame[order].sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


@pytest.mark.parametrize("named_replicates", [True, False])
def test_frame_of_a_screen_reads_as_the_same_screen(named_replicates: bool) -> None:
    # Sequences of two screens come back under their SEQUENCE|screen labels.
    screen = quietly(made_table(3, named_replicates))
    assert any("|" in label for label in screen.index.sgrnas)
    assert_identical(screen, quietly(screen.to_frame()))


CHANGES = {
    "one lfc": lambda table: table.assign(lfc=table["lfc"] + 1e-12 * (np.arange(len(table)) == 7)),
    "one gene name": lambda table: table.assign(hugo_symbol=table["hugo_symbol"].replace("g3", "g3b")),
    "one line name": lambda table: table.assign(depmap_id=table["depmap_id"].replace("c3", "c3b")),
    "one replicate name": lambda table: table.assign(replicate_id=table["replicate_id"].replace("C", "D")),
    "two lines exchanged": lambda table: table.assign(depmap_id=table["depmap_id"].replace({"c0": "c3", "c3": "c0"})),
    "a row less": lambda table: table.iloc[1:],
    "a lineage": lambda table: table.assign(lineage=table["lineage"].replace("l1", "l2")),
    "a covariate": lambda table: table.assign(rna_expr=table["rna_expr"].fillna(0.0)),
    "a label of a covariate": lambda table: table.assign(note=table["note"].replace("x", "z")),
    "no lineage": lambda table: table.drop(columns="lineage"),
}
# Of these the keys and lfc know nothing.
BESIDE_KEYS = {"a lineage", "a covariate", "a label of a covariate", "no lineage"}


@pytest.mark.parametrize("change", CHANGES)
def test_hash_sees_every_change_of_content(change: str) -> None:
    table = made_table(4)
    before, after = quietly(table), quietly(CHANGES[change](table))
    assert before.hash != after.hash
    assert (before.content_hash() == after.content_hash()) is (change in BESIDE_KEYS)


def test_hash_of_named_columns_depends_on_those_only() -> None:
    table = made_table(4)
    before = quietly(table)
    after = quietly(table.assign(note="other", lineage="other"))
    assert before.content_hash(["rna_expr"]) == after.content_hash(["rna_expr"])
    assert before.content_hash(["lineage"]) != after.content_hash(["lineage"])
    assert before.content_hash(["note", "rna_expr"]) == before.content_hash(["rna_expr", "note", "lfc"])
    assert before.content_hash(["rna_expr"]) == quietly(table.drop(columns="note")).content_hash(["rna_expr"])
    with pytest.raises(VihierError, match="'copy_number' is not in this screen"):
        before.content_hash(["copy_number"])


def test_hash_of_named_columns_does_not_see_how_other_columns_order_ties() -> None:
    # Without replicate_id rows may be equal in key and lfc; "a" then decides which of them comes first.
    table = pd.DataFrame({"sgrna": "s", "hugo_symbol": "g", "depmap_id": "c", "lfc": 0.5, "b": [1.0, 2.0, 3.0]})
    one, other = quietly(table.assign(a=[1, 2, 3])), quietly(table.assign(a=[3, 1, 2]))
    assert one.content_hash(["b"]) == other.content_hash(["b"])
    assert one.hash != other.hash


def test_hash_knows_no_difference_between_zeros_or_between_nans() -> None:
    table = pd.DataFrame({"sgrna": "s", "hugo_symbol": "g", "depmap_id": "c", "lfc": [0.0, 1.0], "x": [np.nan, -0.0]})
    other = table.assign(lfc=[-0.0, 1.0], x=[-np.nan, 0.0])
    assert quietly(table).hash == quietly(other).hash


def test_hash_is_the_same_on_every_machine_and_release() -> None:
    # A stored value: a change of it makes every fit on disk look like one of another screen.
    table = pd.DataFrame({"sgrna": ["a", "b"], "hugo_symbol": "g", "depmap_id": "c", "lfc": [0.5, -1.0]})
    assert quietly(table).hash == "6bb8910406495bb7bc92122126bf59ae705c5d3a2b8f7dde298e2358dbb7bdb8"


def test_numbers_of_things_are_told() -> None:
    screen = quietly(made_table(5))
    index = screen.index
    told = (screen.n_rows, screen.n_genes, screen.n_sgrnas, screen.n_lines, screen.n_lineages, screen.n_replicates)
    counts = [len(part) for part in (index.genes, index.sgrnas, index.lines, index.lineages, index.replicates)]
    assert told == (len(screen.lfc), *counts)
    assert quietly(made_table(5).drop(columns="lineage")).n_lineages == 0
