"""An open store gives the rows of any genes, and a file that is not whole is refused in one line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from vihier.errors import VihierError
from vihier.screen import Screen, cell_statistics, read_screen
from vihier.store.pack import pack
from vihier.store.store import is_hdf5, is_store, open_store


@pytest.fixture
def screen(frame: pd.DataFrame) -> Screen:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_screen(frame)


@pytest.fixture
def path(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_parquet(tmp_path / "a.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pack(tmp_path / "a.parquet", tmp_path / "a.h5").close()
    return tmp_path / "a.h5"


def test_rows_of_genes_are_those_of_the_screen(path: Path, screen: Screen) -> None:
    with open_store(path) as store:
        np.testing.assert_array_equal(store.gene_starts, screen.gene_starts)
        for genes in (slice(None), slice(0, 1), slice(3, 7), slice(-2, None), slice(5, 5), slice(9, 99), slice(7, 3)):
            ours, theirs = store.rows_of(genes), screen.rows_of(genes)
            for name in ("gene", "sgrna", "line", "replicate", "lfc"):
                left, right = getattr(ours, name), getattr(theirs, name)
                assert left.dtype == right.dtype and left.tobytes() == right.tobytes()
            assert list(ours.covariates) == list(theirs.covariates)
            for name, values in theirs.covariates.items():
                assert ours.covariates[name].tobytes() == values.tobytes()
        with pytest.raises(VihierError, match="leave the step out"):
            store.rows_of(slice(0, 4, 2))


def test_cells_of_genes_are_those_of_the_screen(path: Path, screen: Screen) -> None:
    whole = cell_statistics(screen)
    with open_store(path) as store:
        for genes in (slice(None), slice(2, 9)):
            ours = store.cells_of(genes)
            gene = screen.index.gene_of_sgrna[whole.sgrna]
            there = (gene >= (genes.start or 0)) & (gene < (genes.stop or screen.n_genes))
            for name in ("sgrna", "line", "n", "mean", "ss"):
                assert getattr(ours, name).tobytes() == getattr(whole, name)[there].tobytes()
        assert store.cells_of(slice(3, 3)).n_cells == 0


def test_sizes_are_those_of_the_screen(path: Path, screen: Screen) -> None:
    with open_store(path) as store:
        for name in ("n_rows", "n_genes", "n_sgrnas", "n_lines", "n_lineages", "n_replicates", "hash"):
            assert getattr(store, name) == getattr(screen, name)
        assert store.covariates == tuple(screen.covariates)
        for columns in ([], ["lineage"], ["copy_number", "screen"]):
            assert store.content_hash(columns) == screen.content_hash(columns)


def test_a_closed_store_says_so(path: Path) -> None:
    store = open_store(path)
    store.close()
    with pytest.raises(VihierError, match="was closed; open it again"):
        store.rows_of(slice(0, 1))


def changed(write: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            write(file)

    return change


def set_attr(name: str, value: object) -> Callable[[Path], None]:
    return changed(lambda file: file.attrs.__setitem__(name, value))


def set_rows(name: str, values: object) -> Callable[[Path], None]:
    def write(file: h5py.File) -> None:
        file[name][...] = values

    return changed(write)


def remove(name: str) -> Callable[[Path], None]:
    return changed(lambda file: file.__delitem__(name))


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:size]) and None


# What is done to a store, and what is said of it when it is opened, read or compared with its hash.
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "not there": (lambda path: path.unlink(), "no such file; `vihier pack SCREEN a.h5` writes one"),
    "a directory": (lambda path: path.unlink() or path.mkdir(), "is a directory"),
    "empty": (cut(0), "is not a store"),
    "text": (lambda path: path.write_text("sgrna,lfc\n") and None, "is not a store"),
    "truncated": (cut(9000), "damaged or truncated"),
    "cut in its head": (cut(20), "damaged or truncated"),
    "another file": (set_attr("kind", "posterior"), "is HDF5, but not a store"),
    "unfinished": (set_attr("complete", 0), "is unfinished"),
    "newer": (set_attr("format_version", 99), "has format 99, and this vihier reads up to 1; upgrade vihier"),
    "version of text": (set_attr("format_version", "one"), "is damaged"),
    "report of nothing": (set_attr("report", "{"), "is damaged"),
    "report of something else": (set_attr("report", "[1]"), "is damaged"),
    "no labels": (remove("index/sgrna"), "is damaged"),
    "no index": (remove("index"), "is damaged"),
    "no rows": (remove("rows/lfc"), "is damaged"),
    "no covariates": (remove("covariates"), "is damaged"),
    "no categories": (remove("categories/screen"), "is damaged"),
    "map beyond the labels": (set_rows("index/gene_of_sgrna", 99), "gene_of_sgrna does not fit its labels"),
    "negative map": (set_rows("index/line_of_replicate", -1), "line_of_replicate does not fit its labels"),
    "wrong counts": (set_rows("rows_of_sgrna", 2), "rows_of_sgrna does not fit rows_of_gene"),
    "negative counts": (set_rows("rows_of_gene", -5), "rows_of_gene does not fit its labels"),
    "code beyond the labels": (set_rows("rows/replicate", 200), "a code stands for no label"),
    "category beyond the labels": (set_rows("covariates/p_dna_batch", -2), "a code stands for no label"),
    "another value": (set_rows("rows/lfc", 0.5), "its rows are not those that were packed"),
    "another covariate": (set_rows("covariates/copy_number", 1.0), "its rows are not those that were packed"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_not_a_whole_store_is_refused_in_one_line(name: str, path: Path) -> None:
    change, words = DAMAGE[name]
    change(path)
    with pytest.raises(VihierError) as caught, open_store(path) as store:
        store.verify()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message and message.isprintable()


def test_a_store_is_told_from_other_files(path: Path) -> None:
    table = path.with_name("a.parquet")
    assert is_store(path) and is_hdf5(path)
    assert not is_store(table) and not is_hdf5(table) and not is_store(path.parent)
    other = path.with_name("other.h5")
    shutil.copy(path, other)
    set_attr("kind", "something")(other)
    assert is_hdf5(other) and not is_store(other)
