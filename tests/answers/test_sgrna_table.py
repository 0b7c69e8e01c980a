"""The table of sgRNAs against plain loops over the draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known_effects import ESSENTIAL, GENES, KnownEffects, known_draws, write_known
from numpy.testing import assert_allclose

from vihier.answers import control_scaling, sgrna_table
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import open_posterior


@pytest.mark.parametrize("scaled", [False, True])
def test_deviations_and_efficacies_by_hand(scaled: bool, fit: KnownEffects, controls: ControlGenes) -> None:
    scaling = control_scaling(fit.post, controls) if scaled else None
    table = sgrna_table(fit.post, scaling).set_index("sgrna")
    level = 0.0 if scaling is None else scaling.zero.mean()
    assert len(table) == 30
    for number, (_, row) in enumerate(table.iterrows()):
        gene = number % len(GENES)
        assert row["hugo_symbol"] == GENES[gene]
        deviation = fit.draws["alpha_dev"][:, number].astype(np.float64)
        # Moments are of float32 draws.
        assert_allclose([row["alpha_dev"], row["sd"]], [deviation.mean(), deviation.std(ddof=1)], rtol=1e-5, atol=1e-6)
        effect = fit.draws["effect_gene"][:, gene] - level
        if (effect < 0).mean() < 0.95:
            assert np.isnan(row["efficacy"]) and np.isnan(row["efficacy_sd"])
            continue
        shares = []
        for draw, of_gene in enumerate(effect):
            effects = of_gene + fit.draws["alpha_dev"][draw, gene :: len(GENES)]
            share = (of_gene + deviation[draw]) / effects.min() if effects.min() < 0 else 0.0
            shares.append(min(max(share, 0.0), 1.0))
        assert_allclose([row["efficacy"], row["efficacy_sd"]], [np.mean(shares), np.std(shares, ddof=1)], atol=1e-5)
    assert table.loc[table["hugo_symbol"].isin(ESSENTIAL), "efficacy"].notna().all()


def test_deviations_of_a_gene_add_up_to_nothing(fit: KnownEffects) -> None:
    total = sgrna_table(fit.post).groupby("hugo_symbol")["alpha_dev"].sum()
    assert_allclose(total, 0, atol=1e-6)  # float32 draws


@pytest.mark.usefixtures("one_gene_at_a_time")
def test_blocks_of_four_give_the_same(fit: KnownEffects, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = sgrna_table(fit.post)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(streamed, sgrna_table(fit.post))


def test_a_model_without_effects_of_sgrnas_is_refused(tmp_path: Path) -> None:
    path = write_known(tmp_path / "fit.h5", {"effect": known_draws()["effect"]})
    with open_posterior(path) as post, pytest.raises(VihierError, match="no effects of sgRNAs"):
        sgrna_table(post)
