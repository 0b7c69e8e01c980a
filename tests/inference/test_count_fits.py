"""Fits of read counts: what they are of, what is refused, what their files say, and what they predict."""

from __future__ import annotations

import math
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import vihier
from vihier.cli import main
from vihier.diagnostics.leave_one_out import leave_rows_out
from vihier.errors import VihierError
from vihier.inference.likelihoods import WHOLE_FROM_GENES, chosen_likelihood
from vihier.inference.predict import posterior_predictive, prior_predictive, program_of
from vihier.inference.predict_table import coverage, predict
from vihier.inference.predictor import Predictor
from vihier.inference.request import FitRequest
from vihier.models.likelihood import Likelihood
from vihier.screen import read_screen

# Models of whose rows' means other tables than those of sgRNAs, genes and lines are a part, or not all of these.
OTHER_TABLES = {
    "covariate": "gene",
    "covariate_correlated": "gene",
    "multi_screen": "sgrna_row",
    "gene_lineage": "sgrna",
}
NOISE, EFFECTS = 0.3, {"DEAD": -3.0, "SICK": -1.0, "NONE": 0.0, "FAST": 0.7}


def counts_of(effects: dict[str, float], *, depth: float = 150.0, noise: float = NOISE, seed: int = 0) -> pd.DataFrame:
    """Counts whose genes have these effects in every line, of four sgRNAs that differ in abundance alone."""
    random = np.random.default_rng(seed)
    rows = [
        (f"{gene}{k}", gene, f"ACH-{c}", "skin" if c % 2 else "lung", "AB"[r], depth * 2.0 ** (k - 1), effect)
        for gene, effect in effects.items()
        for k in range(4)
        for c in range(8)
        for r in range(2)
    ]
    names = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "counts_expected", "effect"]
    frame = pd.DataFrame(rows, columns=names)
    mean = frame["counts_expected"] * 2 ** frame.pop("effect")
    frame["counts_final"] = random.poisson(mean * random.gamma(noise**-2, noise**2, len(frame)))
    return frame.assign(lfc=np.log2((frame["counts_final"] + 1) / frame["counts_expected"]))


