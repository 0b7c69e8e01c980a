"""A fit whose draws are known: correlated effects of 12 genes in 7 lines, 2 chains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from vihier.posterior.reader import Posterior
from vihier.posterior.writer import PosteriorWriter

ESSENTIAL = ("RPL3", "RPL4", "RPS5", "RPS6")
NONESSENTIAL = ("KRT1", "KRT2", "OR1A1", "OR2A1")
GENES = sorted([*ESSENTIAL, *NONESSENTIAL, "BRAF", "KRAS", "SOX10", "TP53"])
LINES = [f"ACH-{number:06d}" for number in (1, 4, 5, 9, 17, 23, 40)]
LINEAGES = ["bone", "lung", "skin"]
LINEAGE_OF_LINE = np.array([2, 0, 2, 1, 0, 2, 1])
REPLICATES = sorted(f"{line}|{replicate}" for line in LINES for replicate in "AB")[:-1]
N_CHAINS, N_DRAWS = 2, 150


@dataclass(frozen=True, eq=False)
class KnownEffects:
    """The file, and the draws that are in it, chains one after another."""

    path: Path
    post: Posterior
    draws: dict[str, np.ndarray]

    @property
    def effect(self) -> xr.DataArray:
        """[draw, gene, line]."""
        coords = {"gene": GENES, "line": LINES, "lineage": ("line", np.array(LINEAGES)[LINEAGE_OF_LINE])}
        return xr.DataArray(self.draws["effect"].astype(np.float64), dims=("draw", "gene", "line"), coords=coords)


def known_draws() -> dict[str, np.ndarray]:
    """Draws by variable, float32 [chain, draw, ...]."""
    rng = np.random.default_rng(7)
    size = (N_CHAINS, N_DRAWS)
    base = np.array([-1.5 if gene in ESSENTIAL else 0.1 for gene in GENES]) + rng.normal(0, 0.15, len(GENES))
    mean = np.repeat(base[:, None], len(LINES), axis=1)
    mean[GENES.index("BRAF"), LINEAGE_OF_LINE == 2] -= 1.0
    beta = rng.normal(0, 0.3, len(LINES)) + rng.normal(0, 0.1, (*size, len(LINES)))
    # What all lines of a gene share, and all genes of a line: effects whose draws go up and down together.
    gene = rng.normal(0, 0.2, (*size, len(GENES), 1))
    effect = mean + gene + beta[..., None, :] + rng.normal(0, 0.1, (*size, len(GENES), len(LINES)))
    gene_of_sgrna = np.arange(30) % len(GENES)
    alpha = rng.normal(0, 0.5, 30) + rng.normal(0, 0.1, (*size, 30))
    mean_alpha = np.stack([alpha[..., gene_of_sgrna == g].mean(-1) for g in range(len(GENES))], axis=-1)
    draws = {
        "effect": effect,
        "effect_gene": effect.mean(-1),
        "beta_dev": beta - beta.mean(-1, keepdims=True),
        "alpha_dev": alpha - mean_alpha[..., gene_of_sgrna],
        "sigma": np.abs(rng.normal(0.5, 0.01, size)),
    }
    return {name: values.astype(np.float32) for name, values in draws.items()}


DIMS: dict[str, tuple[str, ...]] = {
    "effect": ("hugo_symbol", "depmap_id"),
    "effect_gene": ("hugo_symbol",),
    "beta_dev": ("depmap_id",),
    "alpha_dev": ("sgrna",),
    "sigma": (),
    "sigma_replicate": ("replicate",),
}


def write_known(path: Path, draws: dict[str, np.ndarray], **finish: object) -> Path:
    """Write those of the draws that are given, with the maps of the fit."""
    about = {"model": "additive", "guide": "structured", "seed": 0, "priors": {}, "config": "", "screen_hash": ""}
    labels = {
        "sgrna": [f"SGRNA{number:02d}" for number in range(30)],
        "hugo_symbol": GENES,
        "depmap_id": LINES,
        "lineage": LINEAGES,
    }
    if any("replicate" in DIMS[name] for name in draws):
        labels["replicate"] = REPLICATES
    with PosteriorWriter(path, labels=labels, n_draws=N_DRAWS, n_chains=N_CHAINS, attrs=about) as writer:
        for name, values in draws.items():
            writer.add(name, DIMS[name])
            writer.write(name, values)
        writer.write_group(
            "index",
            {"gene_of_sgrna": np.arange(30) % len(GENES), "lineage_of_line": LINEAGE_OF_LINE},
            {"gene_of_sgrna": ("sgrna",), "lineage_of_line": ("depmap_id",)},
        )
        writer.finish(**{"converged": True, **finish})  # type: ignore[arg-type]
    return path
