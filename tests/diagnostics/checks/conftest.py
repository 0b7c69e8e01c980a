"""A screen drawn from `additive`, and its fit."""

from __future__ import annotations

from pathlib import Path

import pytest

import vihier
from vihier.screen import Screen, read_screen
from vihier.screen.simulate import simulate


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("screen") / "screen.parquet"
    # The prior of mu_gamma is made narrow, so that levels are like those of a screen.
    simulate(
        out,
        genes=24,
        lines=24,
        lineages=3,
        sgrnas=3,
        replicates=2,
        seed=4,
        model="additive",
        missing=0.0,
        priors={
            "sigma": "HalfNormal(0.5)",
            "sigma_sigma_gamma": "HalfNormal(0.5)",
            "mu_gamma": "Normal(0, 0.3)",
            "sigma_sigma_alpha": "HalfNormal(0.5)",
            "sigma_sigma_beta": "HalfNormal(0.5)",
        },
    )
    return out


@pytest.fixture(scope="session")
def screen(table: Path) -> Screen:
    return read_screen(table)


@pytest.fixture(scope="session")
def fit_file(screen: Screen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "fit.h5"
    vihier.fit(screen, "additive", draws=400, out=out, quiet=True).close()
    return out
