"""`vihier fit` writes what `vihier.fit` would, says whether it converged, and takes parts of a screen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vihier
from vihier.cli import main

# Enough steps to run every branch; nothing here rests on the fit being good.
FEW = ["--guide", "mean_field", "--draws", "20", "--max-steps", "5"]


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "screen.csv"
    assert main(["simulate", str(path), "--genes", "5", "--lines", "8", "--lineages", "2", "--sgrnas", "2"]) == 0
    return path


@pytest.fixture(scope="module")
def fitted(screen: Path) -> Path:
    out = screen.with_name("fit.h5")
    assert main(["fit", str(screen), "--out", str(out), "--quiet", *FEW]) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def test_the_command_and_the_function_write_the_same_posterior(screen: Path, fitted: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="did not converge"):
        post = vihier.fit(
            vihier.read_screen(screen), guide="mean_field", draws=20, max_steps=5, out=tmp_path / "f.h5", quiet=True
        )
    with post, vihier.open_posterior(fitted) as other:
        assert post.attrs["config"] == other.attrs["config"]
        for name in post.variables:
            np.testing.assert_array_equal(post.draws(name).values, other.draws(name).values)


def test_a_fit_that_did_not_converge_says_so_in_one_line(
    screen: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(screen), "--out", str(fitted), "--quiet", *FEW]
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out == f"{fitted}\n"
    assert said.err.count("\n") == 1 and "did not converge" in said.err and "5 steps" in said.err
    assert main([*command, "--strict"]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    with vihier.open_posterior(fitted) as post:
        assert not post.converged


def test_a_fit_that_is_there_is_opened_and_another_refused(
    screen: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fitted.read_bytes()
    assert main(["fit", str(screen), "--out", str(fitted), "--quiet", *FEW]) == 0
    capsys.readouterr()
    assert "seed" in refused(capsys, "fit", screen, "--out", fitted, *FEW, "--seed", "1")
    assert fitted.read_bytes() == before


def test_force_replaces_a_different_fit(screen: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.h5"
    for seed in ("1", "2"):
        assert main(["fit", str(screen), "--out", str(out), "--quiet", *FEW, "--seed", seed, "--force"]) == 0
    with vihier.open_posterior(out) as post:
        assert post.seed == 2


def test_parts_of_the_screen(screen: Path, tmp_path: Path) -> None:
    table = vihier.read_screen(screen)
    lineage = table.index.lineages[0]
    flags = ["--n-genes", "2", "--subset-seed", "3", "--lineages", str(lineage)]
    flags += ["--where", f"p_dna_batch={table.index.categories['p_dna_batch'][0]}"]
    out = tmp_path / "part.h5"
    assert main(["fit", str(screen), "--out", str(out), "--quiet", *FEW, *flags]) == 0
    part = table.subset(n_genes=2, lineages=[lineage], seed=3)
    with vihier.open_posterior(out) as post:
        assert post.labels("hugo_symbol").tolist() == part.index.genes.tolist()
        assert post.labels("depmap_id").tolist() == part.index.lines.tolist()

    genes, lines = table.index.genes[[1, 3]], table.index.lines[[0, 2, 5]]
    named = ["--genes", ",".join(genes), "--lines", ",".join(lines), "--force"]
    assert main(["fit", str(screen), "--out", str(out), "--quiet", *FEW, *named]) == 0
    with vihier.open_posterior(out) as post:
        assert post.labels("hugo_symbol").tolist() == genes.tolist()
        assert post.labels("depmap_id").tolist() == lines.tolist()


def test_options_reach_the_configuration(screen: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.h5"
    options = ["--model", "gene_lineage", "--prior", "mu_mu_mu_gamma=Normal(3,1)", "--seed", "7", "--dtype", "float64"]
    options += ["--batch", "rows", "--batch-size", "50", "--device", "cpu"]
    assert main(["fit", str(screen), "--out", str(out), "--quiet", *FEW, *options]) == 0
    with vihier.open_posterior(out) as post:
        assert (post.model, post.guide, post.seed, post.n_draws) == ("gene_lineage", "mean_field", 7, 20)
        assert post.priors == {"mu_mu_mu_gamma": "Normal(3, 1)"}
        for line in ('dtype = "float64"', 'batch = "rows"', "batch_size = 50", "max_steps = 5", 'device = "cpu"'):
            assert line in post.attrs["config"]


def test_an_earlier_fit_is_a_start(screen: Path, fitted: Path, tmp_path: Path) -> None:
    warm = tmp_path / "warm.h5"
    assert main(["fit", str(screen), "--out", str(warm), "--quiet", *FEW, "--init", str(fitted)]) == 0
    with vihier.open_posterior(warm) as post:
        assert str(fitted) in post.attrs["config"]


def test_single_lineage_is_the_cure_for_a_screen_without_lineages(
    screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.csv"
    pd.read_csv(screen).drop(columns="lineage").to_csv(bare, index=False)
    out = tmp_path / "fit.h5"
    assert "--single-lineage" in refused(capsys, "fit", bare, "--out", out, *FEW)
    assert not out.exists()
    assert main(["fit", str(bare), "--out", str(out), "--quiet", *FEW, "--single-lineage"]) == 0


BAD_FITS = {
    "prior of no site": (["--prior", "nonsense=Normal(0,1)"], "nonsense"),
    "prior of the wrong kind": (["--prior", "sigma=Normal(0,1)"], "sigma"),
    "no draws": (["--draws", "0"], "draws"),
    "no steps": (["--max-steps", "0"], "max_steps"),
    "negative seed": (["--seed", "-1"], "seed"),
    "rows for the structured guide": (["--guide", "structured", "--batch", "rows"], "rows"),
    "no such earlier fit": (["--init", "nowhere.h5"], "nowhere.h5"),
    "no such folder": (["--out", "nowhere/fit.h5"], "nowhere"),
    "a folder": (["--out", "."], "directory"),
    "a condition that nothing meets": (["--where", "lfc=19.5"], "lfc"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fits_are_refused_in_one_line(
    case: str, screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, named = BAD_FITS[case]
    assert named in refused(capsys, "fit", screen, "--out", "fit.h5", *FEW, *options)
    assert list(tmp_path.iterdir()) == []


BAD_BEFORE_READING = [
    "no draws", "no steps", "negative seed", "rows for the structured guide", "no such earlier fit", "no such folder",
    "a folder",
]  # fmt: skip


@pytest.mark.parametrize("case", BAD_BEFORE_READING)
def test_what_no_screen_would_make_right_is_refused_before_the_screen_is_read(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, named = BAD_FITS[case]
    said = refused(capsys, "fit", "no_such_screen.csv", "--out", "fit.h5", *FEW, *options)
    assert named in said and "no_such_screen" not in said


def test_the_screen_itself_is_never_the_output(screen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = screen.read_bytes()
    assert "screen itself" in refused(capsys, "fit", screen, "--out", screen, "--force", *FEW)
    assert screen.read_bytes() == before


def test_cuda_where_there_is_none_is_one_line(screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert "cuda" in refused(capsys, "fit", screen, "--out", tmp_path / "fit.h5", *FEW, "--device", "cuda")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_in_a_fit_ends_with_130_and_leaves_nothing(screen: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vihier", "fit", str(screen), "--out", str(tmp_path / "fit.h5")]
    with subprocess.Popen(
        [*command, "--guide", "mean_field"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT, and so would everything started from a test run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert "vihier" in process.stderr.readline()  # it has begun
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "vihier: interrupted"
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::vihier.FitWarning")
def test_labels_with_commas_and_reasons_survive_a_summary_in_text(tmp_path: Path) -> None:
    table = pd.DataFrame({"hugo_symbol": ["A,1"] * 4 + ["B"] * 4, "depmap_id": ["L1", "L2"] * 4, "lineage": "skin"})
    table = table.assign(sgrna=[f"{gene}{i // 2}" for i, gene in enumerate(table["hugo_symbol"])], lfc=0.1)
    with vihier.fit(table, "crossed", draws=10, max_steps=2, quiet=True, out=tmp_path / "fit.h5") as post:
        for variable in ("effect", "beta"):
            out = tmp_path / f"{variable}.csv"
            assert main(["summary", str(post.path), "--var", variable, "--out", str(out)]) == 0
            expected = post.summary(variable)
            pd.testing.assert_frame_equal(pd.read_csv(out).astype(expected.dtypes.to_dict()), expected)
    assert "," in pd.read_csv(tmp_path / "beta.csv")["not_identified"][0]
