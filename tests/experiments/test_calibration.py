"""Calibration's statistics on Normal posteriors whose answer is known, and a study that goes on where it stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest, norm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import calibration
from calibration import CONTROL, Study

import vihier
from vihier.diagnostics.calibration import coverage, judge, rank_statistics, ranks, shrunk, uniformity

TINY = Study("gene_lineage", 3, 4, 2, (2, 2), 2, 40, 7, (1.0, CONTROL))


def normal_records(n: int, elements: int, factors: tuple[float, ...]) -> list[dict[str, Any]]:
    """Screens whose exact posterior is N(0, 1) around which the truth is drawn as well."""
    random = np.random.default_rng(3)
    records = []
    for number in range(n):
        draws, truth = random.normal(size=(200, elements)), random.normal(size=elements)
        one = {str(f): rank_statistics(draws, truth, f, (0, number)) for f in factors}
        scale = {str(f): rank_statistics(draws[:, :1], truth[:1], f, (1, number)) for f in factors}
        records.append({"number": number, "ranks": {"effect": one, "sigma": scale}})
    return records


def test_ranks_of_exact_draws_are_uniform() -> None:
    random = np.random.default_rng(0)
    rank = ranks(random.normal(size=(19, 4000)), random.normal(size=4000), random)
    # Exactly uniform, so the p value is uniform too: below 0.001 once in a thousand seeds, and the seed is fixed.
    assert kstest(rank, "uniform").pvalue > 1e-3
    assert uniformity(rank) > 1e-3


@pytest.mark.parametrize(("bias", "sd"), [(0.3, 1.0), (0.0, 1.4), (0.0, 0.7)])
def test_biased_or_mismeasured_draws_are_not_uniform(bias: float, sd: float) -> None:
    random = np.random.default_rng(0)
    rank = ranks(bias + sd * random.normal(size=(99, 2000)), random.normal(size=2000), random)
    assert uniformity(rank) < 1e-6


def test_shrinking_keeps_the_mean_and_multiplies_the_sd() -> None:
    draws = np.random.default_rng(0).normal(2, 3, size=(50, 4))
    np.testing.assert_allclose(shrunk(draws, 0.85).mean(axis=0), draws.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(shrunk(draws, 0.85).std(axis=0), 0.85 * draws.std(axis=0), rtol=1e-12)


def test_exact_posteriors_pass_and_shrunk_ones_fail() -> None:
    records = normal_records(300, 60, (1.0, CONTROL))
    exact, control = judge(records, 1.0), judge(records, CONTROL)
    assert exact["calibrated"], exact
    assert not control["calibrated"] and "effect 90%" in control["coverage_off"]
    # 2 Phi(0.85 x 1.645) - 1 = 0.838; 18,000 elements leave 0.003 of Monte Carlo error, 200 draws as much again.
    expected = 2 * norm.cdf(CONTROL * norm.ppf(0.95)) - 1
    assert control["variables"]["effect"]["90%"]["covered"] == pytest.approx(expected, abs=0.012)


def test_the_band_takes_the_screen_as_the_unit() -> None:
    # Elements of a screen that are all covered or all missed tell no more than one element does.
    share = np.repeat([0.0, 1.0], [40, 360])
    entry = coverage(share, 0.9)
    assert entry["covered"] == 0.9 and entry["z"] == 0
    assert entry["band_99"] == pytest.approx(2.576 * np.sqrt(0.9 * 0.1 / 400), abs=1e-4)
    assert not coverage(np.repeat([0.0, 1.0], [80, 320]), 0.9)["ok"]


def test_exact_posteriors_seldom_fail_however_few_the_screens_or_many_the_variables() -> None:
    # Scales of exact posteriors of ten screens, 40 variables a study: by a 99 % band each, half of the studies failed.
    random = np.random.default_rng(1)
    failed = 0
    for _ in range(100):
        rank = random.random((10, 40))
        inside = np.abs(rank[..., None] - 0.5) <= np.array([0.25, 0.45])
        table = np.concatenate([rank[..., None], inside, (rank < 0.05)[..., None], (rank > 0.95)[..., None]], -1)
        records = [{"ranks": {f"sigma_{i}": {"1.0": row.tolist()} for i, row in enumerate(one)}} for one in table]
        failed += bool(judge(records, 1.0)["coverage_off"])
    assert failed <= 5  # one in a hundred at most by the bound; six or more of those once in 2,000


def test_two_points_off_are_good_enough_and_three_are_not() -> None:
    spread = np.tile([-0.01, 0.01], 500)  # of so little error that the slack alone decides
    assert coverage(0.885 + spread, 0.9)["ok"]
    assert not coverage(0.87 + spread, 0.9)["ok"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []

    def one(study: Study, number: int) -> dict[str, Any]:
        asked.append(number)
        return {"number": number}

    monkeypatch.setattr(calibration, "one_screen", one)
    return asked


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, counted: list[int]) -> None:
    calibration.run_study(TINY, 3, tmp_path, 1)
    path = tmp_path / "gene_lineage.jsonl"
    path.write_text(path.read_text() + '{"numb')  # killed while it wrote
    records = calibration.run_study(TINY, 5, tmp_path, 1)
    assert counted == [0, 1, 2, 3, 4]
    assert [record["number"] for record in records] == counted
    assert [json.loads(line) for line in path.read_text().splitlines()][1:] == records


def test_records_of_other_settings_are_refused(tmp_path: Path, counted: list[int]) -> None:
    calibration.run_study(TINY, 1, tmp_path, 1)
    other = Study("gene_lineage", 3, 4, 2, (2, 2), 2, 40, 8, (1.0, CONTROL))
    with pytest.raises(vihier.VihierError, match="other settings"):
        calibration.run_study(other, 1, tmp_path, 1)


@pytest.mark.slow
def test_a_tiny_study_ranks_every_variable_and_draws_its_figure(tmp_path: Path) -> None:
    records = calibration.run_study(TINY, 2, tmp_path, 1)
    for record in records:
        assert {"effect", "effect_dev", "sigma", "sigma_gamma"} <= set(record["ranks"])
        for found in record["ranks"].values():
            assert set(found) == {"1.0", str(CONTROL)}
            assert 0 < found["1.0"][0] < 1
            # A wider interval covers whatever a narrower one does, and all elements are inside, below or above.
            assert found["1.0"][1] <= found["1.0"][2]
            assert sum(found["1.0"][2:]) == pytest.approx(1)
    described = calibration.describe(records, 1.0)
    assert (described["screens"], described["refused"], described["broke_down"]) == (2, 0, 0)
    calibration.figure({"gene_lineage": records}, 1.0, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 5_000  # an empty figure has 2 kB