def fitted(frame: pd.DataFrame, **options: object) -> vihier.Posterior:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vihier.fit(frame, likelihood="negative_binomial", quiet=True, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def post() -> vihier.Posterior:
    return fitted(counts_of(EFFECTS), draws=400)


@pytest.mark.parametrize(
    "model", ["additive", "gene_lineage", "crossed", "covariate", "covariate_correlated", "multi_screen"]
)
def test_effects_are_log2_relative_to_what_is_expected(model: str) -> None:
    frame = counts_of(EFFECTS)
    if model.startswith("covariate"):
        frame["copy_number"] = frame.groupby(["hugo_symbol", "depmap_id"]).ngroup() % 5 / 4
    if model == "multi_screen":
        frame["screen"] = np.where(frame["sgrna"].str.endswith(("0", "1")), "broad", "sanger")
    posterior = fitted(frame, model=model, dispersion=OTHER_TABLES.get(model, "global"), draws=200)
    # 64 counts of a gene, of sds near 0.3 / ln 2 = 0.43: its mean errs by 0.06; those of DEAD, of 19 reads, by 0.09.
    for gene, effect in EFFECTS.items():
        assert float(posterior.draws("effect", hugo_symbol=gene).mean()) == pytest.approx(effect, abs=0.25)
    # 256 counts tell their noise to 5 %, and it is 0.3; less of it where genes or sgRNAs have a factor of their own, of
    # which some rows or the level of all are a part.
    assert float(posterior.draws("sigma").mean()) == pytest.approx(NOISE, abs=0.1 if model in OTHER_TABLES else 0.05)


def test_files_say_what_rows_are(post: vihier.Posterior) -> None:
    config = tomllib.loads(post.attrs["config"])
    assert (config["likelihood"], config["noise"], config["dispersion"]) == ("negative_binomial", "global", "global")
    assert Likelihood.of_settings(post.config) == Likelihood("negative_binomial")
    assert post.summary("effect", hugo_symbol="DEAD")["mean"].lt(-2).all()


def test_dispersion_is_of_genes_and_falls_with_abundance() -> None:
    random = np.random.default_rng(3)
    effects = {f"G{i}": 0.0 for i in range(8)}
    frame = counts_of(effects, depth=2000.0, seed=1)
    power, factor = 0.4, {gene: 0.5 if i % 2 else 1.5 for i, gene in enumerate(effects)}
    noise = 0.4 * frame["hugo_symbol"].map(factor) * (frame["counts_expected"] / 300) ** -power
    frame["counts_final"] = random.poisson(frame["counts_expected"] * random.gamma(noise**-2, noise**2))
    posterior = fitted(frame, dispersion="gene_abundance", draws=200)
    # 64 counts tell a gene's noise to 9 %, all 512 the power of a range of ln 8 to some 0.04.
    relative = posterior.draws("dispersion_gene").mean(("chain", "draw"))
    found = np.log(relative.to_numpy()) - np.log(relative.to_numpy()).mean()
    expected = np.log([factor[gene] for gene in relative["hugo_symbol"].to_numpy()])
    np.testing.assert_allclose(found, expected - expected.mean(), atol=0.35)
    assert float(posterior.draws("abundance_power").mean()) == pytest.approx(power, abs=0.15)


def test_some_sgrnas_and_some_rows_are_noisier() -> None:
    random = np.random.default_rng(5)
    effects = {f"G{i}": 0.0 for i in range(16)}
    frame = counts_of(effects, depth=400.0, seed=1)
    factor = {sgrna: 0.5 if i % 2 else 1.5 for i, sgrna in enumerate(sorted(frame["sgrna"].unique()))}
    noisier = random.random(len(frame)) < 0.1
    noise = 0.2 * frame["sgrna"].map(factor) * np.where(noisier, 5.0, 1.0)
    frame["counts_final"] = random.poisson(frame["counts_expected"] * random.gamma(noise**-2, noise**2))
    posterior = fitted(frame, dispersion="sgrna_row", draws=200)
    relative = posterior.draws("dispersion_sgrna").mean(("chain", "draw"))
    found = pd.Series(np.log(relative.to_numpy()), relative["sgrna"].to_numpy())
    expected = np.log(pd.Series(factor))[found.index]
    # 16 counts tell an sgRNA's noise to 0.2 beside the spread of 0.55 that it is shrunk to, 64 sgRNAs a slope to 10 %.
    assert np.polyfit(expected - expected.mean(), found - found.mean(), 1)[0] == pytest.approx(0.85, abs=0.2)
    # 1,024 counts, 100 of them noisier, whose noise is told to 10 %, by ln 5.
    assert float(posterior.draws("noisy_rows").mean()) == pytest.approx(math.log(5), abs=0.4)
    new = frame.assign(counts_final=random.poisson(frame["counts_expected"] * random.gamma(noise**-2, noise**2)))
    # 1,024 counts: a share of 0.9 errs by 0.01; of 0.5, by 0.016.
    table = predict(posterior, new.drop(columns="lfc"), draws=100)
    assert 0.86 < coverage(table, 0.9, "counts_final") < 0.94


def test_new_counts_are_covered(post: vihier.Posterior) -> None:
    new = counts_of(EFFECTS, seed=9)
    table = predict(post, new.drop(columns="lfc"))
    assert {"mean", "sd", "log_density", "counts_final"} <= set(table)
    # 256 counts: a share of 0.9 errs by 0.02; intervals of whole numbers cover a little more than they say.
    assert 0.86 < coverage(table, 0.9, "counts_final") < 0.97
    mean = EFFECTS["NONE"]
    none = table[table["hugo_symbol"] == "NONE"]
    np.testing.assert_allclose(none["mean"], none["counts_expected"] * 2**mean, rtol=0.35)
    assert table["log_density"].mean() == pytest.approx(
        stats.nbinom.logpmf(
            table["counts_final"],
            NOISE**-2,
            1 / (1 + NOISE**2 * table["counts_expected"] * 2 ** table["hugo_symbol"].map(EFFECTS)),
        ).mean(),
        abs=0.15,
    )
    without = predict(post, new.drop(columns=["lfc", "counts_final"]))
    assert "log_density" not in without
    np.testing.assert_allclose(without["mean"], table["mean"])


def test_drawn_rows_are_counts(post: vihier.Posterior) -> None:
    screen = read_screen(counts_of(EFFECTS))
    for drawn in (posterior_predictive(post, screen, draws=20), prior_predictive(screen, program_of(post), draws=3)):
        assert drawn.name == "counts"
        values = drawn.to_numpy()
        assert (values >= 0).all()
        np.testing.assert_array_equal(values, np.floor(values))


def test_refine_refuses_counts(post: vihier.Posterior) -> None:
    with pytest.raises(VihierError, match="its rows are read counts, which refine does not take"):
        vihier.refine(post, read_screen(counts_of(EFFECTS)), genes=["DEAD", "NONE"])


def test_leave_one_out_is_over_whole_draws(post: vihier.Posterior) -> None:
    predictor = Predictor.of(post, read_screen(counts_of(EFFECTS)), program_of(post))
    with pytest.raises(VihierError, match="use --method draws"):
        leave_rows_out(predictor)
    assert np.isfinite(leave_rows_out(predictor, method="draws").elpd).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"counts_final": 2.5}, "column 'counts_final', sgRNA DEAD0 in line ACH-0: 2.5 is no count"),
        ({"counts_final": -1}, "column 'counts_final', sgRNA DEAD0 in line ACH-0: -1 is no count"),
        ({"counts_final": np.nan}, "column 'counts_final', sgRNA DEAD0 in line ACH-0: nan is no count"),
        ({"counts_expected": 0.0}, "column 'counts_expected', sgRNA DEAD0 in line ACH-0: 0 is no expected number"),
        ({"counts_expected": np.nan}, "column 'counts_expected', sgRNA DEAD0 in line ACH-0: nan is no expected number"),
        ({"counts_final": "many"}, "column 'counts_final'"),
    ],
)
def test_counts_that_cannot_be_are_refused(change: dict[str, object], named: str) -> None:
    frame = counts_of({"DEAD": -3.0, "NONE": 0.0})
    for name, value in change.items():
        frame[name] = frame[name].astype(object if isinstance(value, str) else float)
        frame.loc[0, name] = value
    with pytest.raises(VihierError, match=named):
        fitted(frame)


