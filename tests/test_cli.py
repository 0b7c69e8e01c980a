"""The command line: what each command writes, and that refusals are one line and status 2."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import vihier
from vihier.cli import interrupts_heeded, main
from vihier.posterior.reader import Posterior

Make = Callable[..., Posterior]


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "screen.csv"
    assert main(["simulate", str(path), "--genes", "4", "--lines", "6", "--lineages", "2", "--sgrnas", "2-3"]) == 0
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that must be refused; return the one line it says."""
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.endswith("\n")
    assert "Traceback" not in said.err
    return said.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vihier {vihier.__version__}\n"


def test_simulate_has_the_size_asked_for_and_the_truth_beside_it(screen: Path) -> None:
    table = vihier.read_screen(screen)
    assert (table.n_genes, table.n_lines, table.n_lineages) == (4, 6, 2)
    per_gene = pd.Series(table.index.gene_of_sgrna).value_counts()
    assert set(per_gene) <= {2, 3}
    assert screen.with_name("screen.truth.h5").is_file()


def test_simulate_is_seeded(tmp_path: Path) -> None:
    written = {}
    for name, seed in {"a": "1", "b": "1", "c": "2"}.items():
        out = tmp_path / f"{name}.csv"
        assert main(["simulate", str(out), "--genes", "2", "--lines", "3", "--lineages", "1", "--seed", seed]) == 0
        written[name] = out.read_bytes()
    assert written["a"] == written["b"] != written["c"]


def test_simulate_replaces_a_simulated_screen_but_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "screen.csv"
    small = ["--genes", "2", "--lines", "3", "--lineages", "1"]
    assert main(["simulate", str(out), *small]) == 0
    assert main(["simulate", str(out), *small, "--seed", "1"]) == 0
    capsys.readouterr()
    real = tmp_path / "real.csv"
    real.write_text("precious\n")
    assert "real.csv" in refused(capsys, "simulate", real, *small)
    assert real.read_text() == "precious\n"


def test_validate_prints_what_was_read(screen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(screen)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(str(vihier.read_screen(screen).report))
    assert "4 genes" in said and "6 lines" in said and "2 lineages" in said


def test_validate_as_json(screen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(screen), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    table = vihier.read_screen(screen)
    assert said["n_rows_kept"] == table.n_rows and said["hash"] == table.hash and said["n_genes"] == 4


def test_columns_are_mapped_and_conflicts_dropped(
    screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(screen).rename(columns={"lfc": "LFC", "sgrna": "barcode"})
    stray = frame.iloc[[0]].assign(hugo_symbol="ELSEWHERE", replicate_id="stray")
    path = tmp_path / "renamed.csv"
    pd.concat([frame, stray]).to_csv(path, index=False)
    mapped = ["--column", "lfc=LFC", "--column", "sgrna=barcode"]
    assert "--on-conflict drop" in refused(capsys, "validate", path, *mapped)
    assert main(["validate", str(path), *mapped, "--on-conflict", "drop", "--json"]) == 0
    dropped = json.loads(capsys.readouterr().out)["dropped"]
    assert sum(dropped.values()) == 1 + (frame["barcode"] == stray["barcode"].iloc[0]).sum()


MODELS = ["additive", "covariate", "covariate_correlated", "crossed", "gene_lineage", "multi_screen"]


def test_models_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == MODELS
    assert all(len(line.split()) > 3 for line in lines)


def test_a_model_is_described_and_its_graph_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "additive"]) == 0
    assert "mu_mu_alpha" in capsys.readouterr().out
    out = tmp_path / "additive.dot"
    assert main(["models", "additive", "--graph", str(out)]) == 0
    assert out.read_text().startswith("digraph")
    edges = {"covariate": "mu_kappa -> kappa", "covariate_correlated": "correlation_chol -> coefficients"}
    for name, edge in (edges | {"multi_screen": "sigma_rho -> rho"}).items():
        assert main(["models", name, "--graph", str(out)]) == 0
        assert edge in out.read_text()


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet"])
def test_a_summary_table_is_the_summary(name: str, make_posterior: Make, tmp_path: Path) -> None:
    post = make_posterior(4, 5, 2)
    out = tmp_path / name
    assert main(["summary", str(post.path), "--var", "effect", "--out", str(out)]) == 0
    read = pd.read_parquet(out) if name.endswith("parquet") else pd.read_csv(out, sep="\t" if "tsv" in name else ",")
    expected = post.summary("effect")
    assert list(read.columns) == list(expected.columns)
    # Text holds the shortest digits that give the same float32 back; pandas reads them as float64.
    pd.testing.assert_frame_equal(read.astype(expected.dtypes.to_dict()), expected)
    assert sorted(tmp_path.glob("*t.*")) == [out]


def test_a_long_summary_is_written_in_blocks(
    make_posterior: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make_posterior(6, 5, 2)
    monkeypatch.setattr("vihier.posterior.summary._BLOCK_ROWS", 10)
    for name in ("blocks.parquet", "blocks.csv"):
        assert main(["summary", str(post.path), "--out", str(tmp_path / name)]) == 0
    expected = post.summary("effect")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "blocks.parquet"), expected, check_dtype=False)
    assert (tmp_path / "blocks.csv").read_text().count("variable") == 1
    assert len(pd.read_csv(tmp_path / "blocks.csv")) == 30


