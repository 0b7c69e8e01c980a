"""A stream whose writes never fail: what the disk refused is still read back, and `check` says so."""

import errno
import os

import pytest

from vihier.posterior.stream import UnfailingStream


@pytest.fixture
def stream(tmp_path):
    with UnfailingStream(tmp_path / "x") as opened:
        yield opened


def _fail_after(monkeypatch, n_bytes):
    """Let the system write only the first bytes of a file, as a full disk would: first short, then not at all."""
    write = os.pwrite

    def limited(descriptor, data, offset):
        room = n_bytes - offset
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", limited)


def test_reads_what_was_written(stream):
    stream.write(b"0123456789")
    stream.seek(3)
    stream.write(b"abc")
    stream.seek(0)
    assert stream.read(10) == b"012abc6789"
    assert stream.seek(-2, os.SEEK_END) == 8
    stream.check()


def test_after_a_failure_it_reads_on_as_if_nothing_had_happened(stream, monkeypatch):
    stream.write(b"0123456789")
    _fail_after(monkeypatch, 12)
    stream.write(b"ABCDEF")
    stream.seek(4)
    stream.write(b"xy")
    stream.seek(0)
    assert stream.read(100) == b"0123xy6789ABCDEF"
    assert stream.seek(0, os.SEEK_END) == 16
    with pytest.raises(OSError, match="No space left"):
        stream.check()
    with pytest.raises(OSError, match="No space left"):
        stream.sync()


def test_an_existing_file_is_not_touched(tmp_path):
    (tmp_path / "x").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        UnfailingStream(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"precious"
