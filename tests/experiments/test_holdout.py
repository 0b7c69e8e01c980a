"""What is held out, predictions whose density is known, and comparisons by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

import holdout
import row_predictions
from holdout import (
    compare,
    interval_coverage,
    keeps_a_row,
    one_replicate_of_each_line,
    predict_by_mean,
    replicates_in_turn,
    rows_at_random,
)
from outliers import spoil
from row_predictions import labels_of_rows, predict_rows

import vihier


def made_table() -> pd.DataFrame:
    """Four sgRNAs of two genes in six lines; lines 0 to 3 have three replicates, line 4 two, line 5 one."""
    random = np.random.default_rng(0)
    rows = [
        (f"s{s}", "AB"[s // 2], f"ACH-{c}", ("skin", "lung")[c % 2], f"r{r}", random.normal(-(s // 2), 0.3))
        for s in range(4)
        for c in range(6)
        for r in range((3, 3, 3, 3, 2, 1)[c])
    ]
    return pd.DataFrame(rows, columns=["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc"])


def test_a_share_of_the_rows_is_held_out() -> None:
    held = rows_at_random(made_table(), 0.25, np.random.default_rng(0))
    assert held.sum() == round(0.25 * 60)


def test_one_replicate_of_each_line_that_has_two() -> None:
    table = made_table()
    held = table[one_replicate_of_each_line(table, np.random.default_rng(1))]
    assert sorted(held["depmap_id"].unique()) == [f"ACH-{c}" for c in range(5)]
    assert len(held[["depmap_id", "replicate_id"]].drop_duplicates()) == 5
    assert (held.groupby("depmap_id").size() == 4).all()  # whole replicates: one row an sgRNA


def test_replicates_are_held_out_in_turn() -> None:
    table = made_table()
    first, second, third = (table[held] for held in replicates_in_turn(table, np.random.default_rng(1), 3))
    assert [held["depmap_id"].nunique() for held in (first, second, third)] == [5, 5, 4]  # ACH-4 has two
    replicates = pd.concat([first, second, third])[["depmap_id", "replicate_id"]].drop_duplicates()
    assert len(replicates) == 14  # none twice


def test_replicates_of_two_screens_are_two() -> None:
    table = made_table().query("depmap_id == 'ACH-5'")
    both = pd.concat([table.assign(screen="broad"), table.assign(screen="sanger")])
    held = both[one_replicate_of_each_line(both, np.random.default_rng(0))]
    assert len(held) == 4 and len(set(held["screen"])) == 1


def test_only_cells_that_keep_a_row_are_scored() -> None:
    table = made_table()
    test, train = table[table["replicate_id"] == "r0"], table[table["replicate_id"] != "r0"]
    assert set(test.loc[~keeps_a_row(test, train), "depmap_id"]) == {"ACH-5"}


def test_a_mean_predicts_with_its_own_error() -> None:
    train = pd.DataFrame({"sgrna": list("aabb"), "depmap_id": "x", "lfc": [0.0, 2.0, 5.0, 7.0]})
    test = pd.DataFrame({"sgrna": ["a"], "depmap_id": ["x"], "lfc": [1.5]})
    # Squares within groups 1 + 1 + 1 + 1 over 4 - 2 degrees of freedom; two rows in the mean.
    expected = norm.logpdf(1.5, loc=1.0, scale=np.sqrt(2.0 * 1.5))
    np.testing.assert_allclose(predict_by_mean(train, test, ["sgrna", "depmap_id"]), [expected])


def test_comparison_by_hand() -> None:
    ours, theirs = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 1.0, 2.0])
    got = compare(ours, theirs, np.array(["x", "x", "y", "y"]))
    # Differences 1, 1, 2, 2: sd sqrt(1 / 3) over sqrt(4); the two lines' sums of deviations are -1 and 1.
    assert got["difference"] == 1.5
    assert got["se"] == pytest.approx(np.sqrt(1 / 3) / 2, abs=1e-5)
    assert got["se_by_line"] == pytest.approx(np.sqrt(2) / 4, abs=1e-5)


def test_coverage_of_uniform_predictive_probabilities_is_nominal() -> None:
    uniform = (np.arange(1000) + 0.5) / 1000
    assert interval_coverage(uniform) == {"50%": 0.5, "90%": 0.9}
    # Heavy tails: quantiles of Student's t with 2 degrees of freedom, scaled to cover 90 %, cover more than 50 % at 50.
    heavy = norm.cdf(t.ppf(uniform, 2) * 1.645 / t.ppf(0.95, 2))
    assert interval_coverage(heavy)["50%"] > 0.55


@pytest.mark.filterwarnings("ignore:the fit did not converge")
def test_the_predictive_density_is_the_mean_over_draws() -> None:
    table = made_table()
    held = one_replicate_of_each_line(table, np.random.default_rng(2))
    with vihier.fit(
        table[~held], "additive", guide="mean_field", draws=100, max_steps=20, device="cpu", quiet=True
    ) as post:
        density, lower = predict_rows(post, table[held])
        first = table[held].iloc[0]
        site = {"alpha": {"sgrna": first["sgrna"]}, "beta": {"depmap_id": first["depmap_id"]}}
        site["gamma"] = {"hugo_symbol": first["hugo_symbol"], "depmap_id": first["depmap_id"]}
        mean = sum(post.draws(name, **of).to_numpy().ravel().astype(float) for name, of in site.items())
        sigma = post.draws("sigma").to_numpy().ravel()
    # float32 draws, summed in float64 both times.
    assert density[0] == pytest.approx(np.log(norm.pdf(first["lfc"], mean, sigma).mean()), rel=1e-6)
    assert lower[0] == pytest.approx(norm.cdf(first["lfc"], mean, sigma).mean(), rel=1e-6)


def test_rows_of_known_and_of_new_replicates_are_predicted_by_student_t() -> None:
    """Beside scipy, draw by draw; a replicate that the fit has not seen has a noise scale around its line's."""
    table = made_table().query("depmap_id != 'ACH-5'")
    held = table["replicate_id"].to_numpy() == "r2"
    with vihier.fit(
        table[~held], likelihood="student_t", noise="replicate", draws=64, device="cpu", quiet=True
    ) as post:
        known, new = table[~held].iloc[:1], table[held].iloc[:1]
        assert labels_of_rows(new, "replicate")[0] not in post.labels("replicate")
        first = known.iloc[0]
        site = {"alpha": {"sgrna": first["sgrna"]}, "beta": {"depmap_id": first["depmap_id"]}}
        site["gamma"] = {"hugo_symbol": first["hugo_symbol"], "depmap_id": first["depmap_id"]}
        mean = sum(post.draws(name, **of).to_numpy().ravel().astype(float) for name, of in site.items())
        label = f"{first['depmap_id']}|{first['replicate_id']}"
        sigma = post.draws("sigma_replicate", replicate=label).to_numpy().ravel()
        nu = post.draws("nu").to_numpy().ravel()
        density, lower = predict_rows(post, known)
        assert density[0] == pytest.approx(np.log(t.pdf(first["lfc"], nu, mean, sigma).mean()), rel=1e-5)
        assert lower[0] == pytest.approx(t.cdf(first["lfc"], nu, mean, sigma).mean(), rel=1e-5)
        around = row_predictions.noise_of_rows(post, pd.concat([new] * 2), np.random.default_rng(0))
        of_line = post.draws("sigma_line_screen", line_screen=str(new["depmap_id"].iloc[0])).to_numpy().ravel()
        z = np.log(around[:, 0] / of_line) / post.draws("sigma_sigma").to_numpy().ravel()
        # 64 standard normals, the same for both rows: their sd errs by 0.09.
        assert (around[:, 0] == around[:, 1]).all()
        assert z.std() == pytest.approx(1.0, abs=0.35)


def test_gross_outliers_are_as_many_and_as_large_as_asked() -> None:
    lfc = np.zeros(1000)
    off = np.abs(spoil(lfc, 0.05, np.random.default_rng(0)))
    assert (off > 0).sum() == 50
    assert off[off > 0].min() >= 4 and off.max() <= 8


def test_absent_data_are_skipped_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["holdout.py", str(tmp_path / "nowhere.parquet")])
    assert holdout.main() == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "nowhere.parquet" in said.err
