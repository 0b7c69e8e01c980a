"""Agreement with a reference by hand, effects from draws of sites, and a race without nutpie."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import nuts_agreement
from nuts_agreement import agreement, effect_of, missing_packages, race, read_reference, simulated, summarised

import vihier

# 999 draws at the exact quantiles of N(0, 1): no Monte Carlo error.
STANDARD = norm.ppf(np.arange(1, 1000) / 1000)[:, None]
REFERENCE = {
    "mean": np.zeros(1),
    "sd": np.ones(1),
    "q05": np.array([-1.645]),
    "q50": np.zeros(1),
    "q95": np.array([1.645]),
}


def test_the_same_distribution_agrees() -> None:
    got = agreement(STANDARD, REFERENCE, "effect")
    assert got["ok"] and got["rms_z"] == 0 and got["max_z"] == 0
    # The grid ends at probabilities 0.001 and 0.999: what lies beyond is 0.6 % of the sd.
    np.testing.assert_allclose(got["sd_ratio"], 1, atol=0.007)
    assert got["quantile"] <= 0.02


@pytest.mark.parametrize(
    ("name", "shift", "factor", "ok"),
    [
        ("effect", 0.07, 1.0, True),
        ("effect", 0.1, 1.0, False),
        ("effect", 0.0, 0.8, False),
        ("beta", 0.2, 0.83, True),
        ("beta", 0.3, 1.0, False),
        ("beta", 0.0, 1.3, False),
        ("sigma_beta", 0.25, 1.0, True),
        ("sigma_beta", 0.35, 1.0, False),
        ("sigma_beta", 0.0, 1.25, False),
    ],
)
def test_each_kind_of_variable_has_its_limits(name: str, shift: float, factor: float, ok: bool) -> None:
    got = agreement(shift + factor * STANDARD, REFERENCE, name)
    assert got["ok"] is ok
    assert got["max_z"] == pytest.approx(shift, abs=1e-3)
    # The 5 and 95 % quantiles move by the shift and by 1.645 times the change of the sd.
    assert got["quantile"] == pytest.approx(shift + 1.645 * abs(factor - 1), abs=0.02)


def test_a_reference_file_is_read_by_variable(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).normal(size=(100, 2, 3))
    stored = {f"{name}.{kind}": value for name in ("mu", "mu.x") for kind, value in summarised(draws).items()}
    np.savez(tmp_path / "reference.npz", genes=np.array(["A", "B"]), **stored)
    reference = read_reference(tmp_path / "reference.npz")
    assert sorted(reference) == ["mu", "mu.x"]
    np.testing.assert_array_equal(reference["mu"]["q95"], np.quantile(draws, 0.95, axis=0))


def test_effect_is_the_mean_over_the_genes_own_sgrnas() -> None:
    rows = [("a", "A", 1.0), ("b", "A", 1.0), ("c", "B", 1.0)]
    table = pd.DataFrame([(s, g, f"ACH-{c}", "skin", x) for s, g, x in rows for c in range(2)])
    table.columns = pd.Index(["sgrna", "hugo_symbol", "depmap_id", "lineage", "lfc"])
    screen = vihier.read_screen(table)
    draws = {
        "alpha": np.array([[1.0, 3.0, 10.0]]),
        "beta": np.array([[0.0, 100.0]]),
        "gamma": np.array([[[0.1, 0.2], [0.3, 0.4]]]),
    }
    np.testing.assert_allclose(effect_of(draws, screen), [[[2.1, 102.2], [10.3, 110.4]]])
    assert effect_of({"gamma": draws["gamma"]}, screen) is draws["gamma"]


def test_what_is_missing_is_named_with_its_cure() -> None:
    assert missing_packages(("numpy",)) is None
    reason = missing_packages(("no_such_sampler",))
    assert reason is not None and "no_such_sampler" in reason and "vihier[nuts]" in reason


@pytest.mark.slow
def test_ours_is_timed_alone_without_nutpie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuts_agreement, "DRAWS", 50)
    sizes = {"genes": 2, "lines": 5, "lineages": 2, "sgrnas": 3, "replicates": 2}
    screen = simulated("gene_lineage", tmp_path, sizes, 0)
    assert screen.n_rows == 2 * 5 * 3 * 2  # no row is missing
    record = race("gene_lineage", screen, tmp_path, 1, 0, False)
    assert set(record) == {"rows", "ours"} and record["ours"]["seconds"] > 0
    assert (tmp_path / "gene_lineage.h5").is_file()


@pytest.mark.slow
@pytest.mark.skipif(missing_packages() is not None, reason="nutpie and pymc are not installed (extra 'nuts')")
@pytest.mark.parametrize("model", nuts_agreement.MODELS)
def test_pymc_models_have_the_sites_of_ours(model: str, tmp_path: Path) -> None:
    sizes = {"genes": 2, "lines": 5, "lineages": 2, "sgrnas": 3, "replicates": 2}
    screen = simulated(model, tmp_path, sizes, 0)
    with vihier.fit(screen, model, draws=20, max_steps=2, quiet=True) as post:
        derived = {"effect", "effect_gene", "effect_dev", "alpha_dev", "beta_dev", "gamma_dev"}
        shapes = {name: post.draws(name).shape[2:] for name in set(post.variables) - derived}
    theirs = nuts_agreement.PYMC[model](screen)
    assert {site.name: tuple(site.shape.eval()) for site in theirs.free_RVs} == shapes
