"""A small screen, a fit of it, and that fit refined."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from refined_fit import Refined

import vihier

GENES, LINES = 26, 8
SETTINGS = {"chains": 2, "warmup": 100, "draws": 300, "seed": 3, "quiet": True}


@pytest.fixture(scope="session")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refined]:
    folder = tmp_path_factory.mktemp("refined")
    table = folder / "screen.parquet"
    vihier.simulate(table, genes=GENES, lines=LINES, lineages=2, sgrnas=3, seed=1, model="gene_lineage")
    screen = vihier.read_screen(table)
    fit, path = folder / "fit.h5", folder / "refined.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vihier.FitWarning)
        with vihier.fit(screen, "gene_lineage", out=fit, draws=400, quiet=True) as post:
            chosen = post.labels("hugo_symbol")[[2, 11, 20]].tolist()
            vihier.refine(post, screen, genes=chosen, out=path, processes=1, **SETTINGS).close()
    yield Refined(table, screen, fit, path)
