"""NUTS where rows are Student-t: the density that it walks on, and its draws beside those of exact sweeps."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vihier
from vihier.cli import app
from vihier.guides.block import variances
from vihier.kernels.elimination import eliminate
from vihier.refinement.agreement import agreement_table
from vihier.refinement.fit_to_refine import FitToRefine
from vihier.refinement.given_shared import GivenShared
from vihier.refinement.location_draws import subset_block
from vihier.refinement.log_scales import LogScales

GENES, LINES, CHOSEN = 24, 8, (1, 9, 17)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Table of a screen whose rows have heavy tails, and its fit."""
    folder = tmp_path_factory.mktemp("given-shared")
    table, path = folder / "screen.parquet", folder / "fit.h5"
    vihier.simulate(table, genes=GENES, lines=LINES, lineages=2, sgrnas=3, seed=2, model="additive")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vihier.FitWarning)
        vihier.fit(table, likelihood="student_t", noise="line", draws=1000, out=path, quiet=True).close()
    return table, path


def density_of(fitted: tuple[Path, Path]) -> GivenShared:
    with vihier.open_posterior(fitted[1]) as post:
        fit = FitToRefine.of(post, vihier.read_screen(fitted[0]))
        genes = np.array(CHOSEN)
        block = subset_block(fit.structure, fit.screen, genes)
        layout = LogScales.of(fit.structure, block, own=True)
        scales = {name: value for name, value in fit.log_scales(genes).items() if name not in layout.names}
        return GivenShared(fit.structure, block, layout, scales, fit.shared_deviations(), torch.arange(40), seed=1)


def test_the_gradient_is_that_of_the_evidence_of_the_weighted_rows(fitted: tuple[Path, Path]) -> None:
    density = density_of(fitted)
    torch.manual_seed(0)
    x = 0.4 * torch.randn(density.layout.size, dtype=torch.float64) - 1
    density.begin(x)
    for number in (1, 2):  # the weights, and what is shared, are others each time
        density.move(x, number)
        value, gradient = density(x)
        step = 1e-5 * torch.eye(len(x), dtype=torch.float64)
        found = [(density(x + each)[0] - density(x - each)[0]) / 2e-5 for each in step]
        torch.testing.assert_close(gradient, torch.stack(found), rtol=1e-6, atol=1e-6)

        def evidence(at: torch.Tensor) -> torch.Tensor:
            theta = density._with(at)
            data = density._chains.rows.data(theta, density.block.data, evidence=True)  # type: ignore[union-attr]
            spread = variances(density.structure, theta, density.block)
            return eliminate(data, spread, density._column).log_evidence.sum() + density._add_prior(at, 0 * at)

        other = x + 0.3
        torch.testing.assert_close(density(other)[0] - value, evidence(other) - evidence(x), rtol=1e-6, atol=1e-5)


def test_nuts_and_sweeps_are_the_same_posterior(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    table, path = fitted
    with vihier.open_posterior(path) as post:
        genes = post.labels("hugo_symbol")[list(CHOSEN)].tolist()
    settings = {"genes": genes, "chains": 2, "seed": 3, "quiet": True}
    long = {"warmup": 80, "draws": 250, "processes": 1}
    with vihier.refine(path, table, out=tmp_path / "one.h5", **long, **settings) as refined:
        found = agreement_table(refined).set_index("variable")
        nuts = refined.group("nuts").load()
        globals_drawn = refined.draws("nu").values.ravel()
    assert {"effect", "sigma_gamma", "alpha_dev"} <= set(found.index)
    assert not {"nu", "sigma_line", "beta"} & set(found.index)  # these are the fit's own
    assert np.isin(nuts["nu"].values, globals_drawn).all()
    # Both have some 300 independent draws at least: means differ by 0.08 sds, of 3 x 8 effects by 0.25 at most.
    assert found.loc["effect", "difference_rms"] < 0.14
    assert found.loc["effect", "difference_max"] < 0.4
    assert found.loc["alpha_dev", "difference_max"] < 0.4
    assert found.loc["sigma_gamma", "quantile_max"] < 0.6
    np.testing.assert_allclose(nuts["effect_gene"], nuts["effect"].mean("depmap_id"), atol=1e-5)
    found = []
    for processes in (1, 2):  # the seed alone decides
        short = {"warmup": 50, "draws": 100, "processes": processes, "force": True, "out": tmp_path / "short.h5"}
        with vihier.refine(path, table, **short, **settings) as refined:
            found.append(refined.group("nuts").load())
    assert found[0].equals(found[1])


def test_what_it_cannot_do_is_said(fitted: tuple[Path, Path]) -> None:
    table, path = fitted
    for given, said in (
        (["--full"], "must come from 20 genes or more beside those refined; choose fewer"),
        (["--worst", "2"], "has no k-hat of genes to choose by; give --genes or --lineage"),
    ):
        result = CliRunner().invoke(app, ["refine", str(path), "--screen", str(table), *given])
        assert result.exit_code != 0
        assert said in " ".join((result.output + str(result.exception)).split()), result.output
