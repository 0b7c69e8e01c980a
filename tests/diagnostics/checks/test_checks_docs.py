"""The commands and programs of docs/checks.md run on a small screen and its fits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from documented import DOCS, Shown, run_page

import vihier
from vihier.posterior.reader import open_posterior


@pytest.mark.filterwarnings("ignore:the fit did not converge", "ignore:Pareto k-hat")
def test_its_commands_and_its_programs_run(
    fit_file: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(fit_file, "fit.h5")
    shutil.copy(fit_file, "additive.h5")
    shutil.copy(table, "screen.parquet")
    vihier.fit("screen.parquet", "gene_lineage", draws=200, out="gene_lineage.h5", quiet=True).close()
    frame = pd.read_parquet(table)
    frame.sample(30, random_state=0).to_csv("held_out.csv", index=False)
    new = frame.iloc[:4].drop(columns="lfc").assign(sgrna=["NEW", *frame["sgrna"].iloc[1:4]])
    new.to_csv("new_rows.csv", index=False)
    with open_posterior(fit_file) as post:
        genes = post.labels("hugo_symbol")[np.argsort(post.moments("effect_gene")["mean"].to_numpy())]
    for name, chosen in {"CEGv2.txt": genes[:5], "NEGv1.txt": genes[-5:]}.items():
        Path(name).write_text("\n".join(["GENE", *chosen]))
    assert run_page(DOCS / "checks.md") == Shown(n_commands=9, n_programs=3)
    assert pd.read_csv("predicted.csv")["new"].tolist().count("sgrna") == 1
    assert set(pd.read_csv("items.csv")["status"]) <= {"pass", "warn"}
    assert pd.read_csv("compared.csv")["rank"].tolist() == [0, 1]
