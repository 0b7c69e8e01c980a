"""Packing several tables: one screen whatever the order of rows and files, refusals that name the table, kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hdf5_contents import datasets

from vihier.errors import VihierError
from vihier.screen import read_screen
from vihier.store.pack import pack
from vihier.store.store import open_store


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.simplefilter("ignore")


def refusal(paths: Sequence[Path] | Path, out: Path, **options: object) -> str:
    with pytest.raises(VihierError) as caught:
        pack(paths, out, **options)  # type: ignore[arg-type]
    assert not out.exists() and not list(out.parent.glob(".*"))
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_order_of_rows_and_of_tables_does_not_count(frame: pd.DataFrame, tmp_path: Path, small: None) -> None:
    whole = tmp_path / "whole.csv"
    frame.to_csv(whole, index=False)
    expected = read_screen(frame).hash
    with pack(whole, tmp_path / "whole.h5") as store:
        assert store.hash == expected
    stores = []
    for seed in range(3):
        rows = frame.sample(frac=1, random_state=seed, ignore_index=True)
        # Columns in another order too, one table as text, one as Parquet in small row groups.
        cuts = np.sort(np.random.default_rng(seed).integers(0, len(rows), 2))
        parts = [rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] :]]
        paths = [tmp_path / f"{seed}{number}.{kind}" for number, kind in enumerate(["csv.gz", "parquet", "tsv"])]
        parts[0].to_csv(paths[0], index=False)
        parts[1][reversed(frame.columns)].to_parquet(paths[1], row_group_size=17)
        parts[2].to_csv(paths[2], index=False, sep="\t")
        stores.append(tmp_path / f"{seed}.h5")
        with pack(paths[::-1] if seed % 2 else paths, stores[-1]) as store:
            assert store.hash == expected
            assert store.report.n_rows_read == len(frame)
    for path in stores:
        assert datasets(path) == datasets(tmp_path / "whole.h5")


def test_rows_without_a_replicate_are_the_same_in_any_order(frame: pd.DataFrame, tmp_path: Path, small: None) -> None:
    # Ties in key and lfc: only the covariates order them.
    table = frame.drop(columns="replicate_id").assign(lfc=np.round(frame["lfc"]))
    screen = read_screen(table)
    for seed in range(2):
        table.sample(frac=1, random_state=seed).to_parquet(tmp_path / f"{seed}.parquet", index=False)
        with pack(tmp_path / f"{seed}.parquet", tmp_path / f"{seed}.h5") as store:
            for columns in ([], ["copy_number"], ["is_mutated", "lineage"], ["screen", "p_dna_batch"]):
                assert store.content_hash(columns) == screen.content_hash(columns)
    assert datasets(tmp_path / "0.h5") == datasets(tmp_path / "1.h5")


def test_only_the_covariates_asked_for_are_kept(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "a.parquet")
    screen = read_screen(frame)
    with pack(tmp_path / "a.parquet", tmp_path / "a.h5", covariates=["copy_number"]) as store:
        assert store.covariates == ("copy_number", "screen")
        assert store.report.ignored == dict.fromkeys(["is_mutated", "p_dna_batch"], "not asked for")
        wanted = ["copy_number", "lineage", "screen"]
        assert store.content_hash(wanted) == screen.content_hash(wanted) == store.hash
        with pytest.raises(VihierError, match="'is_mutated' is not in this screen"):
            store.content_hash(["is_mutated"])
    assert "nearest is 'copy_number'" in refusal(tmp_path / "a.parquet", tmp_path / "b.h5", covariates=["copynumber"])


def test_numbers_are_kept_to_the_bit_in_the_fewest_bytes(frame: pd.DataFrame, tmp_path: Path) -> None:
    halves = frame.assign(lfc=np.round(frame["lfc"] * 2) / 2)
    for name, table, kind in [("halves", halves, "float32"), ("decimals", frame, "float64")]:
        table.to_parquet(tmp_path / f"{name}.parquet")
        with pack(tmp_path / f"{name}.parquet", tmp_path / f"{name}.h5") as store:
            assert store.to_screen().lfc.tobytes() == read_screen(table).lfc.tobytes()
        assert datasets(tmp_path / f"{name}.h5")["rows/lfc"].startswith(kind.encode())
        assert datasets(tmp_path / f"{name}.h5")["rows/replicate"].startswith(b"uint8")


def two_tables(frame: pd.DataFrame, tmp_path: Path, extra: pd.DataFrame) -> list[Path]:
    paths = [tmp_path / "a.csv", tmp_path / "b.parquet"]
    frame.to_csv(paths[0], index=False)
    extra.to_parquet(paths[1], index=False)
    return paths


# What is changed of a row of the first table, and what the refusal says of it as row 1 of the second.
BETWEEN_TABLES: dict[str, tuple[dict[str, object], str, str]] = {
    "two genes": ({"hugo_symbol": "X"}, "hugo_symbol", "sgRNA {sgrna!r} has 'X' here and {gene!r} at {same_sgrna}; "),
    "two lineages": (
        {"lineage": "l9", "replicate_id": "C"},
        "lineage",
        "line {line!r} has 'l9' here and {lineage!r} at {same_line}; ",
    ),
    "duplicate": (
        {},
        "replicate_id",
        "a duplicate of {same_row} (sgRNA {sgrna!r}, replicate {replicate!r}; 1 duplicate in all); ",
    ),
    "lfc": ({"lfc": 99.0}, "lfc", "value 99 is out of range; "),
    "missing label": ({"sgrna": None}, "sgrna", "the label is missing; "),
}


@pytest.mark.parametrize("name", BETWEEN_TABLES)
def test_faults_between_tables_name_both(name: str, frame: pd.DataFrame, tmp_path: Path, small: None) -> None:
    change, column, words = BETWEEN_TABLES[name]
    row = frame.iloc[7]
    good = frame.iloc[[8]].assign(replicate_id="D")
    paths = two_tables(frame, tmp_path, pd.concat([good, frame.iloc[[7]].assign(**change)]))
    same_line = np.flatnonzero(frame["depmap_id"] == row["depmap_id"])[0]
    same_sgrna = np.flatnonzero((frame["sgrna"] == row["sgrna"]) & (frame["screen"] == row["screen"]))[0]
    told = words.format(
        sgrna=f"{row['sgrna']}|{row['screen']}",
        gene=row["hugo_symbol"],
        line=row["depmap_id"],
        lineage=row["lineage"],
        replicate=f"{row['depmap_id']}|{row['replicate_id']}|{row['screen']}",
        same_sgrna=f"{paths[0]}, line {same_sgrna + 2}",
        same_line=f"{paths[0]}, line {same_line + 2}",
        same_row=f"{paths[0]}, line 9",
    )
    message = refusal(paths, tmp_path / "out.h5")
    assert message.startswith(f"{paths[1]}: column {column!r}, row 1 (counted from 0): {told}")


def test_tables_must_have_the_same_columns(frame: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    paths = two_tables(frame[:200], tmp_path, frame[200:].drop(columns="copy_number"))
    message = refusal(paths, out)
    assert message.startswith(f"{paths[1]}: column 'copy_number' is missing, and {paths[0]} has it; ")
    assert "--covariates" in message
    with pack(paths, out, covariates=["is_mutated"]) as store:
        assert store.n_rows == len(frame)
    out.unlink()
    paths = two_tables(frame[:200].drop(columns="replicate_id"), tmp_path, frame[200:])
    assert f"{paths[0]}: column 'replicate_id' is missing" in refusal(paths, out)


def test_a_covariate_may_be_of_another_type_in_each_table(frame: pd.DataFrame, tmp_path: Path, small: None) -> None:
    paths = two_tables(frame[:200].assign(plate="p1"), tmp_path, frame[200:].assign(plate=3))
    with pack(paths, tmp_path / "out.h5") as store:
        assert list(store.index.categories["plate"]) == ["3", "p1"]


def test_a_directory_stands_for_its_parquet_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "screen"
    (folder / "more").mkdir(parents=True)
    frame[:100].to_parquet(folder / "part-0.parquet")
    frame[100:100].to_parquet(folder / "part-1.parquet")  # writers leave empty parts
    frame[100:].to_parquet(folder / "more" / "part-2.parquet")
    for name in ("_SUCCESS", "_metadata.parquet", ".hidden.parquet", "notes.txt"):
        (folder / name).write_text("no table")
    with pack(folder, tmp_path / "out.h5") as store:
        assert store.hash == read_screen(frame).hash
        assert store.report.source == f"{folder / 'more' / 'part-2.parquet'} and 2 other tables"


def test_folders_that_cannot_be_read_whole_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    (tmp_path / "empty").mkdir()
    assert "no Parquet file in this directory" in refusal(tmp_path / "empty", out)
    (tmp_path / "hive" / "lineage=l1").mkdir(parents=True)
    frame.to_parquet(tmp_path / "hive" / "lineage=l1" / "a.parquet")
    assert "the folder 'lineage=l1' holds a column in its name" in refusal(tmp_path / "hive", out)
    twice = [tmp_path / "hive" / "lineage=l1" / "a.parquet"] * 2
    assert "given twice" in refusal(twice, out)


def test_nothing_and_unknown_options_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    assert "no table was given" in refusal([], tmp_path / "out.h5")
    frame.to_parquet(tmp_path / "a.parquet")
    assert "on_conflict='warn'" in refusal(tmp_path / "a.parquet", tmp_path / "out.h5", on_conflict="warn")


def test_an_output_that_would_harm_a_table_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = tmp_path / "a.parquet"
    frame.to_parquet(table)
    before = table.read_bytes()
    for out in (table, tmp_path / "b.csv", tmp_path / "missing" / "a.h5", tmp_path):
        with pytest.raises(VihierError):
            pack(table, out)
    assert table.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


# In a process of its own, which is killed by what it tells its progress to.
KILLED = """
import os, signal, sys
from vihier.inference.progress import Silent
from vihier.store.pack import pack