@pytest.mark.parametrize("name", ["counts_final", "counts_expected"])
def test_missing_columns_are_refused_with_the_cure(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts_of(EFFECTS).drop(columns=name).to_csv(tmp_path / "screen.csv", index=False)
    command = [
        "fit",
        str(tmp_path / "screen.csv"),
        "--likelihood",
        "negative_binomial",
        "--out",
        str(tmp_path / "f.h5"),
    ]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert said.splitlines() == [said]
    assert f"column {name!r}" in said
    assert "--keep-counts" in said
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dispersion": "gene"}, "dispersion 'gene': only counts have one"),
        ({"likelihood": "student_t", "dispersion": "gene"}, "dispersion 'gene': only counts have one"),
        ({"likelihood": "negative_binomial", "dispersion": "line"}, "dispersion 'line': not known"),
    ],
)
def test_dispersions_that_cannot_be_are_refused(options: dict[str, str], named: str) -> None:
    with pytest.raises(VihierError, match=named):
        vihier.fit("no such file", **options)  # type: ignore[arg-type]


def test_whole_screens_have_noise_by_replicate_and_dispersion_by_sgrna_abundance_and_row() -> None:
    names = [f"G{i:03}" for i in range(WHOLE_FROM_GENES)]
    table = {"sgrna": names, "hugo_symbol": names, "depmap_id": "ACH-1", "lineage": "skin", "lfc": 0.1}
    large = read_screen(pd.DataFrame({**table, "counts_final": 5, "counts_expected": 4.0}))
    small = read_screen(counts_of(EFFECTS))
    ask = FitRequest(likelihood="negative_binomial")
    rich = Likelihood("negative_binomial", "replicate", dispersion="sgrna_abundance_row")
    assert chosen_likelihood(ask, large) == rich
    assert chosen_likelihood(ask, small) == Likelihood("negative_binomial")