def test_a_summary_is_selected_and_its_interval_chosen(make_posterior: Make, tmp_path: Path) -> None:
    post = make_posterior(4, 6, 2)
    out = tmp_path / "part.csv"
    chosen = ["--gene", "GENE0002,GENE0001", "--lineage", "lineage 01", "--prob", "0.5"]
    assert main(["summary", str(post.path), "--out", str(out), *chosen]) == 0
    expected = post.summary("effect", prob=0.5, hugo_symbol=["GENE0002", "GENE0001"], lineage="lineage 01")
    read = pd.read_csv(out)
    assert list(read.columns) == list(expected.columns) and "hdi_25%" in read.columns
    pd.testing.assert_frame_equal(read.astype(expected.dtypes.to_dict()), expected)
    assert main(["summary", str(post.path), "--out", str(out), "--line", "ACH-000003", "--gene", "GENE0000"]) == 0
    assert pd.read_csv(out)["depmap_id"].tolist() == ["ACH-000003"]


def test_a_summary_without_out_is_a_table_to_read(make_posterior: Make, capsys: pytest.CaptureFixture[str]) -> None:
    post = make_posterior(20, 6, 2)
    assert main(["summary", str(post.path), "--gene", "GENE0001", "--line", "ACH-000000"]) == 0
    title, header, row = capsys.readouterr().out.splitlines()
    assert title == "effect"
    assert header.split()[:4] == ["hugo_symbol", "depmap_id", "mean", "sd"]
    mean = post.summary("effect", hugo_symbol="GENE0001", depmap_id="ACH-000000")["mean"].item()
    assert row.split()[:3] == ["GENE0001", "ACH-000000", f"{mean:.3f}"]
    assert main(["summary", str(post.path)]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 42  # a title, a header and the first 40 of 120
    assert "--out" in said.err


def test_a_summary_on_standard_output_is_csv(make_posterior: Make, capsys: pytest.CaptureFixture[str]) -> None:
    post = make_posterior(2, 3, 1)
    assert main(["summary", str(post.path), "--out", "-"]) == 0
    assert capsys.readouterr().out == post.summary("effect").to_csv(index=False)


def test_a_failed_summary_leaves_the_earlier_table(make_posterior: Make, tmp_path: Path) -> None:
    post = make_posterior(2, 3, 1)
    out = tmp_path / "effect.csv"
    out.write_text("earlier\n")
    assert main(["summary", str(post.path), "--var", "nonsense", "--out", str(out)]) == 2
    assert out.read_text() == "earlier\n"


BAD_ARGUMENTS = {
    "no such command": ("frobnicate",),
    "no such option": ("fit", "screen.csv", "--out", "fit.h5", "--frobnicate"),
    "no screen": ("fit", "--out", "fit.h5"),
    "no out": ("fit", "{screen}"),
    "no such guide": ("fit", "{screen}", "--out", "fit.h5", "--guide", "frobnicate"),
    "no such model": ("fit", "{screen}", "--out", "fit.h5", "--model", "frobnicate"),
    "text for a number": ("fit", "{screen}", "--out", "fit.h5", "--draws", "many"),
    "prior without a value": ("fit", "{screen}", "--out", "fit.h5", "--prior", "sigma"),
    "prior that is code": ("fit", "{screen}", "--out", "fit.h5", "--prior", "sigma=__import__('os')"),
    "prior given twice": ("fit", "{screen}", "--out", "f.h5", "--prior", "a=Normal(0,1)", "--prior", "a=Normal(0,2)"),
    "condition without a value": ("fit", "{screen}", "--out", "fit.h5", "--where", "screen"),
    "unknown gene": ("fit", "{screen}", "--out", "fit.h5", "--genes", "NOSUCHGENE"),
    "empty label": ("fit", "{screen}", "--out", "fit.h5", "--genes", "A,,B"),
    "more genes than there are": ("fit", "{screen}", "--out", "fit.h5", "--n-genes", "5000"),
    "column without its name": ("validate", "{screen}", "--column", "lfc"),
    "column that is not there": ("validate", "{screen}", "--column", "lfc=NOPE"),
    "graph of no model": ("models", "--graph", "x.dot"),
    "graph of another kind": ("models", "additive", "--graph", "x.jpg"),
    "sgrnas that are no number": ("simulate", "x.csv", "--sgrnas", "four"),
    "no genes": ("simulate", "x.csv", "--genes", "0"),
    "table of another kind": ("simulate", "x.docx"),
    "no such folder": ("simulate", "nowhere/x.csv"),
    "a screen for a fit": ("summary", "{screen}"),
    "no such fit": ("summary", "nowhere.h5"),
    "two words for one": ("summary", "a.h5", "b.h5"),
    "a folder for a screen": ("validate", "."),
    "no such screen": ("validate", "nowhere.csv"),
    "line breaks in a name": ("validate", "no\nsuch\x1b[31mfile.csv"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_line(
    case: str, screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [argument.format(screen=screen) for argument in BAD_ARGUMENTS[case]]
    line = refused(capsys, *arguments)
    assert line.startswith("vihier: ")
    assert "\x1b" not in line
    assert list(tmp_path.iterdir()) == []


BAD_SUMMARIES = {
    "unknown variable": (["--var", "efect"], "effect"),
    "unknown gene": (["--gene", "GENE001"], "GENE0001"),
    "impossible probability": (["--prob", "89"], "89"),
    "unknown suffix": (["--out", "table.docx"], ".csv"),
    "no such folder": (["--out", "nowhere/table.csv"], "nowhere"),
    "a folder for a table": (["--out", "folder.csv"], "folder.csv"),
}


@pytest.mark.parametrize("case", BAD_SUMMARIES)
def test_bad_summaries_are_refused_with_a_cure(
    case: str,
    make_posterior: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    arguments, named = BAD_SUMMARIES[case]
    before = sorted(tmp_path.iterdir())
    post = make_posterior(2, 2, 1)
    assert named in refused(capsys, "summary", post.path, *arguments)
    assert sorted(tmp_path.iterdir()) == sorted([*before, post.path])


@pytest.mark.skipif(os.name != "posix" or not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_device_is_not_replaced_by_a_table(make_posterior: Make, tmp_path: Path) -> None:
    link = tmp_path / "full.csv"
    link.symlink_to("/dev/full")
    assert main(["summary", str(make_posterior(2, 2, 1).path), "--out", str(link)]) == 2
    assert link.is_symlink()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_may_not_be_written_to_is_one_line(
    make_posterior: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "locked" in refused(capsys, "summary", make_posterior(2, 2, 1).path, "--out", folder / "t.csv")


def test_a_truncated_gzip_is_one_line(screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(screen.read_bytes())[:-200])
    assert "cut.csv.gz" in refused(capsys, "validate", path)


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 3 TiB"), RuntimeError("[enforce fail] can't allocate memory")]
)
def test_want_of_memory_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, screen: Path
) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("vihier.screen.read.read_screen", too_large)
    assert "out of memory" in refused(capsys, "validate", screen)


def test_an_error_of_the_system_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, screen: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "fit.h5")

    monkeypatch.setattr("vihier.screen.read.read_screen", full)
    assert refused(capsys, "validate", screen) == "vihier: fit.h5: No space left on device\n"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vihier", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_process_ends_with_the_status_and_no_traceback() -> None:
    done = run("validate", "nowhere.csv")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_reader_that_leaves_early_is_no_error(make_posterior: Make) -> None:
    post = make_posterior(300, 50, 2)
    command = [sys.executable, "-m", "vihier", "summary", str(post.path), "--out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("variable,")
        process.stdout.close()
        assert process.stderr.read() == ""


def heed_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would everything started from a test run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _InterruptedWhenDeleted:
    def __del__(self) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_while_an_object_is_deleted_is_not_lost(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    # See `heed_interrupts`.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with interrupts_heeded(), pytest.raises(KeyboardInterrupt):
        _InterruptedWhenDeleted()
        for _ in range(1000):
            time.sleep(0.01)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "big.csv"
    command = [sys.executable, "-m", "vihier", "simulate", str(out), "--genes", "20000", "--lines", "1000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as process:
        deadline = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "vihier: interrupted\n"
    assert list(tmp_path.iterdir()) == []
