"""`vihier plot` writes the figure that is asked for, or says in one line what it lacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from PIL import Image

from vihier.cli import main
from vihier.commands.plot import Kind
from vihier.plots.kinds import KINDS

sys.path.insert(0, str(Path(__file__).resolve().parent / "answers"))

from known_effects import ESSENTIAL, LINES, NONESSENTIAL, known_draws, write_known

UNIT = ["--essential", "essential.txt", "--nonessential", "nonessential.txt"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit and lists of control genes in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, genes in {"essential.txt": ESSENTIAL, "nonessential.txt": NONESSENTIAL}.items():
        Path(name).write_text("\n".join(genes) + "\n")
    write_known(tmp_path / "fit.h5", known_draws())


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["heatmap"], "heatmap.png"),
        (["heatmap", "--lineage", "skin", "--genes", "BRAF,KRAS"], "heatmap.png"),
        (["forest", "--gene", "BRAF"], "forest-BRAF.png"),
        (["lineages", "--gene", "BRAF", "--var", "effect"], "lineages-BRAF.png"),
        (["gene", "--gene", "TP53"], "gene-TP53.png"),
        (["volcano", "--lineage", "skin", "--against", "lung,bone", *UNIT], "volcano.png"),
        (["volcano", "--line", LINES[0]], "volcano.png"),
        (["controls", *UNIT], "controls.png"),
        (["lines", *UNIT], "lines.png"),
        (["lines", "--measure", "shift"], "lines.png"),
        (["density", "--var", "sigma"], "density.png"),
        (["trace", "--var", "effect", "--gene", "BRAF", "--line", LINES[1]], "trace-BRAF.png"),
    ],
)
def test_a_picture_is_written_under_the_name_that_is_printed(
    arguments: list[str], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", "fit.h5", *arguments, "--dpi", "40"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    with Image.open(file) as picture:
        # More than one colour: something is drawn.
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".PNG"])
def test_the_suffix_says_how_it_is_written(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"picture{suffix}"
    assert main(["plot", "fit.h5", "forest", "--gene", "BRAF", "--out", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kind": "forest", "out": out}
    head = {".pdf": b"%PDF", ".svg": b"<?xml", ".PNG": b"\x89PNG"}[suffix]
    assert Path(out).read_bytes().startswith(head)


def test_a_screen_is_drawn_with_its_fit(capsys: pytest.CaptureFixture[str]) -> None:
    screen, fit = "small.parquet", "small.h5"
    assert main(["simulate", screen, "--genes", "4", "--lines", "5", "--lineages", "2"]) == 0
    # As fitted in one lineage, so it is read again.
    quick = ["--draws", "20", "--guide", "mean_field", "--max-steps", "5", "-q", "--single-lineage"]
    pd.read_parquet(screen).drop(columns="lineage").to_parquet(screen)
    assert main(["fit", screen, "--out", fit, *quick]) == 0
    gene = "GENE00001"
    for arguments in (["shrinkage"], ["shrinkage", "--gene", gene], ["predictive"], ["gene", "--gene", gene]):
        assert main(["plot", fit, *arguments, "--screen", screen, "--out", "with_screen.png"]) == 0
        Path("with_screen.png").unlink()
    for arguments in ([fit, "elbo"], [fit, "drift"], [screen, "lines", "--measure", "n_replicates"]):
        assert main(["plot", *arguments, "--dpi", "40"]) == 0
    capsys.readouterr()
    assert main(["plot", fit, "lines", "--measure", "coverage"]) == 2
    assert "it has shift" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forest"], "forest: needs --gene"),
        (["forest", "--gene", "BRAFF"], "'BRAF'"),
        (["forest", "--gene", "BRAF,KRAS"], "draws one gene"),
        (["elbo", "--gene", "BRAF"], "--gene means nothing to it"),
        (["volcano"], "name the first set"),
        (["volcano", "--lineage", "skin", "--against", "skin"], "in both sets"),
        (["controls"], "needs --essential and --nonessential"),
        (["shrinkage"], "needs --screen"),
        (["density", "--var", "sigmaa"], "sigma"),
        (["lines", "--measure", "auroc"], "need --essential"),
        (["nuts"], "vihier refine"),
        (["heatmap", "--out", "picture.jpg"], "one of .png, .pdf, .svg"),
        (["heatmap", "--out", "no/such/picture.png"], "no/such"),
        (["sculpture"], "sculpture"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path().iterdir())
    assert main(["plot", "fit.h5", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert set(Path().iterdir()) == before


def test_every_kind_has_a_name_on_the_command_line() -> None:
    assert set(get_args(Kind)) == set(KINDS)
