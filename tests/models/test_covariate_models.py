"""`covariate` and `multi_screen`: their rows' means by label, the truth recovered, and what is stored with a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import vihier
from vihier.cli import main
from vihier.errors import VihierError
from vihier.inference.batches import full_batch
from vihier.inference.covariates import read_covariates
from vihier.inference.device import run_on
from vihier.models.program import load_program
from vihier.screen import read_screen

CPU, F64 = torch.device("cpu"), torch.float64


def made_screen(n_genes: int = 24, n_lines: int = 16, seed: int = 1) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Draw rows of two libraries in two lineages, and what they were made from."""
    random = np.random.default_rng(seed)
    genes, lines = np.arange(n_genes), np.arange(n_lines)
    truth = {
        "kappa": random.normal(-0.4, 0.3, n_genes),
        "kappa_line": random.normal(0, 0.2, n_lines),
        "phi": random.normal(0, 0.3, (n_genes, 2)),
        "rho": random.normal(0, 0.3, (n_genes, 2)),
        "gamma": random.normal(0, 0.2, (n_genes, n_lines)),
    }
    copies, rna = random.normal(1, 0.4, (n_genes, n_lines)), random.normal(3, 1.0, (n_genes, n_lines))
    score = (rna - rna.mean(1, keepdims=True)) / rna.std(1, keepdims=True)
    rows = []
    for g in genes:
        for k in range(6):
            alpha = random.normal(-0.3, 0.3)
            library = k % 2
            for c in lines:
                mean = alpha + truth["gamma"][g, c] + (copies[g, c] - 1) * (truth["kappa"][g] + truth["kappa_line"][c])
                mean += score[g, c] * truth["phi"][g, c % 2] + truth["rho"][g, library]
                for r in "AB":
                    lfc = mean + 0.3 * random.normal()
                    label = (f"S{g:02d}{k}", f"G{g:02d}", f"ACH-{c:02d}", f"T{c % 2}", r, ("avana", "ky")[library])
                    rows.append((*label, f"b{library}", lfc, copies[g, c], rna[g, c]))
    columns = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "screen", "p_dna_batch", "lfc"]
    return pd.DataFrame(rows, columns=[*columns, "copy_number", "rna_expr"]), truth


TABLE, TRUTH = made_screen()
COLUMNS = ("copy_number", "rna_expr")


def test_means_of_rows_are_those_of_the_formula() -> None:
    screen = read_screen(made_screen(4, 5)[0].assign(is_mutated=lambda x: x["depmap_id"] == "ACH-02"))
    batch, table = full_batch(screen, CPU, F64), screen.to_frame()
    codes = {name: table[name].astype("category").cat.codes.to_numpy() for name in ("hugo_symbol", "depmap_id")}
    g, c, s = codes["hugo_symbol"], codes["depmap_id"], table["sgrna"].astype("category").cat.codes.to_numpy()
    tissue, k = (
        table["lineage"].astype("category").cat.codes.to_numpy(),
        (table["screen"] == "ky").to_numpy().astype(int),
    )
    for name in ("covariate", "multi_screen"):
        with run_on(CPU, F64):
            nodes = pyro.poutine.trace(load_program(name).model).get_trace(batch).nodes
        v = {site: node["value"].numpy() for site, node in nodes.items() if node["type"] == "sample"}
        mean = v["alpha"][s] + v["beta"][c] + v["gamma"][g, c]
        if name == "covariate":
            x = table[["copy_number", "rna_expr", "is_mutated"]].to_numpy(dtype=float).T
            slopes = x[0] * (v["kappa"][g, 0] + v["kappa_line"][c])
            slopes = slopes + x[1] * v["phi"][g, tissue] + x[2] * v["psi"][g, tissue]
            mean = mean + slopes
            gap = v["effect_observed"] - v["effect"]
            at = ~pd.Series(g * 100 + c).duplicated().to_numpy()
            np.testing.assert_allclose(gap[g[at], c[at]], slopes[at], atol=1e-12)
        else:
            w = (table["depmap_id"] + "|" + table["screen"]).astype("category").cat.codes.to_numpy()
            mean = mean + v["zeta"][k] + v["rho"][g, k] + v["omega"][w] + v["tau"][k] + v["xi"][g, k]
            # Of the libraries and batches at hand.
            shift = v["zeta"].mean() + v["tau"].mean() + (v["rho"] + v["xi"]).mean(1, keepdims=True)
            alone = pd.Series(v["alpha"]).groupby([label[:3] for label in screen.index.sgrnas]).mean().to_numpy()
            expected = alone[:, None] + v["beta"] + v["gamma"] + shift
            np.testing.assert_allclose(v["effect"], expected, atol=1e-12)
        np.testing.assert_allclose(nodes["lfc"]["fn"].loc.numpy(), mean, atol=1e-12)


