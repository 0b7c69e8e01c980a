"""What is wrong with a screen is found, and named; what is right is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_screen import CONTROLS, GENES, LINES, NONESSENTIAL, made_table, screen_of

from vihier.quality import SCREEN_LIMITS, ScreenQuality, screen_quality
from vihier.quality.sgrnas import median_of_others

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def judged(table: pd.DataFrame, controls: object = CONTROLS) -> ScreenQuality:
    return screen_quality(screen_of(table), controls)  # type: ignore[arg-type]


def flagged(quality: ScreenQuality, measure: str) -> list[str]:
    return quality.flags.loc[quality.flags["measure"] == measure, "label"].tolist()


def where(table: pd.DataFrame, **labels: object) -> pd.Series:
    keep = pd.Series(True, index=table.index)
    for name, value in labels.items():
        keep &= table[name] == value
    return keep


def test_a_good_screen_has_no_flags() -> None:
    quality = judged(made_table())
    assert quality.flags.empty
    # Of the variance of lfc, noise has 0.09, sgRNAs 0.04, a line's own effects 0.25 and essentiality 0.89.
    assert quality.replicates["correlation"].between(0.88, 0.97).all()
    # An essential gene is 2 lower, the difference of two genes has an sd of 0.73: 0.997, of 20 x 20 pairs.
    assert (quality.lines["auroc"] > 0.95).all() and (quality.lines["average_precision"] > 0.9).all()


def test_two_replicates_with_swapped_labels_are_told_by_whom_they_are_like() -> None:
    table = made_table()
    one, other = where(table, depmap_id="ACH-01", replicate_id="A"), where(table, depmap_id="ACH-06", replicate_id="A")
    table.loc[one, "lfc"], table.loc[other, "lfc"] = (
        table.loc[other, "lfc"].to_numpy(),
        table.loc[one, "lfc"].to_numpy(),
    )
    quality = judged(table)
    by_name = quality.replicates.set_index("replicate")
    assert by_name.loc["ACH-01|A", "most_like"] == "ACH-06|B"
    assert by_name.loc["ACH-06|A", "most_like"] == "ACH-01|B"
    # The others of the two lines lose their partners as well.
    assert sorted(flagged(quality, "stranger")) == ["ACH-01|A", "ACH-01|B", "ACH-06|A", "ACH-06|B"]
    # What all lines share hides it from the plain correlation.
    assert flagged(quality, "correlation") == []


def test_a_replicate_of_noise_does_not_correlate() -> None:
    table = made_table()
    noise = where(table, depmap_id="ACH-03", replicate_id="B")
    table.loc[noise, "lfc"] = np.random.default_rng(1).normal(0, 1, noise.sum())
    quality = judged(table)
    assert sorted(flagged(quality, "correlation")) == ["ACH-03|A", "ACH-03|B"]
    text = quality.flags.loc[quality.flags["label"] == "ACH-03|B", "text"].iloc[0]
    assert text.startswith("replicate ACH-03|B correlates ") and text.endswith("with the line's other replicate")


def test_a_line_that_falls_as_a_whole_stands_out_and_one_without_signal_too() -> None:
    table = made_table()
    table.loc[where(table, depmap_id="ACH-02"), "lfc"] -= 2
    flat = where(table, depmap_id="ACH-05")
    table.loc[flat, "lfc"] = np.random.default_rng(1).normal(0, 0.3, flat.sum())
    quality = judged(table)
    assert flagged(quality, "shift") == ["ACH-02|A", "ACH-02|B", "ACH-02"] or flagged(quality, "shift")[-1] == "ACH-02"
    assert flagged(quality, "auroc") == flagged(quality, "nnmd") == flagged(quality, "agreement") == ["ACH-05"]


def test_an_sgrna_with_an_effect_of_its_own_is_named_with_what_the_others_say() -> None:
    table = made_table()
    table.loc[table["sgrna"] == "GENE30-1", "lfc"] -= 3
    table.loc[table["sgrna"] == "GENE05-0", "lfc"] += 2
    quality = judged(table)
    flags = quality.flags[quality.flags["about"] == "sgRNA"]
    assert flags["label"].tolist() == ["GENE30-1", "GENE05-0"]
    assert flags["text"].str.contains("of its gene's others|that its gene's others").all()
    genes = quality.genes.set_index("hugo_symbol")
    assert genes.loc[genes["n_outliers"] > 0].index.tolist() == ["GENE05", "GENE30"]


def test_the_median_of_the_others_leaves_one_out() -> None:
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=200), rng.integers(0, 60, 200)
    expected = []
    for place, group in enumerate(groups):
        others = values[(groups == group) & (np.arange(200) != place)]
        expected.append(np.median(others) if len(others) else np.nan)
    np.testing.assert_allclose(median_of_others(values, groups), expected)


def test_missing_measurements_are_counted() -> None:
    table = made_table()
    table = table[~(where(table, depmap_id="ACH-00") & table["hugo_symbol"].isin(GENES[:15]))]
    table = table[~where(table, depmap_id="ACH-04", replicate_id="B")]
    table = table[~((table["hugo_symbol"] == "GENE50") & (table["sgrna"] != "GENE50-0"))]
    quality = judged(table)
    lines = quality.lines.set_index("depmap_id")
    assert lines.loc["ACH-00", "coverage"] == 45 / 60
    assert flagged(quality, "coverage") == ["ACH-00|A", "ACH-00|B", "ACH-00"]
    assert flagged(quality, "n_replicates") == ["ACH-04"] and flagged(quality, "n_sgrnas") == ["GENE50"]
    assert quality.overview["gene_line_pairs_measured"] == (60 * 8 - 15) / (60 * 8)
    # A line with one replicate has nothing to be compared with, and no number that says so.
    assert np.isnan(lines.loc["ACH-04", "correlation"])


def test_a_batch_that_shares_what_others_have_not_is_flagged() -> None:
    table = made_table()
    here = where(table, p_dna_batch="second")
    of_sgrna = pd.Series(np.random.default_rng(2).normal(0, 0.5, 240), index=sorted(set(table["sgrna"])))
    table.loc[here, "lfc"] += table.loc[here, "sgrna"].map(of_sgrna)
    quality = judged(table)
    assert set(flagged(quality, "excess_correlation")) == {"first", "second"}
    assert judged(made_table()).batches["excess_correlation"].abs().max() < 0.1


def test_a_planted_copy_number_trend_is_found_again() -> None:
    table = made_table()
    table["lfc"] -= 0.6 * table["copy_number"]
    quality = judged(table, None)
    # A line's slope has the standard error sd / (sd of copies) / sqrt(genes) = 0.5 / 0.22 / 7.7 = 0.3.
    assert quality.lines["copy_number_slope"].mean() == pytest.approx(-0.6, abs=3 * 0.3 / np.sqrt(8))
    trend = quality.copy_number
    assert trend["n"].sum() == 480 and len(trend) == 10
    assert trend["lfc"].iloc[0] - trend["lfc"].iloc[-1] > 0.3


def test_a_table_without_replicates_libraries_or_covariates_is_judged_by_what_it_has() -> None:
    table = made_table().drop(columns=["replicate_id", "p_dna_batch", "copy_number", "lineage"])
    quality = judged(table, None)
    assert not quality.overview["replicates_named"]
    assert quality.replicates["correlation"].isna().all() and len(quality.replicates) == len(LINES)
    assert quality.batches.empty and quality.copy_number.empty
    assert {"auroc", "lineage", "screen", "copy_number_slope"}.isdisjoint(quality.lines.columns)
    assert set(quality.tables()) >= {"replicates", "lines", "sgrnas", "genes"}


def test_levels_are_those_of_nonessential_genes_where_they_are_known() -> None:
    table = made_table()
    quality = judged(table)
    means = (
        table[table["hugo_symbol"].isin(NONESSENTIAL)]
        .groupby(["depmap_id", "replicate_id", "hugo_symbol"])["lfc"]
        .mean()
    )
    expected = means.groupby(level=[0, 1]).median()
    # Kept as float32.
    np.testing.assert_allclose(quality.replicates["median_lfc"], expected, atol=1e-6)


def test_each_limit_says_what_it_rests_on() -> None:
    assert all(limit.because for limit in SCREEN_LIMITS)
    assert len({(limit.about, limit.measure) for limit in SCREEN_LIMITS}) == len(SCREEN_LIMITS)


@pytest.mark.skipif(not (DATA / "avana_ky.parquet").exists(), reason="no ../shared/data beside the checkout")
def test_of_avana_and_ky_the_lines_known_to_be_poor_are_flagged() -> None:
    from vihier import read_screen
    from vihier.diagnostics.control_genes import read_control_genes

    sets = DATA / "gene_sets"
    controls = read_control_genes(
        sets / "AchillesCommonEssentialControls.csv", sets / "AchillesNonessentialControls.csv"
    )
    quality = screen_quality(read_screen(DATA / "avana_ky.parquet"), controls)
    # ICC3, whose non-essential genes lie 2 below those of other lines; in the fit its beta_dev is -2.3.
    assert flagged(quality, "shift")[0] == "ACH-001843|ICC3-311cas9_RepB_p6_Avana-3|broad"
    assert "ACH-001843" in flagged(quality, "shift")
    # SNU407, LOXIMVI and RAMOS in Avana tell control genes apart hardly better than by chance.
    assert flagged(quality, "nnmd") == ["ACH-000955", "ACH-000750", "ACH-001636"]
    # Copy number is not corrected in these fold changes.
    assert quality.copy_number["lfc"].iloc[-1] < -0.05 < 0.03 < quality.copy_number["lfc"].iloc[0]
