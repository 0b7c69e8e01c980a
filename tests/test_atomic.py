"""A file is there whole or not at all, and what killed writers leave is swept up by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vihier.atomic import partial_beside, renamed_when_whole
from vihier.errors import VihierError

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")

# Begins a file of the name given, says so, and waits.
BEGINS = """
import sys, time
from pathlib import Path
from vihier.atomic import renamed_when_whole
with renamed_when_whole(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print("begun", flush=True)
    time.sleep(600)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    out.write_text("earlier")
    with pytest.raises(ZeroDivisionError), renamed_when_whole(out) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert names_in(tmp_path) == ["table.csv"] and out.read_text() == "earlier"


@posix_only
def test_what_a_killed_writer_left_is_removed_by_the_next_and_not_while_it_lives(tmp_path: Path) -> None:
    out = tmp_path / "a [b].csv"
    with subprocess.Popen([sys.executable, "-c", BEGINS, out], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "begun\n"
        (theirs,) = names_in(tmp_path)
        with renamed_when_whole(out) as partial:
            partial.write_text("whole")
        assert names_in(tmp_path) == [theirs, out.name]
        writer.send_signal(signal.SIGKILL)
    assert names_in(tmp_path) == [theirs, out.name]
    with renamed_when_whole(tmp_path / "another.csv") as partial:
        partial.write_text("whole")
    assert theirs in names_in(tmp_path)
    with renamed_when_whole(out) as partial:
        partial.write_text("whole")
    assert names_in(tmp_path) == [out.name, "another.csv"]


@posix_only
def test_what_another_machine_writes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "table.csv"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.node", lambda: "node17")
        elsewhere.setattr("os.getpid", lambda: 2**22 + 1)  # beyond what Linux and macOS number, so never running
        theirs = partial_beside(out)
    theirs.write_text("half")
    assert partial_beside(out) != theirs and theirs.exists()
    monkeypatch.setattr("platform.node", lambda: "node17")
    partial_beside(out)
    assert not theirs.exists()


def test_a_place_where_no_file_can_be_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, said in ((tmp_path, "is a directory"), (tmp_path / "no" / "x.csv", "does not exist")):
        with pytest.raises(VihierError, match=said):
            partial_beside(path)

    def refused(path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Root may write anywhere, and tests run as root in many containers.
    monkeypatch.setattr("pathlib.Path.touch", refused)
    with pytest.raises(VihierError, match="cannot be written: Permission denied; name a file elsewhere"):
        partial_beside(tmp_path / "x.csv")
    assert names_in(tmp_path) == []


@posix_only
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VihierError, match="not a plain file"):
        partial_beside(tmp_path / "pipe")
