"""A file has its name only when it is whole: an exception, a kill or a full disk leave none, or the earlier one."""

import os
import signal
import subprocess
import sys

import pytest

from vihier import open_posterior
from vihier.errors import VihierError
from vihier.posterior.writer import PosteriorWriter

# Writes a file of 40 MB in blocks, saying after each how far it is; never finishes.
ENDLESS = """
import sys, itertools, numpy as np
from vihier.posterior.writer import PosteriorWriter
about = dict(model="m", guide="g", seed=0, priors={}, config="", screen_hash="")
with PosteriorWriter(sys.argv[1], labels={"hugo_symbol": 100, "depmap_id": 100}, n_draws=1000, attrs=about) as writer:
    writer.add("gamma", ("hugo_symbol", "depmap_id"))
    block = np.ones((1000, 1, 100), dtype=np.float32)
    for gene in itertools.cycle(range(100)):
        writer.write("gamma", block, at=[gene])
        print(gene, flush=True)
"""


def _interrupt(path, known, about, error):
    with PosteriorWriter(path, labels=known.labels, n_draws=200, attrs=about) as writer:
        writer.add("gamma", ("hugo_symbol", "depmap_id"))
        writer.write("gamma", known.draws["gamma"][:, :2], at=slice(0, 2))
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_where_there_was_nothing(error, known, about, tmp_path):
    with pytest.raises(error):
        _interrupt(tmp_path / "fit.h5", known, about, error)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_earlier_file_as_it_was(known, about, tmp_path):
    path = known.write(tmp_path / "fit.h5")
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        _interrupt(path, known, about, ZeroDivisionError)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_leaving_without_finish_is_not_finishing(known, about, tmp_path):
    with PosteriorWriter(tmp_path / "fit.h5", labels=known.labels, n_draws=2, attrs=about) as writer:
        writer.add("sigma")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("earlier", [False, True])
def test_kill_9_in_mid_write_leaves_no_file_under_the_final_name(earlier, known, tmp_path):
    path = tmp_path / "fit.h5"
    before = known.write(path).read_bytes() if earlier else None
    with subprocess.Popen([sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == 7:
                break
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == before
    (partial,) = [left for left in tmp_path.iterdir() if left != path]
    assert partial.name.endswith(".partial")
    with pytest.raises(VihierError, match=r"unfinished|truncated|damaged|not a posterior"):
        open_posterior(partial)
    known.write(path)
    assert list(tmp_path.iterdir()) == [path]  # the next writer of the name has removed what the killed one left


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    # A limit on the size of files stands in for the disk: the write fails in the same place, with another number.
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))\n"
    run = subprocess.run(
        [sys.executable, "-c", limited + ENDLESS, tmp_path / "fit.h5"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"vihier.errors.VihierError: {tmp_path}/fit.h5: cannot be written: File too large"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_any_work(known, about, refusal, tmp_path):
    def start(path):
        with PosteriorWriter(path, labels=known.labels, n_draws=2, attrs=about):
            pass

    assert "is a directory" in refusal(start, tmp_path)
    assert "does not exist; make it first" in refusal(start, tmp_path / "nowhere" / "fit.h5")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert "Permission denied" in refusal(start, tmp_path / "fit.h5")


def test_a_name_as_long_as_the_file_system_allows(known, tmp_path):
    path = known.write(tmp_path / f"{'n' * 252}.h5")
    assert open_posterior(path).converged
