"""A posterior file made by hand, so that what reads one is tested without a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vihier.posterior.reader import Posterior, open_posterior
from vihier.posterior.writer import PosteriorWriter

N_DRAWS = 200


def made_posterior(path: Path, n_genes: int, n_lines: int, n_lineages: int, converged: bool = True) -> Posterior:
    """Write a posterior whose effect[g, c] has mean -g / n_genes - 0.1 (c mod n_lineages) and sd 0.1, and open it."""
    random = np.random.default_rng(0)
    genes = [f"GENE{i:04d}" for i in range(n_genes)]
    lines = [f"ACH-{i:06d}" for i in range(n_lines)]
    lineages = [f"lineage {i:02d}" for i in range(n_lineages)]
    of_line = np.arange(n_lines) % n_lineages
    mean = -np.arange(n_genes)[:, None] / n_genes - 0.1 * of_line
    about = {"model": "additive", "guide": "mean_field", "seed": 0, "priors": {}, "config": "", "screen_hash": ""}
    labels = {"hugo_symbol": genes, "depmap_id": lines, "lineage": lineages}
    with PosteriorWriter(path, labels=labels, n_draws=N_DRAWS, attrs=about) as writer:
        writer.add("sigma")
        writer.write("sigma", np.abs(random.normal(0.5, 0.02, N_DRAWS)))
        writer.add("effect", ("hugo_symbol", "depmap_id"))
        writer.write("effect", mean + random.normal(0, 0.1, (N_DRAWS, n_genes, n_lines)))
        writer.write_group("index", {"lineage_of_line": of_line}, {"lineage_of_line": ("depmap_id",)})
        step = np.arange(0, 1000, 10)
        history = {"step": step, "elbo_per_row": -1 - 30 * np.exp(-step / 40) + random.normal(0, 0.01, len(step))}
        writer.write_group("vi_history", history, dict.fromkeys(history, ("record",)))
        writer.finish(converged=converged)
    return open_posterior(path)


@pytest.fixture
def make_posterior(tmp_path: Path) -> Iterator[Callable[..., Posterior]]:
    opened: list[Posterior] = []

    def make(n_genes: int, n_lines: int, n_lineages: int, converged: bool = True) -> Posterior:
        opened.append(made_posterior(tmp_path / f"{len(opened)}.h5", n_genes, n_lines, n_lineages, converged))
        return opened[-1]

    yield make
    for posterior in opened:
        posterior.close()
