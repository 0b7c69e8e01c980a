"""Hits against xarray on the draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from known_effects import GENES, LINES, KnownEffects
from numpy.testing import assert_allclose

from vihier.answers import control_scaling, false_discovery_rate, hits, local_false_sign_rate
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError

AXIS = {"line": "depmap_id", "lineage": "lineage"}


def by_hand(effect: xr.DataArray, by: str, selective: bool) -> xr.DataArray:
    """Draws of what is asked for, [draw, gene] or [draw, gene, line or lineage]."""
    quantity = {
        "gene": lambda: effect.mean("line"),
        "line": lambda: effect.drop_vars("lineage"),
        "lineage": lambda: effect.groupby("lineage").mean("line"),
    }[by]()
    return quantity - effect.mean("line") if selective else quantity


@pytest.mark.parametrize(
    ("by", "selective", "scaled"),
    [
        ("gene", False, False),
        ("gene", False, True),
        ("line", False, False),
        ("line", True, True),
        ("lineage", False, True),
        ("lineage", True, False),
    ],
)
def test_they_are_what_the_draws_say(
    by: str, selective: bool, scaled: bool, fit: KnownEffects, controls: ControlGenes
) -> None:
    effect = fit.effect
    if scaled:
        scaling = control_scaling(fit.post, controls)
        effect = (effect - scaling.zero) / scaling.unit
    draws = by_hand(effect, by, selective)
    found = hits(fit.post, by, fdr=0.1, selective=selective, controls=controls if scaled else None)  # type: ignore[arg-type]
    lfsr = local_false_sign_rate(draws.values)
    rate = false_discovery_rate(lfsr.ravel()).reshape(lfsr.shape)
    assert found.n_tested == lfsr.size
    # The rates of an effect with a draw within rounding of 0 may differ by one draw of 300: none here is so near 0.1.
    assert len(found.table) == (rate <= 0.1).sum() < lfsr.size
    keys = {"gene": found.table["hugo_symbol"].to_numpy()}
    if by != "gene":
        keys[by] = found.table[AXIS[by]].to_numpy()
    place = {dim: xr.DataArray(labels, dims="hit") for dim, labels in keys.items()}
    of_hits = draws.sel(place)
    assert_allclose(found.table["mean"], of_hits.mean("draw"), atol=1e-5)
    assert_allclose(found.table["sd"], of_hits.std("draw", ddof=1), rtol=1e-4)
    assert_allclose(found.table["prob_negative"], (of_hits < 0).mean("draw"), atol=1 / 300 + 1e-6)
    expected = xr.DataArray(lfsr, dims=draws.dims[1:], coords={d: draws[d] for d in draws.dims[1:]}).sel(place)
    assert_allclose(found.table["lfsr"], expected, atol=1 / 300 + 1e-6)
    assert_allclose(found.expected_wrong, found.table["lfsr"].sum())
    assert found.table["lfsr"].mean() <= 0.1


def test_the_strongest_negative_effects_come_first(fit: KnownEffects) -> None:
    table = hits(fit.post, "line", fdr=0.2).table
    negative = table["mean"] < 0
    n_negative = int(negative.sum())
    assert 0 < n_negative < len(table)
    assert negative[:n_negative].all()
    assert table.loc[negative, "hdi_94.5%"].is_monotonic_increasing
    assert table.loc[~negative, "hdi_5.5%"].is_monotonic_decreasing


def test_a_smallest_effect_calls_fewer(fit: KnownEffects, controls: ControlGenes) -> None:
    found = hits(fit.post, "line", beyond=0.5, controls=controls).table
    assert set(found["hugo_symbol"]) == {"BRAF", "RPL3", "RPL4", "RPS5", "RPS6"}
    assert set(found.loc[found["hugo_symbol"] == "BRAF", "lineage"]) == {"skin"}


def test_everything_is_a_hit_at_a_rate_of_one(fit: KnownEffects) -> None:
    assert len(hits(fit.post, "lineage", fdr=1.0).table) == len(GENES) * 3
    table = hits(fit.post, "line", fdr=1.0).table
    assert len(table) == len(GENES) * len(LINES) and table["fdr"].max() <= 0.5


@pytest.mark.usefixtures("one_gene_at_a_time")
def test_blocks_of_one_gene_give_the_same(fit: KnownEffects, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = hits(fit.post, "lineage", selective=True).table
    monkeypatch.undo()
    # The product with the weights of lineages may add lines in another order.
    pd.testing.assert_frame_equal(streamed, hits(fit.post, "lineage", selective=True).table, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"by": "genes"}, "'genes'"),
        ({"by": "gene", "selective": True}, "selective"),
        ({"fdr": 0.0}, "above 0"),
        ({"fdr": float("nan")}, "nan"),
        ({"beyond": -1.0}, "-1"),
        ({"beyond": float("inf")}, "inf"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict, named: str, fit: KnownEffects) -> None:
    with pytest.raises(VihierError, match=named):
        hits(fit.post, **arguments)


def test_a_line_alone_has_nothing_selective(fit: KnownEffects) -> None:
    from vihier.answers.effect_summary import summarise_effects

    alone = summarise_effects(fit.post, lambda e: e - e.mean(axis=2, keepdims=True), 1, lines=[LINES[0]])
    assert (alone.mean == 0).all() and (alone.lfsr > 0.99).all()
    assert np.isfinite(alone.sd).all()
