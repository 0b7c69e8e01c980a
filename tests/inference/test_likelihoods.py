"""The likelihood that a fit has, what its file says of it, and fits with rows that are not Normal with one scale."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ragged import ragged_frame

import vihier
from vihier.errors import VihierError
from vihier.inference.likelihoods import WHOLE_FROM_GENES, chosen_likelihood
from vihier.inference.request import FitRequest
from vihier.models.likelihood import Likelihood
from vihier.screen import read_screen


def fitted(frame: pd.DataFrame, **options: object) -> vihier.Posterior:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vihier.fit(frame, quiet=True, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return ragged_frame(sgrnas=(2, 3, 4, 3), n_lines=6)


def test_whole_screens_are_student_t_by_replicate_and_small_ones_normal(frame: pd.DataFrame) -> None:
    small = read_screen(frame)
    names = [f"G{i:03}" for i in range(WHOLE_FROM_GENES)]
    large = read_screen(pd.DataFrame({"sgrna": names, "hugo_symbol": names, "depmap_id": "ACH-1", "lfc": 0.1}))
    ask = FitRequest()
    assert chosen_likelihood(ask, small) == Likelihood("normal", "global")
    assert chosen_likelihood(ask, large) == Likelihood("student_t", "replicate")
    assert chosen_likelihood(FitRequest(guide="mean_field"), large) == Likelihood("normal", "global")
    assert chosen_likelihood(FitRequest(likelihood="normal"), large) == Likelihood("normal", "replicate")
    assert chosen_likelihood(FitRequest(likelihood="student_t", noise="line", nu=4.0), small) == Likelihood(
        "student_t", "line", 4.0
    )
    assert chosen_likelihood(FitRequest(model=lambda batch: None), large) is None
    both = [large.to_frame().assign(screen=name, sgrna=lambda x, name=name: x["sgrna"] + name) for name in "ab"]
    assert chosen_likelihood(ask, read_screen(pd.concat(both))) == Likelihood("student_t", "replicate", "screen")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"likelihood": "cauchy"}, "likelihood 'cauchy'"),
        ({"noise": "gene"}, "noise 'gene'"),
        ({"likelihood": "student_t", "nu": 0.0}, "nu 0.0"),
        ({"model": lambda batch: None, "likelihood": "normal"}, "a program of your own"),
    ],
)
def test_what_cannot_be_is_refused_before_the_screen_is_read(options: dict[str, object], named: str) -> None:
    with pytest.raises(VihierError, match=named):
        vihier.fit("no such file", **options)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the fit did not converge")
@pytest.mark.parametrize(("draws", "passes"), [(7, False), (8, True)])
def test_more_draws_than_memory_holds_are_made_by_passes(
    draws: int, passes: bool, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vihier.guides.swept_fit.MOST_HELD", 24 * 7)  # 4 genes x 6 lines
    post = fitted(frame, likelihood="student_t", draws=draws, max_steps=4)
    assert ("passes" in post.group("diagnostics")) == passes


@pytest.mark.parametrize("model", ["additive", "gene_lineage"])
def test_the_file_says_how_rows_scatter_and_names_replicates(model: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "fit.h5"
    post = fitted(frame, model=model, likelihood="student_t", noise="replicate", draws=40, out=out)
    assert Likelihood.of_settings(post.config) == Likelihood("student_t", "replicate")
    assert list(post.labels("replicate")) == list(read_screen(frame).index.replicates)
    assert post.draws("sigma_replicate").dims == ("chain", "draw", "replicate")
    for name in ("nu", "sigma", "sigma_sigma", "sigma_replicate"):
        assert bool((post.draws(name) > 0).all())
    assert np.isfinite(post.group("sample_stats")["log_p"]).all()
    again = fitted(frame, model=model, likelihood="student_t", noise="replicate", draws=40, out=out)
    assert again.attrs["created_at"] == post.attrs["created_at"]
    with pytest.raises(VihierError, match="likelihood"):
        fitted(frame, model=model, likelihood="normal", noise="replicate", draws=40, out=out)


def test_same_seed_same_bits_whatever_the_order_of_rows(frame: pd.DataFrame) -> None:
    options = {"likelihood": "student_t", "noise": "line", "draws": 40, "seed": 3}
    first, again = fitted(frame, **options), fitted(frame.sample(frac=1.0, random_state=1), **options)
    for name in ("effect", "gamma", "sigma_line", "nu"):
        np.testing.assert_array_equal(first.draws(name), again.draws(name))


def test_effect_is_the_sum_that_it_is_said_to_be(frame: pd.DataFrame) -> None:
    """What is kept of each chain's last sweep hangs together in the file."""
    post = fitted(frame, likelihood="student_t", draws=24)
    alpha, beta, gamma = (post.draws(name).to_numpy()[0] for name in ("alpha", "beta", "gamma"))
    of_gene = read_screen(frame).index.gene_of_sgrna
    mean = np.stack([alpha[:, of_gene == gene].mean(1) for gene in range(of_gene.max() + 1)], 1)
    expected = mean[:, :, None] + beta[:, None] + gamma
    # Float32 values of up to ten, from offsets that the data do not identify.
    np.testing.assert_allclose(post.draws("effect").to_numpy()[0], expected, atol=1e-5)


def test_stopped_early_it_says_that_it_did_not_converge(frame: pd.DataFrame) -> None:
    with pytest.warns(UserWarning, match="did not converge"):
        post = vihier.fit(frame, likelihood="student_t", draws=16, max_steps=5, quiet=True)
    assert not post.converged


def test_gross_outliers_move_student_t_little_and_normal_much(frame: pd.DataFrame) -> None:
    random = np.random.default_rng(0)
    spoilt = frame.copy()
    at = random.choice(len(frame), len(frame) // 20, replace=False)
    spoilt.loc[spoilt.index[at], "lfc"] += random.choice([-8.0, 8.0], len(at))
    moved = {}
    for likelihood in ("student_t", "normal"):
        clean, dirty = (
            fitted(table, likelihood=likelihood, noise="global", draws=400).moments("effect")["mean"].to_numpy()
            for table in (frame, spoilt)
        )
        moved[likelihood] = float(np.sqrt(((clean - dirty) ** 2).mean()))
    assert moved["student_t"] < 0.5 * moved["normal"]


def test_predicted_rows_have_the_scatter_of_the_fit(frame: pd.DataFrame) -> None:
    """Rows of a replicate with a larger noise scale are predicted more widely."""
    noisy = frame.copy()
    wide = noisy["depmap_id"] == noisy["depmap_id"].unique()[0]
    noisy.loc[wide, "lfc"] += np.random.default_rng(1).normal(0, 3, int(wide.sum()))
    post = fitted(noisy, likelihood="student_t", noise="line", draws=200)
    screen = read_screen(noisy)
    rows = vihier.posterior_predictive(post, screen, draws=200).to_numpy()[0]
    spread = np.subtract(*np.quantile(rows, [0.75, 0.25], axis=0))
    label = noisy["depmap_id"].unique()[0]
    at = screen.index.lines[screen.line] == label
    assert np.median(spread[at]) > 2 * np.median(spread[~at])
