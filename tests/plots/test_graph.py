"""The graph of a program has its sites, and an arrow for every dependence."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from vihier.errors import VihierError
from vihier.models import additive, gene_lineage
from vihier.plots.graph import write_graph


def test_arrows_are_the_dependences_of_the_formula(tmp_path: Path) -> None:
    text = write_graph(gene_lineage.model, tmp_path / "model.dot").read_text()
    arrows = set(re.findall(r"(\w+) -> (\w+)", text))
    assert {source for source, target in arrows if target == "gamma"} == {"mu_gamma", "sigma_gamma"}
    assert {source for source, target in arrows if target == "mu_gamma"} == {"mu_mu_gamma", "sigma_mu_gamma"}
    assert {source for source, target in arrows if target == "lfc"} == {"gamma", "sigma"}


@pytest.mark.parametrize("name", ["model.jpg", "model", "nowhere/model.dot"])
def test_paths_that_cannot_be_written_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(VihierError) as refused:
        write_graph(additive.model, tmp_path / name)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_graphviz_a_picture_is_refused_and_the_text_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VihierError, match=r"'dot' is not on the PATH.*model\.dot"):
        write_graph(additive.model, tmp_path / "model.svg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's program dot is not installed")
def test_graphviz_draws_an_svg(tmp_path: Path) -> None:
    assert "<svg" in write_graph(additive.model, tmp_path / "model.svg").read_text()
