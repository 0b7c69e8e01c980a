"""Each item of the list passes on a screen drawn from the model, and fails on a fit doctored against it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import vihier
from vihier.cli import main
from vihier.diagnostics.checks import Item, check_fit, hyperparameters, predictive, residuals, shrinkage
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import open_posterior
from vihier.screen import Screen, read_screen

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge", "ignore:Pareto k-hat")


def controls(screen: Screen, fit_file: Path) -> ControlGenes:
    """The genes of lower effect are essential ones."""
    with open_posterior(fit_file) as post:
        mean = post.moments("effect_gene")["mean"].to_numpy()
    genes = screen.index.genes[np.argsort(mean)]
    return ControlGenes(frozenset(genes[:6]), frozenset(genes[-6:]))


@pytest.fixture
def doctored(fit_file: Path, tmp_path: Path) -> Iterator[h5py.File]:
    path = tmp_path / "doctored.h5"
    shutil.copy(fit_file, path)
    with h5py.File(path, "r+") as file:
        yield file


def statuses(file: h5py.File, screen: Screen | None, **options: object) -> dict[str, str]:
    path = Path(file.filename)
    file.close()
    with open_posterior(path) as post:
        return {item.name: item.status for item in check_fit(post, screen, **options).items}  # type: ignore[arg-type]


def test_a_fit_of_the_model_to_its_own_rows_fails_nothing(fit_file: Path, screen: Screen) -> None:
    with open_posterior(fit_file) as post:
        checked = check_fit(post, screen, controls=controls(screen, fit_file))
    failed = {item.name: item.sentence for item in checked.items if item.status == "fail"}
    assert not failed
    assert len(checked.items) == 12 and checked.status == "warn"  # additive's offsets are known as a sum only
    warned = {item.name for item in checked.items if item.status == "warn"}
    assert {"identification"} <= warned <= {"identification", "priors of hyper-parameters", "shrinkage"}
    p = checked.p_value_table()
    assert set(p["grouping"]) == {"gene", "line", "lineage", "replicate"}
    assert len(p) == 24 + 24 + 3 + 48 and p[list(predictive.STATISTICS)].to_numpy().min() >= 0


def test_a_fit_that_was_stopped_fails_convergence(screen: Screen) -> None:
    with vihier.fit(screen, "additive", guide="mean_field", draws=100, max_steps=5, quiet=True) as post:
        checked = check_fit(post)
    found = {item.name: item for item in checked.items}
    assert found["convergence"].status == "fail" and "stopped" in found["convergence"].sentence
    assert found["k-hat"].status == "warn" and found["rows"].status == "warn" and checked.status == "fail"


def test_a_guide_far_from_the_posterior_fails_khat(doctored: h5py.File) -> None:
    doctored["diagnostics/khat_globals"][...] = 2.0
    doctored["diagnostics/sweeps"][...] = 0
    assert statuses(doctored, None)["k-hat"] == "fail"


def test_noise_three_times_too_large_fails_every_predictive_item(doctored: h5py.File, screen: Screen) -> None:
    doctored["posterior/sigma"][...] *= 3
    found = statuses(doctored, screen)
    assert all(found[f"posterior predictive by {name}"] == "fail" for name in ("gene", "line", "lineage", "replicate"))


def test_a_line_moved_away_fails_the_residuals_by_line_and_replicate(doctored: h5py.File, screen: Screen) -> None:
    doctored["posterior/beta"][..., 5] += 2.0
    found = statuses(doctored, screen)
    assert found["residuals by line"] == found["residuals by replicate"] == "fail"


def test_a_batch_that_the_model_does_not_know_fails_the_residuals_by_batch(table: Path) -> None:
    frame = pd.read_parquet(table)
    first = frame.groupby("depmap_id")["replicate_id"].transform("min")
    batch = np.where(frame["replicate_id"] == first, "one", "two")
    frame = frame.assign(p_dna_batch=batch, lfc=frame["lfc"] + 1.5 * (batch == "two"))
    screen = read_screen(frame)
    with vihier.fit(screen, "additive", draws=100, max_steps=40, quiet=True) as post:
        found = {item.name: item.status for item in check_fit(post, screen).items}
    assert found["residuals by p_dna_batch"] == "fail" and found["residuals by line"] != "fail"


def test_scales_five_times_too_small_fail_shrinkage(doctored: h5py.File, screen: Screen) -> None:
    doctored["posterior/sigma_gamma"][...] /= 5
    assert statuses(doctored, screen)["shrinkage"] == "fail"


def test_a_hyper_parameter_where_its_prior_is_not_fails(doctored: h5py.File, screen: Screen) -> None:
    doctored["posterior/sigma_mu_alpha"][...] += 20  # its prior is HalfNormal(3)
    assert statuses(doctored, screen)["priors of hyper-parameters"] == "fail"


def test_an_effect_that_is_not_identified_fails(doctored: h5py.File, screen: Screen) -> None:
    doctored.attrs["not_identified"] = json.dumps(["effect"])
    doctored.attrs["not_identified_reasons"] = json.dumps({"effect": "a screen of one sgRNA"})
    assert statuses(doctored, screen)["identification"] == "fail"


def test_lists_of_control_genes_the_wrong_way_round_fail(fit_file: Path, screen: Screen) -> None:
    right = controls(screen, fit_file)
    wrong = ControlGenes(right.nonessential, right.essential)
    with open_posterior(fit_file) as post:
        by_name = {item.name: item for item in check_fit(post, controls=wrong).items}
    assert by_name["control genes"].status == "fail" and by_name["control genes"].figures["auroc"] < 0.5


def test_a_screen_that_holds_the_fitted_one_is_cut_to_it(screen: Screen) -> None:
    part = screen.subset(genes=list(screen.index.genes[:6]), lines=list(screen.index.lines[:8]))
    with vihier.fit(part, "additive", guide="mean_field", draws=50, max_steps=20, quiet=True) as post:
        whole, cut = (check_fit(post, each, draws=20) for each in (screen, part))
    assert whole.table().equals(cut.table()) and len(cut.p_value_table().query("grouping == 'gene'")) == 6


def test_another_screen_is_refused(fit_file: Path, screen: Screen) -> None:
    part = screen.subset(genes=list(screen.index.genes[:5]))
    with open_posterior(fit_file) as post, pytest.raises(VihierError, match="5 genes here, 24 there"):
        check_fit(post, part)


def test_p_values_of_rows_from_the_model_are_uniform_and_do_not_depend_on_blocks() -> None:
    random = np.random.default_rng(0)
    code, labels = np.repeat(np.arange(200), 10), np.arange(200).astype(str)
    lfc, drawn = random.normal(size=2000), random.normal(size=(400, 2000))
    whole, parts = (predictive.Groups("gene", code, labels, lfc) for _ in range(2))
    whole.add(slice(0, 2000), drawn)
    for start in range(0, 2000, 450):
        rows = slice(start, min(start + 450, 2000))
        parts.add(rows, drawn[:, rows])
    found = whole.p_values()
    for name, values in found.values.items():
        np.testing.assert_allclose(values, parts.p_values().values[name], atol=1e-12)
        if name != "tail":  # a share of ten rows, within limits that are the measured rows' own
            assert abs(values.mean() - 0.5) < 5 * (1 / 12 / 200) ** 0.5
            assert values.var() == pytest.approx(1 / 12, rel=0.3)
    assert predictive.judge(found).status == "pass"


def test_pure_figures_by_hand() -> None:
    random = np.random.default_rng(1)
    code = np.arange(3000) % 3
    noise = random.normal(size=3000)
    assert abs(residuals.share_between(noise, code)) < 0.005
    # A third of the groups 1 higher: variance between 2/9 of a total of 11/9.
    assert residuals.share_between(noise + (code == 0), code) == pytest.approx(2 / 11, abs=0.03)
    spread = residuals.structure("line", noise * np.array([1.0, 1, 3])[code], code, np.array(["a", "b", "c"]))
    assert spread.status == "fail" and spread.figures["spread_ratio"] == pytest.approx(3, abs=0.3)
    assert hyperparameters.overlap(np.arange(1000.0), np.arange(1000.0) + 500) == pytest.approx(0.5, abs=0.04)
    scatter = shrinkage.Scatter.of(random.standard_t(2, size=(50, 40)))
    assert shrinkage.judge({"gamma": scatter}, 50).status == "fail"
    assert shrinkage.judge({"few": scatter}, 500) == Item("shrinkage", "pass", "no site has 20 elements to pool")


def test_the_command_says_it_and_fails_by_its_exit_status(
    fit_file: Path, table: Path, doctored: h5py.File, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, p, figure = tmp_path / "items.csv", tmp_path / "p.csv", tmp_path / "p.png"
    arguments = ["check", str(fit_file), "--screen", str(table), "--out", str(out), "--p-values", str(p)]
    assert main([*arguments, "--figure", str(figure), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == "warn" and [x["item"] for x in said["items"]] == pd.read_csv(out)["item"].tolist()
    assert set(pd.read_csv(p)["grouping"]) == {"gene", "line", "lineage", "replicate"}
    assert figure.stat().st_size > 10_000
    doctored["posterior/sigma"][...] *= 3
    del doctored.attrs["screen_source"]  # which would be taken where no screen is named
    path = doctored.filename
    doctored.close()
    assert main(["check", path, "--screen", str(table), "--draws", "50"]) == 1
    assert "fail  posterior predictive by gene" in capsys.readouterr().out
    for bad in (["--figure", str(tmp_path / "p.png")], ["--essential", str(out)], ["--screen", "no.csv"]):
        assert main(["check", path, *bad]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_screen_can_be_a_store_or_the_one_that_the_fit_names(
    fit_file: Path, table: Path, doctored: h5py.File, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "screen.h5"
    assert main(["pack", str(table), str(store)]) == 0
    capsys.readouterr()
    assert main(["check", str(fit_file), "--screen", str(store), "--draws", "20", "--out", "-"]) == 0
    from_store = capsys.readouterr().out
    doctored.attrs["screen_source"] = str(table)
    path = doctored.filename
    doctored.close()
    assert main(["check", path, "--draws", "20", "--out", "-"]) == 0
    assert capsys.readouterr().out == from_store
    out = tmp_path / "rows.csv"
    assert main(["predict", str(fit_file), "--screen", str(store), "--draws", "20", "--out", str(out)]) == 0
    assert len(pd.read_csv(out)) == len(pd.read_parquet(table))