class Deadly(Silent):
    def update(self, done, figures=None):
        if self.stage == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
    def start(self, stage, total):
        self.stage = stage

pack(sys.argv[1], sys.argv[2], progress=Deadly())
"""


@pytest.mark.parametrize(("stage", "name"), [("reading MB", "new.h5"), ("sorting", "new.h5"), ("sorting", "out.h5")])
def test_a_killed_pack_leaves_no_store_and_the_earlier_one(
    stage: str, name: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    frame.to_parquet(tmp_path / "a.parquet")
    frame[:50].to_parquet(tmp_path / "b.parquet")
    out = tmp_path / "out.h5"
    pack(tmp_path / "b.parquet", out).close()
    before = out.read_bytes()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.parquet"), str(tmp_path / name), stage]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert out.read_bytes() == before
    assert not (tmp_path / "new.h5").exists()
    for left in tmp_path.glob(".*partial"):
        with pytest.raises(VihierError, match=r"unfinished|damaged|not HDF5"):
            open_store(left)


FULL_DISK = """
import resource, signal, sys
from vihier.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
sys.exit(main(["pack", "-q", sys.argv[1], sys.argv[2]]))
"""


@pytest.mark.parametrize("most", [4_000, 14_000])  # the file of rows to be sorted has 13,000 bytes, the store more
def test_a_full_disk_is_one_line(most: int, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "a.parquet")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.parquet"), str(tmp_path / "out.h5"), str(most)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"vihier: {tmp_path / 'out.h5'}: cannot be written: ") and run.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


PEAK = """
import resource, sys
from vihier.store.pack import pack
pack(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    from vihier import simulate

    peaks = []
    for genes in (500, 1500):  # 4 and 12 million rows: several chunks and groups either way
        table = simulate(tmp_path / f"{genes}.parquet", genes=genes, lines=1000, lineages=20).table
        command = [sys.executable, "-c", PEAK, str(table), str(tmp_path / f"{genes}.h5")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    # 8 million rows of 48 bytes are 380 MB. The allocators keep pages as they like: a quarter of that.
    assert peaks[1] - peaks[0] < 100 * 1024
