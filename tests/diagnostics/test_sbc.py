"""Calibration on a screen's design: truths of their own model, rows that follow from them, and a study that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ragged import ragged_screen

import vihier
from vihier.cli import main
from vihier.diagnostics import sbc
from vihier.diagnostics.calibration import judge, ranked
from vihier.diagnostics.sbc import SbcStudy, draw_truth, replicated, run_sbc, verdict_of
from vihier.models.likelihood import Likelihood

SCREEN = ragged_screen()


def residuals(truth: sbc.Truth) -> np.ndarray:
    """Rows less what `additive` expects of them, in sds of the noise."""
    found = truth.variables
    mean = found["alpha"][SCREEN.sgrna] + found["beta"][SCREEN.line] + found["gamma"][SCREEN.gene, SCREEN.line]
    return (truth.lfc - mean) / found["sigma"]


def test_rows_follow_from_their_truth_on_the_screens_own_design() -> None:
    study = SbcStudy.of(SCREEN, "additive", seed=4)
    truths = [draw_truth(study, number) for number in range(3)]
    for truth in truths:
        assert len(truth.lfc) == SCREEN.n_rows
        standard = residuals(truth)
        # Independent standard normals: 4 standard errors of their mean and variance.
        assert abs(standard.mean()) < 4 / np.sqrt(len(standard))
        assert abs(standard.var() - 1) < 4 * np.sqrt(2 / len(standard))
        effect = truth.variables["effect"]
        np.testing.assert_allclose(truth.variables["effect_gene"], effect.mean(axis=1), rtol=1e-10, atol=1e-12)
    assert not np.allclose(truths[0].lfc, truths[1].lfc)
    np.testing.assert_array_equal(truths[2].lfc, draw_truth(study, 2).lfc)


def test_truths_of_a_model_with_covariates_have_them_prepared() -> None:
    """Copy numbers are centred once, and not again by the refit; what the screen lacks is no term."""
    table = SCREEN.to_frame()
    copies = np.random.default_rng(0).normal(1, 0.5, (SCREEN.n_genes, SCREEN.n_lines))[SCREEN.gene, SCREEN.line]
    study = SbcStudy.of(vihier.read_screen(table.assign(copy_number=copies)), "covariate", seed=4)
    screen = study.screen
    pairs = screen.gene.astype(int) * screen.n_lines + screen.line
    _, first = np.unique(pairs, return_index=True)
    assert np.median(screen.covariates["copy_number"][first]) == pytest.approx(0, abs=1e-12)
    assert study.covariates == {"copy_number": "asis"} and "mu_mu_phi" not in study.priors
    truth = draw_truth(study, 0)
    found, x = truth.variables, screen.covariates["copy_number"]
    mean = found["alpha"][screen.sgrna] + found["beta"][screen.line] + found["gamma"][screen.gene, screen.line]
    mean = mean + x * (found["kappa"][screen.gene] + found["kappa_line"][screen.line])
    standard = (truth.lfc - mean) / found["sigma"]
    # Independent standard normals, as above.
    assert abs(standard.var() - 1) < 4 * np.sqrt(2 / len(standard))


def test_truths_have_the_priors_that_are_given() -> None:
    study = SbcStudy.of(SCREEN, "additive", priors={"mu_gamma": "Normal(4, 0.01)", "sigma": "HalfNormal(0.001)"})
    found = [draw_truth(study, number).variables for number in range(4)]
    assert all(abs(each["mu_gamma"] - 4) < 0.06 and each["sigma"] < 0.006 for each in found)
    # Those of `vihier simulate` otherwise, tighter than the model's own N(0, 3).
    assert study.priors["mu_mu_alpha"] == "Normal(0, 0.3)"


def test_replicated_rows_take_the_place_of_the_screens_or_stand_beside_them() -> None:
    lfc = np.linspace(-1, 1, SCREEN.n_rows)
    instead, beside = replicated(SCREEN, lfc, False), replicated(SCREEN, lfc, True)
    assert instead.n_rows == SCREEN.n_rows and beside.n_rows == 2 * SCREEN.n_rows
    np.testing.assert_allclose(np.sort(instead.lfc), lfc)
    np.testing.assert_allclose(np.sort(beside.lfc), np.sort(np.concatenate([SCREEN.lfc, lfc])))
    # Every cell has its own rows once more: the sgRNA, line and replicate of none is another's.
    for codes in ("sgrna", "line", "replicate"):
        once, twice = getattr(SCREEN, codes), getattr(beside, codes)
        np.testing.assert_array_equal(2 * np.bincount(once), np.bincount(twice))
    with pytest.raises(vihier.VihierError, match="tighter priors"):
        replicated(SCREEN, np.full(SCREEN.n_rows, 40.0), False)


def test_truths_of_a_fit_are_its_draws(tmp_path: Path) -> None:
    path = tmp_path / "fit.h5"
    with pytest.warns(vihier.FitWarning, match="did not converge"):
        post = vihier.fit(SCREEN, "additive", draws=30, out=path, guide="mean_field", max_steps=300, quiet=True)
    with post:
        draws = {name: post.draws(name).to_numpy()[0] for name in ("sigma", "effect")}
    study = SbcStudy.of(SCREEN, source=path)
    for number in range(3):
        truth = draw_truth(study, number).variables
        at = int(np.abs(draws["sigma"] - truth["sigma"]).argmin())
        # The file is in float32.
        assert truth["sigma"] == pytest.approx(draws["sigma"][at], rel=1e-6)
        np.testing.assert_allclose(truth["effect"], draws["effect"][at], atol=1e-5)
    other = ragged_screen(seed=1)
    for refused, match in (({"screen": other}, "another screen"), ({"model": "crossed"}, "is a fit of additive")):
        with pytest.raises(vihier.VihierError, match=match):
            SbcStudy.of(**{"screen": SCREEN, "source": path, **refused})
    with pytest.raises(vihier.VihierError, match="has its own priors"):
        SbcStudy.of(SCREEN, source=path, priors={"sigma": "HalfNormal(1)"})


def test_a_stopped_study_goes_on_and_other_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def one(study: SbcStudy, number: int) -> dict[str, Any]:
        asked.append(number)
        return {"number": number}

    monkeypatch.setattr(sbc, "one_replicate", one)
    path = tmp_path / "sbc.jsonl"
    study = SbcStudy.of(SCREEN, seed=1)
    run_sbc(study, 2, path)
    path.write_text(path.read_text() + '{"numb')  # killed while it wrote
    assert [record["number"] for record in run_sbc(study, 4, path)] == asked == [0, 1, 2, 3]
    for other in (SbcStudy.of(SCREEN, seed=2), SbcStudy.of(SCREEN, seed=1, likelihood=Likelihood("student_t"))):
        with pytest.raises(vihier.VihierError, match="other settings; give another --out"):
            run_sbc(other, 4, path)
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\xff\n")
    with pytest.raises(vihier.VihierError, match="no file of replicates"):
        run_sbc(study, 4, tmp_path / "picture.jsonl")


@pytest.mark.slow
def test_exact_posteriors_are_calibrated_and_narrow_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two genes in three lines: a fit takes a second. Twelve replicates say little, but enough to catch posteriors a
    # quarter as wide as they should be: their 90 % intervals cover 32 %.
    screen = ragged_screen((3, 4), 3)
    study = SbcStudy.of(screen, "gene_lineage", draws=100, seed=2)
    records = run_sbc(study, 12, tmp_path / "sbc.jsonl")
    verdict = verdict_of(records)
    assert verdict["replicates"] == 12 and verdict["broke_down"] == 0
    assert not verdict["coverage_off"] and not verdict["ranks_not_uniform"], verdict
    truth_statistics = sbc.rank_statistics
    monkeypatch.setattr(
        sbc, "rank_statistics", lambda draws, truth, factor, key: truth_statistics(draws, truth, 0.25, key)
    )
    narrow = judge(run_sbc(study, 12, tmp_path / "narrow.jsonl"), 1.0)
    assert "effect 90%" in narrow["coverage_off"] and len(ranked(records)) == 12


def test_what_the_command_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "screen.csv", tmp_path / "sbc.jsonl"
    SCREEN.to_frame().to_csv(table, index=False)
    start = ["sbc", "--screen-like", str(table), "--out", str(out)]
    for more, said in (
        (["--n", "1"], "2 replicates or more"),
        (["--model", "missing"], "there is none of that name"),
        (["--from", str(tmp_path / "missing.h5")], "missing.h5"),
        (["--prior", "sigma=import os"], "not understood"),
    ):
        assert main([*start, *more]) == 2
        heard = capsys.readouterr()
        assert heard.out == "" and heard.err.count("\n") == 1 and said in heard.err, heard.err
    assert not out.exists()


def test_the_command_runs_judges_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out, figure = tmp_path / "screen.csv", tmp_path / "sbc.jsonl", tmp_path / "sbc.png"
    SCREEN.to_frame().to_csv(table, index=False)
    options = ["--n", "2", "--n-genes", "2", "--draws", "40", "--processes", "1", "--quiet"]
    assert main(["sbc", "--screen", str(table), "--out", str(out), "--figure", str(figure), *options, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["replicates"] == 2 and "effect" in verdict["variables"]
    assert figure.stat().st_size > 10_000 and len(out.read_text().splitlines()) == 3
