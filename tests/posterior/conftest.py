"""A small posterior file of known draws, for every test of the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vihier.posterior.writer import PosteriorWriter

ABOUT = {
    "model": "additive",
    "guide": "structured",
    "seed": 3,
    "priors": {"mu_gamma": "Normal(0, 5)"},
    "config": "model = 'additive'\n",
    "screen_hash": "0" * 64,
}


@dataclass(frozen=True)
class KnownFit:
    """Labels, dims and draws [draw, ...] of a fit."""

    labels: dict[str, list[str]]
    dims: dict[str, tuple[str, ...]]
    draws: dict[str, np.ndarray]
    gene_of_sgrna: np.ndarray
    lineage_of_line: np.ndarray

    def write(self, path: Path, **finish: Any) -> Path:
        """Write the file a fit would write."""
        with PosteriorWriter(path, labels=self.labels, n_draws=len(self.draws["sigma"]), attrs=ABOUT) as writer:
            for name, dims in self.dims.items():
                writer.add(name, dims)
                writer.write(name, self.draws[name])
            writer.write_group("vi_history", {"elbo_per_row": np.arange(5.0)}, {"elbo_per_row": ("step",)})
            log_p = np.zeros((1, len(self.draws["sigma"])))
            writer.write_group("sample_stats", {"log_p": log_p}, {"log_p": ("chain", "draw")})
            writer.write_group(
                "index",
                {"gene_of_sgrna": self.gene_of_sgrna, "lineage_of_line": self.lineage_of_line},
                {"gene_of_sgrna": ("sgrna",), "lineage_of_line": ("depmap_id",)},
            )
            writer.finish(**{"converged": True, **finish})
        return path


@pytest.fixture
def about() -> dict[str, Any]:
    """Root attributes that a fit gives."""
    return dict(ABOUT)


@pytest.fixture(scope="session")
def known() -> KnownFit:
    """5 genes, 9 sgRNAs scattered over them, 7 lines of 3 lineages, 200 draws."""
    rng = np.random.default_rng(20)
    labels = {
        "sgrna": [f"{letters}GATTACA" for letters in ("AA", "AC", "AG", "AT", "CA", "CC", "CG", "CT", "GA")],
        "hugo_symbol": ["BRAF", "KRAS", "MYC", "NRAS", "TP53"],
        "depmap_id": [f"ACH-{number:06d}" for number in (1, 4, 5, 9, 17, 23, 40)],
        "lineage": ["bone", "lung", "skin"],
    }
    dims: dict[str, tuple[str, ...]] = {
        "sigma": (),
        "alpha": ("sgrna",),
        "beta": ("depmap_id",),
        "mu_beta": ("lineage",),
        "sigma_gamma": ("hugo_symbol",),
        "gamma": ("hugo_symbol", "depmap_id"),
        "effect": ("hugo_symbol", "depmap_id"),
    }
    draws = {
        name: rng.normal(-0.3, 0.5, size=(200, *(len(labels[dim]) for dim in its))).astype(np.float32)
        for name, its in dims.items()
    }
    return KnownFit(
        labels=labels,
        dims=dims,
        draws={name: np.abs(x) if name.startswith("sigma") else x for name, x in draws.items()},
        gene_of_sgrna=np.array([0, 1, 2, 3, 4, 0, 1, 2, 3]),
        lineage_of_line=np.array([2, 0, 2, 1, 0, 2, 1]),
    )


@pytest.fixture(scope="session")
def fit_file(known: KnownFit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One such file; tests read it and leave it as it is."""
    return known.write(tmp_path_factory.mktemp("posterior") / "fit.h5")


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Call something that must be refused, and give back the one line it is refused with."""
    from vihier.errors import VihierError

    def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        with pytest.raises(VihierError) as caught:
            call(*args, **kwargs)
        message = str(caught.value)
        assert message and "\n" not in message
        return message

    return refused
