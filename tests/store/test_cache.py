"""A table is packed once; a change of the table, of the options or of the store is noticed."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pytest

from vihier.errors import VihierError
from vihier.inference.progress import Silent
from vihier.screen import read_screen
from vihier.store.cache import cached_store, default_cache


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.simplefilter("ignore")


@pytest.fixture
def table(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_parquet(tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


class Counting(Silent):
    """Counts how often tables are read."""

    def __init__(self) -> None:
        self.packed = 0

    def start(self, stage: str, total: int) -> None:
        self.packed += stage.startswith("reading")


def stores(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_table_is_packed_once(table: Path, tmp_path: Path) -> None:
    progress = Counting()
    options: dict[str, Any] = {"cache_dir": tmp_path / "new" / "cache", "progress": progress}
    with cached_store(table, **options) as first, cached_store([table], **options) as again:
        assert first.path == again.path and first.hash == again.hash == read_screen(table).hash
    assert progress.packed == 1
    with cached_store(table, covariates=["is_mutated"], **options) as other:
        assert other.path != first.path and other.covariates == ("is_mutated", "screen")
    assert progress.packed == 2 and len(stores(tmp_path / "new" / "cache")) == 2


def test_a_table_that_has_changed_is_packed_again_and_its_old_store_removed(
    table: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    cached_store(table, cache_dir=tmp_path / "cache").close()
    frame[:-1].to_parquet(table)
    with cached_store(table, cache_dir=tmp_path / "cache") as store:
        assert store.n_rows == len(frame) - 1
        assert stores(tmp_path / "cache") == [store.path]
    os.utime(table, ns=(0, 0))  # the same bytes, perhaps: only the time says that they may differ
    with cached_store(table, cache_dir=tmp_path / "cache") as store:
        assert stores(tmp_path / "cache") == [store.path]


def test_a_store_that_is_not_what_was_packed_is_packed_again(table: Path, tmp_path: Path) -> None:
    with cached_store(table, cache_dir=tmp_path) as store:
        path, content = store.path, store.hash
    with h5py.File(path, "r+") as file:
        file["rows/lfc"][3] += 1.0
    progress = Counting()
    with cached_store(table, cache_dir=tmp_path, progress=progress) as store:
        assert (store.path, store.hash, progress.packed) == (path, content, 1)
        store.verify()
    path.write_bytes(path.read_bytes()[:5000])
    with cached_store(table, cache_dir=tmp_path, progress=progress) as store:
        assert (store.hash, progress.packed) == (content, 2)


def test_without_the_cache_nothing_is_left(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    store = cached_store(table, no_cache=True)
    assert store.hash == read_screen(table).hash and stores(tmp_path / "tmp")
    del store
    gc.collect()
    with pytest.raises(VihierError, match="'nothing' is not in the table"):
        cached_store(table, columns={"lfc": "nothing"}, no_cache=True)
    assert not stores(tmp_path / "tmp") and not (tmp_path / "cache").exists()


def test_a_table_that_changes_while_it_is_read_is_refused(table: Path, tmp_path: Path) -> None:
    class Meddling(Silent):
        def start(self, stage: str, total: int) -> None:
            if stage == "sorting":
                os.utime(table, ns=(0, 0))

    with pytest.raises(VihierError, match="changed while it was read"):
        cached_store(table, cache_dir=tmp_path / "cache", progress=Meddling())
    assert stores(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_is_refused_with_its_cure(table: Path) -> None:
    with pytest.raises(VihierError, match=r"cannot be made.*--no-cache"):
        cached_store(table, cache_dir=table / "cache")
    with pytest.raises(VihierError, match="no such file"):
        cached_store(table.with_name("missing.csv"), cache_dir=table.parent)


def test_the_cache_is_where_the_user_keeps_such_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/vihier")
    for other in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", other)
        assert default_cache() == Path.home() / ".cache" / "vihier"
