"""Leave-one-out against ArviZ, against refits, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from ragged import ragged_frame

import vihier
from vihier.cli import main
from vihier.diagnostics.leave_one_out import cells_of, leave_rows_out
from vihier.diagnostics.model_comparison import compare_held_out, compare_loo, loo_table
from vihier.errors import VihierError
from vihier.inference.predict import program_of
from vihier.inference.predict_table import RowsToPredict, predict
from vihier.inference.predictor import Predictor
from vihier.models.batch import Batch
from vihier.posterior.reader import Posterior
from vihier.screen import Screen, read_screen

pytestmark = pytest.mark.filterwarnings("ignore:the fit did not converge", "ignore:Pareto k-hat")


@pytest.fixture(scope="module")
def screen() -> Screen:
    return read_screen(ragged_frame(sgrnas=(4, 5, 3, 4, 3, 4), n_lines=6, seed=3))


@pytest.fixture(scope="module")
def fits(screen: Screen, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Posterior]]:
    folder = tmp_path_factory.mktemp("fits")
    found = {
        model: vihier.fit(screen, model, draws=1000, out=folder / f"{model}.h5", quiet=True)
        for model in ("additive", "gene_lineage")
    }
    yield found
    for post in found.values():
        post.close()


def predictor(post: Posterior, screen: Screen) -> Predictor:
    return Predictor.of(post, screen, program_of(post))


@pytest.mark.filterwarnings("ignore")
def test_psis_over_draws_and_its_table_equal_arviz(fits: dict[str, Posterior], screen: Screen) -> None:
    arviz = pytest.importorskip("arviz")
    mine, theirs = {}, {}
    for name, post in fits.items():
        mine[name] = leave_rows_out(predictor(post, screen), "row", "draws")
        runs = [run for block in predictor(post, screen).blocks() for _, run in block.runs()]
        assert len(runs) == 1
        log_p = runs[0].rows.log_prob(torch.as_tensor(screen.lfc)).numpy()
        theirs[name] = arviz.from_dict(
            posterior={"sigma": post.draws("sigma").to_numpy()}, log_likelihood={"lfc": log_p[None]}
        )
        loo = arviz.loo(theirs[name], pointwise=True, reff=1.0)
        np.testing.assert_allclose(mine[name].elpd, loo.loo_i.values, rtol=1e-10)
        np.testing.assert_allclose(mine[name].khat, loo.pareto_k.values, rtol=1e-8)
        assert mine[name].p_loo == pytest.approx(float(loo.p_loo), rel=1e-8)
        assert mine[name].se == pytest.approx(float(loo.se), rel=1e-8)
    table = loo_table(mine)
    compared = arviz.compare({name: arviz.loo(data, pointwise=True, reff=1.0) for name, data in theirs.items()})
    assert table.index.tolist() == compared.index.tolist()
    for column in ("elpd_loo", "p_loo", "elpd_diff", "se", "dse"):
        np.testing.assert_allclose(table[column], compared[column].astype(float), rtol=1e-7, atol=1e-9)


def test_the_conditional_agrees_with_whole_draws_and_has_smaller_khats(
    fits: dict[str, Posterior], screen: Screen
) -> None:
    for name, post in fits.items():
        of = predictor(post, screen)
        exact, raw = leave_rows_out(of, "row"), leave_rows_out(of, "row", "draws")
        # Both estimate the same number; the noise of a row's own effect is in one of them only.
        good = raw.khat < 0.5
        assert np.abs(exact.elpd - raw.elpd)[good].mean() < 0.02, name
        assert exact.khat.max() < 0.7 and np.quantile(exact.khat, 0.9) < np.quantile(raw.khat, 0.9)
        assert exact.p_loo == pytest.approx(raw.p_loo, rel=0.1)


def test_left_out_rows_and_cells_are_predicted_as_by_a_refit_without_them(
    fits: dict[str, Posterior], screen: Screen
) -> None:
    table, post = screen.to_frame(), fits["additive"]
    by_row = leave_rows_out(predictor(post, screen), "row")
    by_cell = leave_rows_out(predictor(post, screen), "cell")
    cell, first = cells_of(screen.sgrna, screen.line)
    worst = int(np.argmin(by_row.elpd))
    with vihier.fit(table.drop(index=worst), "additive", draws=1000, seed=1, quiet=True) as refit:
        expected = float(predict(refit, table.iloc[[worst]])["log_density"].iloc[0])
    # The refit's own Monte Carlo error: 1,000 draws of a density that varies by a third.
    assert by_row.elpd[worst] == pytest.approx(expected, abs=0.08)
    pair = int(np.flatnonzero(np.bincount(cell) == 2)[0])
    rows = np.flatnonzero(cell == pair)
    with vihier.fit(table.drop(index=rows), "additive", draws=1000, seed=1, quiet=True) as refit:
        predicted = Predictor.of(refit, read_screen(table.iloc[rows]), program_of(refit))
        (block,) = predicted.blocks()
        log_p = np.concatenate([run.rows.log_prob(block.batch.lfc).sum(1).numpy() for _, run in block.runs()])
    assert by_cell.elpd[pair] == pytest.approx(np.log(np.exp(log_p).mean()), abs=0.12)
    assert len(by_cell.elpd) == len(first) and by_cell.total < by_row.total


def test_rows_with_heavy_tails_and_noise_of_their_own(screen: Screen) -> None:
    frame = screen.to_frame()
    odd = np.random.default_rng(5).choice(len(frame), 25, replace=False)
    frame.loc[odd, "lfc"] += 4.0
    heavy = read_screen(frame)
    options = {"likelihood": "student_t", "noise": "replicate", "draws": 400, "quiet": True}
    with vihier.fit(heavy, "additive", **options) as post:
        of = predictor(post, heavy)
        for by in ("row", "cell"):
            exact, raw = leave_rows_out(of, by), leave_rows_out(of, by, "draws")
            good = raw.khat < 0.5
            # Two estimates of the same numbers (nats a unit); their own Monte Carlo error averages out over units.
            assert np.abs(exact.elpd - raw.elpd)[good].mean() < 0.05
            assert exact.elpd[good].mean() == pytest.approx(raw.elpd[good].mean(), abs=0.01)
            assert exact.method == "conditional" and not np.array_equal(exact.elpd, raw.elpd)
            # k-hat of 400 draws has an sd of some 0.1: one unit in a hundred may come out above.
            assert exact.share_bad < 0.02
        assert compare_loo({"student_t": post}, heavy, draws=200)["elpd_loo"].iloc[0] < 0
        normal = {**options, "likelihood": "normal", "noise": "global"}
        with vihier.fit(heavy, "additive", **normal) as other:
            table = compare_loo({"student_t": post, "normal": other}, heavy)
    assert table.index[0] == "student_t" and table["elpd_diff"].iloc[1] > 3 * table["dse"].iloc[1]


def test_tables_and_the_command(
    fits: dict[str, Posterior], screen: Screen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = compare_loo(fits, screen)
    assert table["rank"].tolist() == [0, 1] and table["elpd_diff"].iloc[0] == 0 and table["dse"].iloc[0] == 0
    assert (table["scale"] == "log").all() and not table["warning"].any()
    path = tmp_path / "screen.csv"
    screen.to_frame().to_csv(path, index=False)
    files = [str(post.path) for post in fits.values()]
    assert main(["compare", *files, "--screen", str(path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["model"] for row in rows] == table.index.tolist()
    assert rows[1]["elpd_diff"] == pytest.approx(table["elpd_diff"].iloc[1], rel=1e-4)
    assert main(["compare", *files, "--held-out", str(path), "--out", str(tmp_path / "held.csv")]) == 0
    assert pd.read_csv(tmp_path / "held.csv")["elpd"].is_monotonic_decreasing
    capsys.readouterr()
    part = tmp_path / "part.csv"
    screen.to_frame().iloc[1:].to_csv(part, index=False)
    for bad, said in (
        ([*files, "--screen", str(part)], "is a fit of another screen (the same genes and lines, but other rows"),
        ([*files], "give --screen (leave-one-out), or --held-out"),
        ([*files, "--screen", str(path), "--held-out", str(path)], "--screen and --held-out"),
        ([files[0], "--screen", str(path)], "one fit only"),
    ):
        assert main(["compare", *bad]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def doubled(batch: Batch) -> None:
    """A model of twice the fold change: its densities are of another unit."""
    sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
    with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
        pyro.sample("lfc", dist.Normal(0.0, sigma), obs=None if batch.lfc is None else 2 * batch.lfc)


def test_likelihoods_of_different_units_and_other_screens_are_refused(
    fits: dict[str, Posterior], screen: Screen
) -> None:
    with vihier.fit(screen, doubled, guide="mean_field", draws=50, max_steps=20, quiet=True) as post:
        both = {"additive": fits["additive"], "doubled": post}
        with pytest.raises(VihierError, match="densities of different units"):
            compare_loo(both, screen, models={"doubled": doubled}, method="draws")
    part = screen.subset(genes=list(screen.index.genes[:4]))
    with vihier.fit(part, "additive", guide="mean_field", draws=50, max_steps=20, quiet=True) as post:
        rows = RowsToPredict(part, part.lfc)
        with pytest.raises(VihierError, match="is a fit of another screen than"):
            compare_held_out({"whole": fits["additive"], "part": post}, rows)
    with pytest.raises(VihierError, match="none has a value in column 'lfc'"):
        compare_held_out(fits, RowsToPredict(screen, None))
