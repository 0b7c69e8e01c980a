"""AnnData files: what is written comes back, and what is missing is said."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vihier
from vihier.cli import main
from vihier.errors import VihierError
from vihier.screen.importing import MappedFiles, Normalisation, import_chronos, import_h5ad, write_h5ad


def test_without_the_package_one_line_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    monkeypatch.chdir(folder)
    for arguments in (
        ["h5ad", "a.h5ad", "--out", "a.csv"],
        ["chronos", "chronos/TinyReadcounts.csv", "--out", "a.h5ad"],
    ):
        assert main(["import", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "pip install 'vihier[anndata]'" in said
    assert not list(folder.glob("a.*"))


def test_a_screen_comes_back(folder: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="the extra 'anndata' is not installed")
    table, data, back = folder / "screen.parquet", folder / "screen.h5ad", folder / "back.parquet"
    lines = folder / "chronos/lines.csv"
    import_chronos(MappedFiles((folder / "chronos/TinyReadcounts.csv",)), table, line_map=lines)
    screen = vihier.read_screen(table)
    write_h5ad(screen, data)
    held = anndata.read_h5ad(data)
    assert held.shape == (4, 6) and set(held.layers) == {"counts_final", "counts_initial"}
    assert {"depmap_id", "lineage", "days", "p_dna_batch"} <= set(held.obs) and "n_alignments" in held.var
    assert np.isnan(held.X).sum() == 1
    import_h5ad(data, back)
    again = vihier.read_screen(back)
    assert again.hash == screen.hash


def test_counts_and_layers(folder: Path) -> None:
    anndata = pytest.importorskip("anndata", reason="the extra 'anndata' is not installed")
    counts = np.array([[10.0, 30.0], [30.0, 10.0]])
    obs = pd.DataFrame({"depmap_id": ["HEL", "HEL"], "role": ["initial", "final"]}, index=["T0", "T14"])
    var = pd.DataFrame({"gene": ["KRAS (3845)", "BRAF (673)"]}, index=["s1", "s2"])
    data, out = folder / "counts.h5ad", folder / "screen.csv"
    anndata.AnnData(X=counts, obs=obs, var=var, layers={"doubled": 2 * counts}).write_h5ad(data)
    import_h5ad(data, out, how=Normalisation(reads_per_million=False), layer="doubled")
    table = pd.read_csv(out).set_index("sgrna")
    np.testing.assert_allclose(table["lfc"], np.log2([21 / 61, 61 / 21])[[1, 0]][table.index.argsort()], rtol=1e-14)
    with pytest.raises(VihierError, match="no layer 'other'; the file has 'doubled'"):
        import_h5ad(data, out, layer="other")
    with pytest.raises(VihierError, match="30 is no log2 fold change"):
        import_h5ad(data, out)
    anndata.AnnData(X=counts, obs=obs.drop(columns="depmap_id"), var=var).write_h5ad(data)
    with pytest.raises(VihierError, match=r"counts.h5ad \(obs\): column 'depmap_id'.* is missing"):
        import_h5ad(data, out)
    data.write_bytes(b"\x89HDF\r\n\x1a\nno more")
    with pytest.raises(VihierError, match="not a readable AnnData file"):
        import_h5ad(data, out)
