"""A file in our layout that holds a reference posterior is read, and accepted, by the script that scores fits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vihier.posterior.writer import PosteriorWriter

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES = ["A.additive", "A.crossed", "A.gene_lineage"]
LABELS = {"sgrna": "sgrnas", "hugo_symbol": "genes", "depmap_id": "lines", "lineage": "lineages"}
N_DRAWS = 400


def _draws(reference, name, rng):
    """Draws [draw, ...] with the quantiles of a scale, or the mean and sd of a location: one stratum each, shuffled."""
    shape = reference[f"{name}.mean"].shape
    strata = rng.permuted(np.tile((np.arange(N_DRAWS) + 0.5) / N_DRAWS, (*shape, 1)), axis=-1)
    if not name.startswith("sigma"):
        from scipy.stats import norm

        draws = reference[f"{name}.mean"][..., None] + reference[f"{name}.sd"][..., None] * norm.ppf(strata)
        return np.moveaxis(draws, -1, 0)
    q05, q50, q95 = (reference[f"{name}.{quantile}"] for quantile in ("q05", "q50", "q95"))
    knots = np.stack([0 * q05, q05, q50, q95, 2 * q95 - q50])
    flat = [
        np.interp(u, [0, 0.05, 0.5, 0.95, 1], k)
        for u, k in zip(strata.reshape(-1, N_DRAWS), knots.reshape(5, -1).T, strict=True)
    ]
    return np.moveaxis(np.reshape(flat, (*shape, N_DRAWS)), -1, 0)


def _dims(name, shape, model, sizes):
    if model == "gene_lineage" and name == "mu_gamma":
        return ("hugo_symbol", "lineage")
    if len(shape) == 2:
        return ("hugo_symbol", "depmap_id")
    return tuple(next(dim for dim, size in sizes.items() if size == n) for n in shape)


@pytest.mark.parametrize("case", CASES)
def test_a_reference_in_our_layout_is_accepted(case, about, tmp_path):
    source = SHARED / "reference" / case / "reference.npz"
    if not source.exists():
        pytest.skip(f"the reference posteriors are not here ({case})")
    reference = np.load(source, allow_pickle=False)
    labels = {dim: reference[key].tolist() for dim, key in LABELS.items() if key in reference.files}
    sizes = {dim: len(its) for dim, its in labels.items()}
    assert len(set(sizes.values())) == len(sizes), "a length tells the dim"
    names = sorted({key.rsplit(".", 1)[0] for key in reference.files if key.endswith(".mean")})
    path, rng = tmp_path / "fit.h5", np.random.default_rng(0)
    with PosteriorWriter(path, labels=labels, n_draws=N_DRAWS, attrs=about) as writer:
        for name in names:
            writer.add(name, _dims(name, reference[f"{name}.mean"].shape, case.split(".")[1], sizes))
            writer.write(name, _draws(reference, name, rng))
        writer.finish(converged=True)
    script = SHARED / "tools" / "score_reference.py"
    run = subprocess.run([sys.executable, script, path, source], capture_output=True, text=True)
    verdict = run.stdout.splitlines()[-1]
    assert verdict == f"none missing | off: none | {len(names)} variables", run.stdout + run.stderr
    assert run.returncode == 0
