"""Several processes that fit one screen: the same bits whatever their number, and an end when one of them dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import vihier
from vihier.guides import structured_fit
from vihier.guides.pass_sums import PARTS, blocks_of_worker
from vihier.inference.workers import Workers, joined
from vihier.store.pack import pack
from vihier.store.store import ScreenStore

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")
OPTIONS = {"draws": 130, "seed": 3, "batch_size": 2, "draws_disk_gb": 0, "max_steps": 12}
# A screen of any size is streamed; the worker of the number in DIES is killed before its tenth pass.
PROGRAM = """
import os, signal, sys
from vihier.cli import main
from vihier.guides import streamed_chains, structured_fit, swept_fit
structured_fit.SWEPT_UP_TO = swept_fit.HELD_UP_TO = 0
sweep = streamed_chains.StreamedChains.sweep
def dying(self, *given):
    if self.state.passes == 9 and os.environ["RANK"] == os.environ.get("DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    sweep(self, *given)
streamed_chains.StreamedChains.sweep = dying
sys.exit(main())
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ScreenStore:
    """A small screen, packed: seven blocks of two genes."""
    folder = tmp_path_factory.mktemp("screen")
    made = vihier.simulate(folder / "screen.parquet", genes=14, lines=20, lineages=3, seed=5, model="additive")
    return pack(made.table, folder / "screen.h5")


def run(n_workers: int, store: ScreenStore, out: Path, *arguments: str, dies: str = "") -> tuple[int, list[str]]:
    """Start workers; return the launcher's status, and what vihier said."""
    program = out.parent / "program.py"
    program.write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_workers)]
    options = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [*launch, str(program), "fit", str(store.path), "--out", str(out), *options, "--quiet", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIES": dies}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("vihier:")]


def alone(store: ScreenStore, out: Path, model: str) -> None:
    """Fit in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structured_fit, "SWEPT_UP_TO", 0)
        vihier.fit(store, model, out=out, quiet=True, **OPTIONS).close()


def assert_same(one: Path, other: Path) -> None:
    """Hold every dataset of a file to another's, bit by bit."""
    with h5py.File(one) as a, h5py.File(other) as b:
        names: list[str] = []
        a.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        assert "moments/effect_q05" in names
        for name in names:
            np.testing.assert_array_equal(a[name][()], b[name][()], err_msg=name)


def test_three_workers_fit_what_one_fits(store: ScreenStore, tmp_path: Path) -> None:
    """Blocks that do not go into three: two workers have two each, one has three."""
    status, said = run(3, store, tmp_path / "three.h5")
    assert status == 0, said
    assert not (tmp_path / "three.h5.checkpoint").exists()
    alone(store, tmp_path / "one.h5", "additive")
    assert_same(tmp_path / "one.h5", tmp_path / "three.h5")


def test_a_worker_that_dies_ends_the_fit_which_goes_on(store: ScreenStore, tmp_path: Path) -> None:
    """The launcher fails, who is left says why in a line, nothing looks finished, and two go on to what one fits."""
    out = tmp_path / "two.h5"
    model = ("--model", "gene_lineage", "--checkpoint-every", "0")
    status, said = run(2, store, out, *model, dies="1")
    assert status == 1
    assert said == [
        "vihier: another worker has ended, and so has this fit: look for what that one said; where there is a "
        "checkpoint, go on with --resume"
    ]
    assert not out.exists()
    status, said = run(2, store, out, *model, "--resume")
    assert status == 0, said
    alone(store, tmp_path / "one.h5", "gene_lineage")
    assert_same(tmp_path / "one.h5", out)


def test_what_is_refused_is_refused_once(store: ScreenStore, tmp_path: Path) -> None:
    """By the first worker, in one line."""
    status, said = run(2, store, tmp_path / "fit.h5", "--batch-size", "14")
    assert status == 1
    assert said == [
        "vihier: 2 workers: 14 genes in blocks of 14 are shared by 1 at most; start fewer, or give a smaller "
        "--batch-size"
    ]


@pytest.mark.parametrize("n_blocks", [1, 5, PARTS, 282])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_block_is_one_workers(n_blocks: int, count: int) -> None:
    """Each in whole parts, in order, none much more than another."""
    shares = [blocks_of_worker(Workers(rank, count), n_blocks) for rank in range(count)]
    assert [number for share in shares for number in share] == list(range(n_blocks))
    assert max(map(len, shares)) - min(map(len, shares)) <= max(1, -(-n_blocks // PARTS) + 1)


def test_alone_where_nothing_was_launched() -> None:
    """And then everything is one's own."""
    with joined() as workers:
        assert workers == Workers(0, 1)
        table = torch.ones(3)
        workers.add_up(table)
        assert table.tolist() == [1, 1, 1]
        assert workers.gathered("x") == ["x"]
