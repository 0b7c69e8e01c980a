"""`vihier fit --config` does what the same options on the command line do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vihier
from vihier.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge")


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "screen.csv"
    assert main(["simulate", str(path), "--genes", "5", "--lines", "8", "--lineages", "2", "--sgrnas", "2"]) == 0
    return path


def test_a_file_and_the_command_line_write_the_same_posterior(screen: Path, tmp_path: Path) -> None:
    """Every kind of option: texts, numbers, lists, a flag, a table; and what is given twice counts as given here."""
    run = tmp_path / "run.toml"
    run.write_text(
        f"""
screen = "{screen}"
out = "{tmp_path / "not.h5"}"
guide = "mean_field"
draws = 20
seed = 7
max-steps = 5
lineages = ["lung", "skin"]
quiet = true
[priors]
sigma = "HalfNormal(2)"
"""
    )
    assert main(["fit", "--config", str(run), "--seed", "3", "--out", str(tmp_path / "a.h5")]) == 0
    typed = ["--guide", "mean_field", "--draws", "20", "--max-steps", "5", "--seed", "3", "--quiet"]
    typed += ["--prior", "sigma=HalfNormal(2)", "--lineages", "lung,skin"]
    assert main(["fit", str(screen), "--out", str(tmp_path / "b.h5"), *typed]) == 0
    assert not (tmp_path / "not.h5").exists()
    with vihier.open_posterior(tmp_path / "a.h5") as one, vihier.open_posterior(tmp_path / "b.h5") as other:
        assert one.attrs["config"] == other.attrs["config"]
        assert one.attrs["seed"] == 3
        for name in one.variables:
            np.testing.assert_array_equal(one.draws(name).values, other.draws(name).values)


def test_what_a_fit_ran_with_runs_it_again(screen: Path, tmp_path: Path) -> None:
    """The configuration in a file is a run file: the same draws come out of it."""
    out = tmp_path / "fit.h5"
    few = ["--guide", "mean_field", "--draws", "20", "--max-steps", "5", "--quiet"]
    assert main(["fit", str(screen), "--out", str(out), *few, "--prior", "sigma=HalfNormal(2)"]) == 0
    run = tmp_path / "run.toml"
    with vihier.open_posterior(out) as fit:
        run.write_text(fit.attrs["config"])
        wanted = fit.draws("effect").values
    again = tmp_path / "again.h5"
    assert main(["fit", str(screen), "--config", str(run), "--out", str(again), "--quiet"]) == 0
    with vihier.open_posterior(again) as fit:
        np.testing.assert_array_equal(fit.draws("effect").values, wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("draw = 3", "run.toml: draw: no option of this command; did you mean draws?"),
        ("config = 'a.toml'", "run.toml: config: no option of this command; "),
        ("draws 3", "run.toml: not TOML: "),
        ("draws = 1.5", "'--draws': Input should be a valid integer"),
        ("draws = true", "run.toml: draws: True does not fit; give a number or a text"),
        ("quiet = 'yes'", "run.toml: quiet: 'yes' does not fit; give true or false"),
        ("draws = [1, 2]", "run.toml: draws: takes one value"),
        ("genes = [true]", "run.toml: genes: True is not a number or a text"),
        ("guide = 'exact'", "'exact' is not one of"),
        ("n-genes = 1\nn_genes = 2", "run.toml: n_genes: is there under two names"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_in_one_line(
    text: str, said: str, screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit status 2, and nothing is written."""
    run, out = tmp_path / "run.toml", tmp_path / "fit.h5"
    run.write_text(text)
    assert main(["fit", str(screen), "--config", str(run), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not out.exists()


def test_a_file_that_is_not_there_is_refused(screen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name."""
    assert main(["fit", str(screen), "--config", "nowhere.toml", "--out", "fit.h5"]) == 2
    assert capsys.readouterr().err == "vihier: nowhere.toml: No such file or directory\n"