def flat(post: vihier.Posterior, name: str) -> np.ndarray:
    """Draws of a variable, [n, *its shape]."""
    draws = post.draws(name).to_numpy()
    return draws.reshape(-1, *draws.shape[2:])


def standardised(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(truth - mean) / sd of every element, each less its mean over elements, which others may share."""
    draws, truth = draws - draws.mean(1, keepdims=True), truth - truth.mean(0)
    return (truth - draws.mean(0)) / draws.std(0)


def test_slopes_are_recovered_and_stored_with_their_preparation(tmp_path: Path) -> None:
    out = tmp_path / "fit.h5"
    with vihier.fit(TABLE, "covariate", draws=400, out=out, quiet=True) as post:
        assert post.converged
        copies = TABLE.drop_duplicates(["hugo_symbol", "depmap_id"])["copy_number"]
        prepared = read_covariates(post)
        assert list(prepared) == ["copy_number", "rna_expr"]  # is_mutated is not in the table
        assert float(prepared["copy_number"].learned[0]) == pytest.approx(copies.median(), abs=1e-12)
        for name in ("kappa", "kappa_line", "phi"):
            # An sd of the mean square of n z is sqrt(2 / n), 0.35 for the 16 lines.
            z = standardised(flat(post, name), TRUTH[name])
            assert np.mean(z**2) == pytest.approx(1, abs=0.9), name
        gap = (flat(post, "effect_observed") - flat(post, "effect")).mean(0)
        x, rna = (TABLE.pivot_table(index="hugo_symbol", columns="depmap_id", values=v) for v in COLUMNS)
        slope = flat(post, "kappa").mean(0).reshape(-1, 1) + flat(post, "kappa_line").mean(0)
        score = rna.sub(rna.mean(axis=1), axis=0).div(rna.std(axis=1, ddof=0), axis=0).to_numpy()
        phi = flat(post, "phi").mean(0)[:, np.arange(x.shape[1]) % 2]
        # Stored in float32.
        np.testing.assert_allclose(gap, (x - copies.median()) * slope + score * phi, atol=1e-4)
        # The same rows again: prepared as before, they are predicted as well as noise of 0.3 lets it.
        rows = vihier.predict(post, TABLE.sample(300, random_state=1), draws=200)
        assert (rows["lfc"] - rows["mean"]).std() < 0.35
    with pytest.raises(VihierError, match="holds a fit with covariates"):
        vihier.fit(TABLE, "covariate", draws=400, out=out, quiet=True, covariates={"rna_expr": "off"})


def test_libraries_are_one_fit_with_shared_effects() -> None:
    with vihier.fit(TABLE, "multi_screen", draws=200, quiet=True) as post:
        assert post.converged
        rho, xi = flat(post, "rho"), flat(post, "xi")  # each batch is of one library
        mean = (rho[..., 1] - rho[..., 0] + xi[..., 1] - xi[..., 0]).mean(0)
    expected = TRUTH["rho"][:, 1] - TRUTH["rho"][:, 0]
    # Six sgRNAs of sd 0.3, three a library: the difference is known to 0.25, of 0.42 that there is.
    assert np.corrcoef(mean, expected)[0, 1] > 0.7


def test_terms_are_switched_off_and_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "screen.csv"
    made_screen(4, 5)[0].to_csv(path, index=False)
    out = tmp_path / "fit.h5"
    options = ["fit", str(path), "--out", str(out), "--model", "covariate", "--draws", "50", "--quiet"]
    assert main([*options, "--max-steps", "5", "--covariate", "rna_expr=off"]) == 0
    with vihier.open_posterior(out) as post:
        assert "kappa" in post.variables and not {"phi", "psi"} & set(post.variables)
    capsys.readouterr()
    for bad, said in (
        (
            ["--covariate", "purity=centre"],
            "covariate 'purity': model 'covariate' has no such term; it has copy_number",
        ),
        (["--covariate", "is_mutated=asis"], "covariate 'is_mutated': the screen has no such column"),
        (["--covariate", "copy_number=off", "--covariate", "rna_expr=off"], "none of its columns"),
        (["--covariate", "copy_number=half"], "covariate 'copy_number': half() is not understood"),
    ):
        assert main([*options, "--force", *bad]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
    bare = tmp_path / "bare.csv"
    made_screen(4, 5)[0].drop(columns=["screen", "p_dna_batch"]).to_csv(bare, index=False)
    for arguments, said in (
        (
            ["fit", str(bare), "--out", str(out), "--force", "--model", "multi_screen"],
            "column 'screen': the model needs",
        ),
        (["simulate", str(tmp_path / "s.csv"), "--model", "covariate"], "which a simulated screen lacks"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
