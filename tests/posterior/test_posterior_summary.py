"""Summary tables: their columns, their numbers against the draws and ArviZ, and what they say of the unidentified."""

import io

import arviz as az
import numpy as np
import pandas as pd
import pytest

from vihier import open_posterior
from vihier.posterior.moments import hdi_of_draws

COLUMNS = ["variable", "hugo_symbol", "depmap_id", "mean", "sd", "hdi_5.5%", "hdi_94.5%", "prob_negative"]


@pytest.fixture(scope="module")
def post(fit_file):
    with open_posterior(fit_file) as opened:
        yield opened


def test_columns_index_and_order_of_rows(post, known):
    table = post.summary("effect")
    assert table.columns.tolist() == COLUMNS
    assert isinstance(table.index, pd.RangeIndex) and len(table) == 35
    assert (table["variable"] == "effect").all()
    assert table["depmap_id"].tolist()[:7] == known.labels["depmap_id"]
    assert table["hugo_symbol"].tolist()[::7] == known.labels["hugo_symbol"]


def test_the_stored_interval_equals_the_one_from_the_draws(post, known):
    table = post.summary("effect")
    lower, upper = hdi_of_draws(known.draws["effect"][None], 0.89)
    np.testing.assert_array_equal(table["hdi_5.5%"], lower.ravel().astype(np.float32))
    np.testing.assert_array_equal(table["hdi_94.5%"], upper.ravel().astype(np.float32))


@pytest.mark.parametrize("prob", [0.5, 0.89, 0.95])
def test_equals_arviz(prob, post, fit_file):
    table = post.summary(["gamma", "sigma"], prob=prob)
    expected = az.summary(
        az.from_netcdf(fit_file), var_names=["gamma", "sigma"], kind="stats", hdi_prob=prob, round_to="none"
    )
    columns = expected.columns.tolist()
    assert table.columns.tolist()[3:7] == columns
    # float32 of the file against ArviZ's arithmetic in float32: a few units in the last of 24 bits
    np.testing.assert_allclose(table[columns], expected, rtol=2e-6, atol=1e-7)


def test_probability_of_being_negative(post, known):
    table = post.summary("gamma", hugo_symbol="MYC")
    np.testing.assert_allclose(table["prob_negative"], (known.draws["gamma"][:, 2] < 0).mean(0), rtol=1e-6)


def test_rows_follow_the_selection(post):
    table = post.summary("gamma", hugo_symbol=["TP53", "BRAF"], lineage="skin")
    assert table["hugo_symbol"].tolist() == ["TP53"] * 3 + ["BRAF"] * 3
    assert table["depmap_id"].tolist() == ["ACH-000001", "ACH-000005", "ACH-000023"] * 2
    everything = post.summary("gamma").set_index(["hugo_symbol", "depmap_id"])
    assert table.set_index(["hugo_symbol", "depmap_id"]).equals(
        everything.loc[list(zip(*table.values.T[1:3], strict=True))]
    )


def test_several_variables_share_their_columns(post):
    table = post.summary(["sigma", "alpha", "gamma"])
    assert table.columns.tolist()[:4] == ["variable", "sgrna", "hugo_symbol", "depmap_id"]
    assert table["variable"].tolist() == ["sigma"] + ["alpha"] * 9 + ["gamma"] * 35
    assert table.loc[0, ["sgrna", "hugo_symbol", "depmap_id"]].isna().all()


@pytest.mark.parametrize("prob", [0.89, 0.5])
def test_blocks_join_to_the_table(prob, post, monkeypatch):
    from vihier.posterior import summary

    whole = post.summary(["gamma", "sigma"], prob=prob)
    monkeypatch.setattr(summary, "_BLOCK_ROWS", 14)
    monkeypatch.setattr(summary, "_BLOCK_DRAW_BYTES", 2 * 7 * 200 * 4)
    blocks = list(post.summary_blocks(["gamma", "sigma"], prob=prob))
    assert [len(block) for block in blocks] == [14, 14, 7, 1]
    assert all(block.columns.tolist() == whole.columns.tolist() for block in blocks)
    assert pd.concat(blocks, ignore_index=True).equals(whole)


def test_csv_reads_back(post):
    table = post.summary("effect")
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype={"mean": np.float32})
    assert again["hugo_symbol"].tolist() == table["hugo_symbol"].tolist()
    np.testing.assert_array_equal(again["mean"], table["mean"])


REASON = "the rows know mu_mu_alpha + mu_mu_beta + mu_gamma only as a sum, <b>&</b>"


@pytest.mark.parametrize("given", [{"mu_beta": REASON, "beta": ""}, ["mu_beta", "beta"]])
def test_what_is_not_identified_says_so_wherever_it_is_shown(given, known, tmp_path):
    with open_posterior(known.write(tmp_path / "fit.h5", not_identified=given)) as post:
        reason = REASON if isinstance(given, dict) else "not identified"
        assert post.not_identified == {"mu_beta": reason, "beta": "not identified"}
        assert post.attrs["not_identified"] == ["mu_beta", "beta"]
        table = post.summary(["effect", "mu_beta"])
        said = table.groupby("variable")["not_identified"].unique()
        assert said["effect"].tolist() == [""] and said["mu_beta"].tolist() == [reason]
        assert post.draws("mu_beta").attrs["not_identified"] == reason
        assert post.summary("effect").columns.tolist() == COLUMNS


@pytest.mark.parametrize("prob", [0, 1, -0.5, 89, float("nan")])
def test_probabilities_outside_are_refused(prob, post, refusal):
    assert "not between 0 and 1" in refusal(post.summary, "sigma", prob=prob)


def test_it_is_refused_before_the_first_block(post, refusal):
    # The command line opens its output once this has returned.
    assert "did you mean 'effect'?" in refusal(post.summary_blocks, "efect")
    assert "no variable named" in refusal(post.summary_blocks, [])
