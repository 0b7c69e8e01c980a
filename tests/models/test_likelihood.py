"""Likelihoods of rows: what is accepted, what a program samples, and densities beside scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy import stats

from vihier.errors import VihierError
from vihier.inference.batches import full_batch
from vihier.inference.device import run_on
from vihier.inference.labels import line_screens
from vihier.models.likelihood import Likelihood
from vihier.models.program import load_program, model_names
from vihier.screen import read_screen

CPU, F64 = torch.device("cpu"), torch.float64


def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = [
        (f"S{g}{k}", f"G{g}", f"ACH-{c}", "skin", "AB"[r], ("broad", "sanger")[k % 2], random.normal())
        for g in range(3)
        for k in range(2)
        for c in range(3)
        for r in range(2)
    ]
    columns = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "screen", "lfc"]
    return pd.DataFrame(rows, columns=columns).assign(copy_number=1.2, rna_expr=0.3, is_mutated=False)


def trace(likelihood: Likelihood, table: pd.DataFrame, model: str = "additive"):
    batch = full_batch(read_screen(table), CPU, F64)
    with run_on(CPU, F64):
        return pyro.poutine.trace(load_program(model, None, likelihood).model).get_trace(batch), batch


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize("noise", ["global", "screen", "line", "replicate"])
@pytest.mark.parametrize(("family", "nu"), [("normal", "global"), ("student_t", "global"), ("student_t", "screen")])
def test_rows_have_the_density_that_they_are_said_to_have(model: str, noise: str, family: str, nu: str) -> None:
    likelihood = Likelihood(family, noise, nu)
    found, batch = trace(likelihood, frame(), model)
    fn, lfc = found.nodes["lfc"]["fn"], batch.lfc
    table = read_screen(frame()).to_frame()
    site = "sigma" if noise == "global" else f"sigma_{noise}"
    sigma = found.nodes[site]["value"].numpy()
    if noise != "global":
        replicates = table[["depmap_id", "replicate_id", "screen"]].agg("|".join, axis=1)
        codes = replicates if noise == "replicate" else table["depmap_id" if noise == "line" else "screen"]
        sigma = sigma[np.unique(codes, return_inverse=True)[1]]
    mean = getattr(fn, "loc", None).expand(fn.batch_shape).numpy()
    if family == "normal":
        expected = stats.norm.logpdf(lfc.numpy(), mean, sigma)
    else:
        freedom = found.nodes["nu"]["value"].numpy()
        if nu == "screen":
            freedom = freedom[np.unique(table["screen"], return_inverse=True)[1]]
        expected = stats.t.logpdf(lfc.numpy(), freedom, mean, sigma)
    np.testing.assert_allclose(fn.log_prob(lfc).numpy(), expected, atol=1e-10)


def test_noise_scales_of_replicates_are_around_those_of_their_line_in_their_screen() -> None:
    found, batch = trace(Likelihood("normal", "replicate"), frame())
    names = ("sigma", "sigma_sigma", "sigma_sigma_line_screen", "sigma_line_screen", "sigma_replicate")
    values = {name: found.nodes[name]["value"] for name in names}
    index = read_screen(frame()).index
    labels, codes = line_screens(index)
    assert labels.tolist() == [f"ACH-{c}|{screen}" for c in range(3) for screen in ("broad", "sanger")]
    for code, replicate in zip(codes, index.replicates, strict=True):
        line, _, screen = replicate.split("|")
        assert labels[code] == f"{line}|{screen}"
    assert batch.line_screen_of_replicate.tolist() == codes.tolist()
    around = {
        "sigma_line_screen": (values["sigma"].log(), values["sigma_sigma_line_screen"]),
        "sigma_replicate": (values["sigma_line_screen"].log()[codes], values["sigma_sigma"]),
    }
    for name, (centre, spread) in around.items():
        expected = stats.norm.logpdf(values[name].log(), centre, spread)
        mine = found.nodes[name]["fn"].log_prob(values[name]) + values[name].log()
        np.testing.assert_allclose(mine.numpy(), expected, atol=1e-10)
    assert found.nodes["sigma_replicate"]["fn"].batch_shape == (12,)


def test_without_a_column_of_screens_a_line_is_one() -> None:
    index = read_screen(frame().drop(columns="screen")).index
    labels, codes = line_screens(index)
    assert labels.tolist() == index.lines.tolist() and codes.tolist() == index.line_of_replicate.tolist()


def test_noise_scales_of_lines_are_log_normal_around_the_common_one() -> None:
    found, _ = trace(Likelihood("normal", "line"), frame())
    values = {name: found.nodes[name]["value"] for name in ("sigma", "sigma_sigma", "sigma_line")}
    expected = stats.norm.logpdf(values["sigma_line"].log(), values["sigma"].log(), values["sigma_sigma"])
    mine = found.nodes["sigma_line"]["fn"].log_prob(values["sigma_line"]) + values["sigma_line"].log()
    np.testing.assert_allclose(mine.numpy(), expected, atol=1e-10)


def test_known_degrees_of_freedom_are_no_site() -> None:
    found, _ = trace(Likelihood("student_t", "global", 5.0), frame())
    assert "nu" not in found.nodes
    assert float(found.nodes["lfc"]["fn"].df.reshape(-1)[0]) == 5.0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("laplace", "global", "global"), "likelihood 'laplace'"),
        (("normal", "gene", "global"), "noise 'gene'"),
        (("student_t", "global", "line"), "nu 'line'"),
        (("student_t", "global", -1.0), "nu -1.0"),
        (("student_t", "global", float("nan")), "nu nan"),
    ],
)
def test_what_is_not_known_is_refused_by_name(given: tuple[str, str, str | float], named: str) -> None:
    with pytest.raises(VihierError, match=named):
        Likelihood(*given)


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(VihierError, match="column 'screen'"):
        trace(Likelihood("normal", "screen"), frame().drop(columns="screen"))


def test_a_program_of_ones_own_says_itself_how_rows_scatter() -> None:
    with pytest.raises(VihierError, match="leave it and noise out"):
        load_program(lambda batch: None, None, Likelihood("student_t"))


def test_settings_are_read_back() -> None:
    for likelihood in (Likelihood(), Likelihood("student_t", "line", 4.0), Likelihood("student_t", "replicate")):
        assert Likelihood.of_settings(likelihood.settings) == likelihood
    assert Likelihood.of_settings({"model": "additive"}) == Likelihood()
