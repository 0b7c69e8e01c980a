"""The known fit, its control genes, and blocks as small as they can be."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
from known_effects import ESSENTIAL, NONESSENTIAL, KnownEffects, known_draws, write_known

from vihier.diagnostics.control_genes import ControlGenes
from vihier.posterior.reader import open_posterior


@pytest.fixture(scope="session")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnownEffects]:
    draws = known_draws()
    path = write_known(tmp_path_factory.mktemp("answers") / "fit.h5", draws)
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in draws.items()}
    with open_posterior(path) as post:
        yield KnownEffects(path, post, flat)


@pytest.fixture(scope="session")
def controls() -> ControlGenes:
    return ControlGenes(frozenset({*ESSENTIAL, "ABSENT1"}), frozenset(NONESSENTIAL))


@pytest.fixture
def one_gene_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as small as they can be."""
    # By module: the package's own names are those of the functions.
    sizes = {"effect_draws": ("_BLOCK_BYTES", 1), "export": ("_GENES_AT_ONCE", 1), "sgrna_table": ("_AT_ONCE", 4)}
    for module, (name, size) in sizes.items():
        monkeypatch.setattr(import_module(f"vihier.answers.{module}"), name, size)
