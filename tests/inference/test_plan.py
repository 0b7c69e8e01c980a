"""What `vihier plan` says beside what then happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vihier
from vihier.cli import main
from vihier.guides import structured_fit
from vihier.inference.plan import plan_streamed_fit
from vihier.inference.sizes import sizes_of
from vihier.models.program import load_program
from vihier.store.pack import pack


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screen")
    made = vihier.simulate(folder / "screen.parquet", genes=12, lines=30, lineages=3, seed=5, model="additive")
    return made.table


def test_sizes_are_those_of_the_screen(table: Path) -> None:
    """Read off the keys of a table, or the index of a store."""
    screen = vihier.read_screen(table)
    sizes = sizes_of(table)
    assert (sizes.rows, sizes.genes, sizes.sgrnas) == (screen.n_rows, 12, screen.n_sgrnas)
    assert (sizes.lines, sizes.lineages, sizes.pairs, sizes.is_packed) == (30, 3, 360, False)
    pack(table, table.with_suffix(".h5")).close()
    packed = sizes_of(table.with_suffix(".h5"))
    assert packed.is_packed
    assert (packed.rows, packed.sgrnas, packed.lineages) == (sizes.rows, sizes.sgrnas, sizes.lineages)


@pytest.mark.parametrize("room", [0.0, 1.0])
@pytest.mark.filterwarnings("ignore:the fit did not converge")
def test_disk_is_what_the_file_takes(table: Path, room: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws stored or not; labels and chunks add some kilobytes."""
    monkeypatch.setattr(structured_fit, "SWEPT_UP_TO", 0)
    found = plan_streamed_fit(
        load_program("additive"), sizes_of(table), draws=1500, draws_disk_gb=room, batch_size=5, folder=tmp_path
    )
    assert found.blocks == 3
    assert found.pairs_stored == (room > 0)
    assert list(tmp_path.iterdir()) == []
    vihier.fit(table, draws=1500, out=tmp_path / "fit.h5", batch_size=5, draws_disk_gb=room, max_steps=8, quiet=True)
    size = (tmp_path / "fit.h5").stat().st_size / 1e9
    assert abs(found.disk_gb - size) < 0.006 + 0.05 * size  # rounded to 0.01 GB


def test_memory_is_what_the_fit_takes(tmp_path: Path) -> None:
    """Within 1.5 times, each in a process of its own: half of it are libraries, the rest what two threads work on."""
    made = vihier.simulate(
        tmp_path / "screen.parquet", genes=104, lines=1000, lineages=9, sgrnas=2, replicates=1, seed=5, model="additive"
    )
    options = ["--draws", "150", "--draws-disk-gb", "1", "--batch-size", "24"]
    planned, _ = peak_of("plan", str(made.table), *options, "--folder", str(tmp_path), "--json")
    found = json.loads(planned)
    assert found["pairs_stored"]
    out = tmp_path / "fit.h5"
    _, peak = peak_of("fit", str(made.table), "--out", str(out), *options, "--max-steps", "4", "--quiet")
    assert 1 / 1.5 < found["memory_gb"] / peak < 1.5, found["memory"]
    assert 1 / 1.5 < found["disk_gb"] / (out.stat().st_size / 1e9) < 1.5


def peak_of(*arguments: str) -> tuple[str, float]:
    """Run a command; return what it printed, and its largest resident memory in GB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vihier", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    printed = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return printed, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def test_rows_that_are_not_plain_take_more(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A screen of few genes has Normal rows unless others are asked for, as in a fit."""
    told = {}
    for name, options in (("auto", ()), ("student_t", ("--likelihood", "student_t", "--noise", "replicate"))):
        assert main(["plan", str(table), *options, "--json"]) == 0
        told[name] = json.loads(capsys.readouterr().out)
    assert (told["auto"]["likelihood"], told["auto"]["noise"]) == ("normal", "global")
    assert told["student_t"]["likelihood"] == "student_t"
    assert told["student_t"]["memory_gb"] > told["auto"]["memory_gb"]
    assert sum(told["auto"]["memory"].values()) == pytest.approx(told["auto"]["memory_gb"], abs=0.01)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("additive", ("--likelihood", "student_t", "--noise", "replicate", "--nu", "4")),
        ("multi_screen", ()),
        ("covariate", ("--covariate", "rna_expr=off", "--covariate", "is_mutated=off")),
    ],
)
@pytest.mark.filterwarnings("ignore:the fit did not converge")
def test_fits_that_are_held_are_planned_on_the_screen_itself(
    model: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameters and disk are those of the fit: columns, replicates, batches count."""
    made = vihier.simulate(tmp_path / "s.parquet", genes=10, lines=8, lineages=2, seed=5, model="additive")
    rows = pd.read_parquet(made.table)
    rows = rows.assign(copy_number=np.linspace(0, 3, len(rows)), screen=np.arange(len(rows)) % 2)
    table, out = tmp_path / "more.parquet", tmp_path / "fit.h5"
    rows.assign(p_dna_batch=rows["screen"]).to_parquet(table)
    asked = [str(table), "--model", model, *options, "--draws", "1500"]
    assert main(["plan", *asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["fit", *asked, "--max-steps", "3", "--quiet", "--out", str(out)]) == 0
    posterior = vihier.open_posterior(out)
    derived = {name for name in posterior.variables if name.startswith("effect") or name.endswith("_dev")}
    sites = set(posterior.variables) - derived
    assert told["parameters"] == sum(posterior.draws(name).size for name in sites) // 1500
    assert told["disk_gb"] == pytest.approx(out.stat().st_size / 1e9, abs=0.006)
    assert told["seconds"] > 0 and 0.5 < told["memory_gb"] < 1.5


def test_a_fit_that_would_not_be_held_is_refused(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by the fit itself, and before the table is read."""
    from vihier.guides import swept_fit

    monkeypatch.setattr(structured_fit, "SWEPT_UP_TO", 0)
    monkeypatch.setattr(swept_fit, "MOST_HELD", 1000)
    assert main(["plan", str(table), "--likelihood", "negative_binomial"]) == 2
    assert capsys.readouterr().err.strip() == (
        "vihier: plan: 1000 draws x 360 gene-line pairs, 0 GB in memory, all of which such a fit holds; "
        "give --draws 2 or fewer"
    )


def test_parameters_are_counted(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine scalars, two of lineages, beta, three of genes, alpha, gamma."""
    sgrnas = vihier.read_screen(table).n_sgrnas
    assert main(["plan", str(table), "--folder", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == 9 + 2 * 3 + 30 + 3 * 12 + sgrnas + 360
    assert said["problems"] == []
    assert said["seconds"] > 0 and said["memory_gb"] > 0


def test_what_does_not_fit_is_said(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line each, with what to change."""
    from vihier.commands import plan

    monkeypatch.setattr(plan, "_memory_gb", lambda: 0.001)
    assert main(["plan", str(table), "--folder", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "does not fit: " in told and "GB of memory" in told and "--batch-size" in told


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (("--draws", "0"), "draws 0: give a whole number, 1 or more"),
        (("--folder", "nowhere"), "--folder nowhere: no such folder; give one that is there"),
    ],
)
def test_bad_arguments_end_in_one_line(
    table: Path, wrong: tuple[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit status 2."""
    assert main(["plan", str(table), *wrong]) == 2
    assert capsys.readouterr().err.strip() == f"vihier: {line}"
