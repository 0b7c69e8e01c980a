"""Fits with the structured guide: agreement with NUTS, invariances, and knowing when it is wrong."""

from __future__ import annotations

import functools
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ragged import ragged_frame

import vihier
from vihier.guides import interweave, structured_fit
from vihier.guides.trust import guide_trust
from vihier.inference.device import run_on

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference posteriors (../shared) are not here")


def fitted(frame, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vihier.fit(frame, quiet=True, **options)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("case", ["A.additive", "A.gene_lineage", "A.crossed", "S.additive"])
def test_agrees_with_nuts_as_the_independent_check_asks(case: str, tmp_path: Path) -> None:
    folder = SHARED / "reference" / case
    out = tmp_path / "fit.h5"
    fitted(str(folder / "data.csv.gz"), model=case.split(".")[1], draws=4000, out=out)
    script = SHARED / "tools" / "score_reference.py"
    command = [sys.executable, str(script), str(out), str(folder / "reference.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "none missing" in done.stdout, done.stdout
    off = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("BAD")]
    with np.load(folder / "reference.npz") as reference, vihier.open_posterior(out) as posterior:
        for name in off:
            assert name.startswith("sigma"), done.stdout
            assert quantiles_within_monte_carlo_error(posterior.draws(name).to_numpy()[0], reference, name), done.stdout


def quantiles_within_monte_carlo_error(draws: np.ndarray, reference, name: str) -> bool:
    """Whether a scale's quantiles are within three combined Monte Carlo errors of the reference's.

    The error of a quantile is sqrt(p (1 - p) / ESS) over the density there. Of the draws, four come from one chain, so
    half of them is a cautious ESS.
    """
    for p, label in ((0.05, "q05"), (0.5, "q50"), (0.95, "q95")):
        width = (np.quantile(draws, p + 0.03, axis=0) - np.quantile(draws, p - 0.03, axis=0)) / 0.06
        error = width * np.sqrt(p * (1 - p) * (1 / reference[f"{name}.ess"] + 2 / len(draws)))
        if (np.abs(np.quantile(draws, p, axis=0) - reference[f"{name}.{label}"]) > 3 * error).any():
            return False
    return True


@pytest.fixture(scope="module")
def small():
    return ragged_frame(sgrnas=(2, 3, 4, 3, 2, 5, 4, 3), n_lines=8)


def test_same_seed_same_bits_and_row_order_does_not_matter(small) -> None:
    first = fitted(small, draws=50, seed=3)
    again = fitted(small.sample(frac=1.0, random_state=1), draws=50, seed=3)
    other = fitted(small, draws=50, seed=4)
    for name in ("gamma", "sigma_alpha", "beta", "effect"):
        np.testing.assert_array_equal(first.draws(name), again.draws(name))
    assert not np.array_equal(first.draws("sigma"), other.draws("sigma"))


def test_single_precision_gives_the_same_posterior(small) -> None:
    double, single = (fitted(small, draws=400, seed=3, dtype=dtype) for dtype in ("float64", "float32"))
    for name in ("effect", "sigma"):
        one, other = double.draws(name).to_numpy()[0], single.draws(name).to_numpy()[0]
        # Means of 400 draws of either, autocorrelated in chains of eight: twice the error of independent ones is ample.
        z = np.abs(one.mean(0) - other.mean(0)) / one.std(0)
        assert z.max() < 4.5 * 2 * np.sqrt(2 / 400), name


def test_rows_that_single_precision_cannot_resolve_are_swept_in_double() -> None:
    """Noise 300 times smaller than effects: the Cholesky factor of the genes' precision fails in float32."""
    random = np.random.default_rng(0)
    keys = [(f"{'ACG'[k]}{g}", f"GENE{g}", f"ACH-{c}", "ab"[c % 2], "AB"[r]) for g, k, c, r in np.ndindex(6, 3, 12, 2)]
    frame = pd.DataFrame(keys, columns=["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id"])
    level = frame["sgrna"].map(dict(zip(frame["sgrna"].unique(), 3 * random.normal(size=18), strict=True)))
    frame["lfc"] = level + 0.01 * random.normal(size=len(frame))
    posterior = fitted(frame, draws=200)
    sigma = posterior.draws("sigma").to_numpy()
    # 432 rows know sigma to 3.4 %; the locations take some of its degrees of freedom.
    assert 0.008 < sigma.mean() < 0.012
    means = frame.groupby(["hugo_symbol", "depmap_id"])["lfc"].mean().to_xarray()
    np.testing.assert_allclose(posterior.moments("effect")["mean"], means, atol=0.03)


def test_stopped_after_five_steps_it_says_that_it_did_not_converge(small) -> None:
    with pytest.warns(UserWarning, match="did not converge"):
        posterior = vihier.fit(small, draws=20, max_steps=5, quiet=True)
    assert not posterior.converged
    assert "5 steps" in posterior.attrs["reason"]


def test_diagnostics_are_in_the_file(small) -> None:
    posterior = fitted(small, draws=100)
    diagnostics = posterior.group("diagnostics")
    assert diagnostics["khat"].dims == ("hugo_symbol",)
    assert np.isfinite(float(diagnostics["khat_globals"]))
    assert int(diagnostics["sweeps"]) > 0
    # 13 chains, whose means differ by chance up to four standard errors.
    assert 0 <= float(diagnostics["sweep_drift"]) < 0.2 + 4 * np.sqrt(2 / 13)
    stats = posterior.group("sample_stats")
    assert np.isfinite(stats["log_p"]).all()
    assert np.isfinite(stats["log_q"]).all()


@pytest.mark.parametrize("model", ["additive", "gene_lineage"])
def test_halved_sds_are_noticed_by_khat(model: str) -> None:
    """A guide with half the sd has weights of infinite variance: k-hat near 1 - 1/4 in each of several dimensions."""
    from vihier.guides.block import make_block
    from vihier.guides.structure import read_structure
    from vihier.guides.structured_fit import Settings, _Fitter
    from vihier.inference.batches import GeneBlocks, full_batch
    from vihier.inference.progress import Silent
    from vihier.models.program import load_program
    from vihier.screen import read_screen

    screen = read_screen(ragged_frame(sgrnas=(4,) * 24, n_lines=48))
    with run_on(torch.device("cpu"), torch.float64):
        structure = read_structure(load_program(model).model, GeneBlocks(screen, 2)[0])
        whole = make_block(structure, full_batch(screen))
        fitter = _Fitter(structure, [whole], True, screen, 1, Settings(), Silent())
        fitter.start(None)
        fit = fitter.draw(1000, *fitter.optimise())
        guide = fit.guide

        def khat(n: int = 6) -> float:
            """Mean of several estimates: each, from 500 draws, is off by some 0.15."""
            keyed = [functools.partial(fitter._random, "again", i) for i in range(n)]
            with torch.no_grad():
                found = [guide_trust(structure, guide, [whole], fit.frozen, random).globals for random in keyed]
            return float(np.mean(found))

        intact = khat()
        guide.log_diagonal -= np.log(2)
        guide.gene_log_diagonal -= np.log(2)
        guide.gene_lower /= 2
        assert guide.lower is not None
        guide.lower /= 2
        halved = khat()
    assert intact < 0.6
    assert halved > 0.7


def test_chains_that_still_move_are_swept_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spreads between and within genes trade places slowly where genes have few sgRNAs, but for the moves that leap."""
    monkeypatch.setattr(interweave, "sgrna_spread", lambda structure: None)
    table = tmp_path / "screen.parquet"
    vihier.simulate(table, genes=60, lines=60, lineages=6, seed=1)
    with vihier.fit(table, "additive", draws=1000, quiet=True) as post:
        assert post.converged and int(post.group("diagnostics")["sweeps"]) > 30
    monkeypatch.setattr(structured_fit, "LONGER", ())
    with pytest.warns(vihier.FitWarning, match="chains were still moving"):
        vihier.fit(table, "additive", draws=1000, quiet=True).close()
