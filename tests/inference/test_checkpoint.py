"""A fit of a large screen that is stopped anywhere goes on to the same file, or says in one line why it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import vihier
from vihier.errors import Stopped, VihierError
from vihier.guides import structured_fit
from vihier.guides.streamed_chains import StreamedChains
from vihier.inference import checkpoint as checkpoints
from vihier.inference.shelf import Shelf
from vihier.store.pack import pack
from vihier.store.store import ScreenStore

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")
OPTIONS = {"draws": 130, "seed": 3, "quiet": True, "batch_size": 3, "draws_disk_gb": 0, "max_steps": 14}


@pytest.fixture(scope="module", autouse=True)
def streaming() -> object:
    """Stream screens of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structured_fit, "SWEPT_UP_TO", 0)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScreenStore:
    """A small screen, packed."""
    folder = tmp_path_factory.mktemp("screen")
    made = vihier.simulate(folder / "screen.parquet", genes=10, lines=20, lineages=3, seed=5, model="additive")
    return pack(made.table, folder / "screen.h5")


@pytest.fixture(scope="module")
def uninterrupted(store: ScreenStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """All datasets of the fit that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "fit.h5"
    vihier.fit(store, out=out, **OPTIONS).close()
    assert not out.with_name("fit.h5.checkpoint").exists()
    return datasets(out)


def datasets(path: Path) -> dict[str, np.ndarray]:
    """Read every dataset of a file."""
    found: dict[str, np.ndarray] = {}

    def take(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def assert_same(path: Path, expected: dict[str, np.ndarray]) -> None:
    """Hold every dataset of a file to another's, bit by bit."""
    there = datasets(path)
    assert there.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(there[name], values, err_msg=name)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("passes", [1, 8, 13])
def test_killed_after_a_pass(
    store: ScreenStore,
    uninterrupted: dict[str, np.ndarray],
    passes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever pass was the last, the resumed fit ends with the same numbers."""
    sweep = StreamedChains.sweep

    def dying(self: StreamedChains) -> None:
        if self.state.passes == passes:
            raise Killed
        sweep(self)

    out = tmp_path / "fit.h5"
    with monkeypatch.context() as patch:
        patch.setattr(StreamedChains, "sweep", dying)
        with pytest.raises(Killed):
            vihier.fit(store, out=out, checkpoint_every=0, **OPTIONS)
    assert not out.exists()
    with pytest.raises(VihierError, match=r"checkpoint of an unfinished fit; go on with --resume"):
        vihier.fit(store, out=out, **OPTIONS)
    vihier.fit(store, out=out, resume=True, **OPTIONS).close()
    assert_same(out, uninterrupted)
    assert not out.with_name("fit.h5.checkpoint").exists()


def test_killed_between_the_file_and_the_removal_of_its_checkpoint(
    store: ScreenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fit.h5"
    folder = out.with_name("fit.h5.checkpoint")

    def dying(self: checkpoints.Checkpoint) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "remove", dying)
        with pytest.raises(Killed):
            vihier.fit(store, out=out, checkpoint_every=0, **OPTIONS)
    about = (folder / "about.json").read_text()
    (folder / "about.json").write_text(about.replace("seed = 3", "seed = 4"))
    vihier.fit(store, out=out, **OPTIONS).close()
    assert folder.exists()  # of another fit
    (folder / "about.json").write_text(about)
    vihier.fit(store, out=out, **OPTIONS).close()
    assert not folder.exists()
    folder.mkdir()
    (folder / "state.pt").touch()  # half removed
    vihier.fit(store, out=out, **OPTIONS).close()
    assert not folder.exists()


@pytest.mark.parametrize("blocks", [0, 2])
def test_killed_in_the_last_pass(
    store: ScreenStore,
    uninterrupted: dict[str, np.ndarray],
    blocks: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks that were written are not worked out again, and the file is the same."""
    done = Shelf.done

    def dying(self: Shelf, block: int) -> None:
        if block == blocks:
            raise Killed
        done(self, block)

    out = tmp_path / "fit.h5"
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "done", dying)
        with pytest.raises(Killed):
            vihier.fit(store, out=out, checkpoint_every=0, **OPTIONS)
    assert torch.is_grad_enabled()  # whoever caught it can go on fitting
    journal = out.with_name("fit.h5.checkpoint") / "blocks" / "blocks"
    assert (journal.read_text().split() if journal.exists() else []) == [str(i) for i in range(blocks)]
    worked: list[int] = []
    monkeypatch.setattr(Shelf, "done", lambda self, block: (worked.append(block), done(self, block)))
    vihier.fit(store, out=out, resume=True, **OPTIONS).close()
    assert worked == list(range(blocks, 4))
    assert_same(out, uninterrupted)


def test_killed_in_the_last_pass_of_a_fit_that_kept_no_state(
    store: ScreenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short in its burn-in, a fit draws from its last state, which the checkpoint holds."""
    options = OPTIONS | {"max_steps": 4}
    vihier.fit(store, out=tmp_path / "whole.h5", **options).close()

    def dying(self: Shelf, block: int) -> None:
        raise Killed

    out = tmp_path / "fit.h5"
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "done", dying)
        with pytest.raises(Killed):
            vihier.fit(store, out=out, checkpoint_every=0, **options)
    vihier.fit(store, out=out, resume=True, **options).close()
    assert_same(out, datasets(tmp_path / "whole.h5"))


def test_a_signal_has_a_checkpoint_written(
    store: ScreenStore, uninterrupted: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGUSR1 in the middle of a pass ends the fit after it, whatever the time between checkpoints."""
    sweep = StreamedChains.sweep

    def signalled(self: StreamedChains) -> None:
        if self.state.passes == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        sweep(self)

    out = tmp_path / "fit.h5"
    with monkeypatch.context() as patch:
        patch.setattr(StreamedChains, "sweep", signalled)
        with pytest.raises(Stopped, match="stopped by SIGUSR1; go on with --resume"):
            vihier.fit(store, out=out, checkpoint_every=60, **OPTIONS)
    vihier.fit(store, out=out, resume=True, **OPTIONS).close()
    assert_same(out, uninterrupted)


def test_another_fit_is_refused(store: ScreenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of another configuration is named with its difference, and is left as it is."""
    out = tmp_path / "fit.h5"
    _stop(store, out, monkeypatch)
    for change, text in (({"seed": 4}, "seed 3, and 4 was asked for"), ({"model": "gene_lineage"}, "model 'additive'")):
        with pytest.raises(VihierError, match=text):
            vihier.fit(store, out=out, resume=True, **(OPTIONS | change))
    other = vihier.simulate(tmp_path / "other.parquet", genes=10, lines=20, lineages=3, seed=6, model="additive")
    with pytest.raises(VihierError, match="a fit of another screen"):
        vihier.fit(other.table, out=out, resume=True, **OPTIONS)
    (out.with_name("fit.h5.checkpoint") / "state.pt").write_bytes(b"not a state")
    with pytest.raises(VihierError, match="a damaged checkpoint"):
        vihier.fit(store, out=out, resume=True, **OPTIONS)
    vihier.fit(store, out=out, force=True, **OPTIONS).close()


def _stop(store: ScreenStore, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = StreamedChains.sweep

    def dying(self: StreamedChains) -> None:
        if self.state.passes == 3:
            raise Killed
        sweep(self)

    with monkeypatch.context() as patch:
        patch.setattr(StreamedChains, "sweep", dying)
        with pytest.raises(Killed):
            vihier.fit(store, out=out, checkpoint_every=0, **OPTIONS)


def test_a_full_disk_leaves_the_checkpoint_before(
    store: ScreenStore, uninterrupted: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch cannot write is said in one line, and the fit goes on from the checkpoint before."""
    saved, save = [0], torch.save

    def full(content: object, path: Path) -> None:
        saved[0] += 1
        if saved[0] == 6:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(content, path)

    out = tmp_path / "fit.h5"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.torch, "save", full)
        with pytest.raises(
            VihierError, match=r"cannot be written \(No space left on device\); the one before it is intact"
        ):
            vihier.fit(store, out=out, checkpoint_every=0, **OPTIONS)
    vihier.fit(store, out=out, resume=True, **OPTIONS).close()
    assert_same(out, uninterrupted)


@pytest.mark.slow
def test_kill_9_at_random_moments(store: ScreenStore, uninterrupted: dict[str, np.ndarray], tmp_path: Path) -> None:
    """A process that is killed again and again gets there in the end, with the same file."""
    out = tmp_path / "fit.h5"
    program = (
        "import sys, vihier; from vihier.guides import structured_fit; structured_fit.SWEPT_UP_TO = 0; "
        "from vihier.store.store import open_store; "
        f"vihier.fit(open_store(sys.argv[1]), out=sys.argv[2], resume=True, checkpoint_every=0, **{OPTIONS!r})"
    )
    random = np.random.default_rng(0)
    kills = 0
    while not out.exists():
        process = subprocess.Popen([sys.executable, "-c", program, str(store.path), str(out)])
        # Later and later, so that it ends: at first within the imports, which take a second or more.
        deadline = time.monotonic() + random.uniform(0.3, 1.0) + 0.3 * kills
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            kills += 1
        process.wait()
    assert_same(out, uninterrupted)
    assert kills
