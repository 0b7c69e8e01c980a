"""Contrasts against xarray on the draws, and known dependencies of real lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known_effects import LINEAGE_OF_LINE, LINES, KnownEffects
from numpy.testing import assert_allclose

import vihier
from vihier.answers import contrast, control_scaling, false_discovery_rate, local_false_sign_rate
from vihier.answers.line_sets import lines_of_lineages
from vihier.diagnostics.control_genes import ControlGenes, read_control_genes
from vihier.errors import VihierError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SKIN = [line for line, lineage in zip(LINES, LINEAGE_OF_LINE, strict=True) if lineage == 2]
REST = [line for line in LINES if line not in SKIN]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("against", [None, [LINES[6], LINES[1]]])
def test_differences_are_those_of_the_draws(
    against: list[str] | None, scaled: bool, fit: KnownEffects, controls: ControlGenes
) -> None:
    effect = fit.effect
    if scaled:
        scaling = control_scaling(fit.post, controls)
        effect = (effect - scaling.zero) / scaling.unit
    two = [effect.sel(line=SKIN).mean("line"), effect.sel(line=against or REST).mean("line")]
    draws = two[0] - two[1]
    found = contrast(fit.post, SKIN, against, controls=controls if scaled else None)
    table = found.table.set_index("hugo_symbol").loc[list(draws["gene"].values)]
    # float32 draws of order 1; a draw within rounding of 0 counts 1 / 300.
    assert_allclose(table["difference"], draws.mean("draw"), atol=1e-5)
    assert_allclose(table["sd"], draws.std("draw", ddof=1), rtol=1e-4)
    assert_allclose(table["effect"], two[0].mean("draw"), atol=1e-5)
    assert_allclose(table["effect_against"], two[1].mean("draw"), atol=1e-5)
    assert_allclose(table["lfsr"], local_false_sign_rate(draws.values), atol=1 / 300 + 1e-6)
    assert_allclose(table["fdr"], false_discovery_rate(table["lfsr"].to_numpy()), rtol=1e-6)
    assert (table["hit"] == (table["fdr"] <= 0.05)).all()
    assert set(found.against) == set(against or REST)


def test_what_lines_share_cancels(fit: KnownEffects) -> None:
    table = contrast(fit.post, SKIN).table
    sds = [fit.effect.sel(line=lines).mean("line").std("draw", ddof=1) for lines in (SKIN, REST)]
    # A gene's draws go up and down in all lines alike, with sd 0.2. What else the mean of a set moves by is at most
    # 0.14 / sqrt(3) = 0.08, so the difference has sd 0.11 where two unrelated means would give sqrt(2) 0.21 = 0.30.
    unrelated = np.hypot(*sds).to_series()
    assert (table.set_index("hugo_symbol")["sd"].loc[unrelated.index] < 0.5 * unrelated).all()


def test_the_other_way_round_it_has_the_other_sign(fit: KnownEffects) -> None:
    one = contrast(fit.post, SKIN).table.set_index("hugo_symbol")
    other = contrast(fit.post, REST, SKIN).table.set_index("hugo_symbol").loc[one.index]
    assert_allclose(one["difference"], -other["difference"], atol=1e-6)
    assert_allclose(one["lfsr"], other["lfsr"])
    assert_allclose(one["hdi_5.5%"], -other["hdi_94.5%"], atol=1e-6)


def test_a_selective_dependency_comes_first(fit: KnownEffects, controls: ControlGenes) -> None:
    table = contrast(fit.post, SKIN, controls=controls).table
    assert table["hugo_symbol"][0] == "BRAF" and table["hit"][0]
    assert table["hit"].is_monotonic_decreasing


@pytest.mark.usefixtures("one_gene_at_a_time")
def test_blocks_of_one_gene_give_the_same(fit: KnownEffects, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = contrast(fit.post, SKIN).table
    monkeypatch.undo()
    pd.testing.assert_frame_equal(streamed, contrast(fit.post, SKIN).table)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ([], None, "first set"),
        (SKIN, [], "against"),
        (SKIN, [*REST, SKIN[1]], SKIN[1]),
        (["ACH-00004"], None, "the nearest is 'ACH-0000"),
        (LINES, None, "no rest"),
    ],
)
def test_sets_of_no_use_are_refused(first: list[str], second: list[str] | None, named: str, fit: KnownEffects) -> None:
    with pytest.raises(VihierError, match=named) as caught:
        contrast(fit.post, first, second)
    assert "\n" not in str(caught.value)


# Lineage and what it is known to depend on: BRAF in melanoma (Davies et al. 2002, Nature 417, 949), SOX10 in the
# melanocyte lineage (Shakhova et al. 2012, Nat Cell Biol 14, 882); CTNNB1 and KRAS in colorectal cancer (Morin et al.
# 1997, Science 275, 1787; Shirasawa et al. 1993, Science 260, 85); MYB in acute leukaemia (Zuber et al. 2011, Genes Dev
# 25, 1628), RUNX1 (Goyama et al. 2013, J Clin Invest 123, 3876); IRF4 (Shaffer et al. 2008, Nature 454, 226) and MCL1
# (Derenne et al. 2002, Blood 100, 194) in myeloma; MYCN (Weiss et al. 1997, EMBO J 16, 2985) and GATA3 (Durbin et al.
# 2018, Nat Genet 50, 1240) in neuroblastoma; ESR1 and GATA3 in luminal breast cancer (Eeckhoute et al. 2007, Cancer Res
# 67, 6477); PAX8 in cancers of the Muellerian duct (Cheung et al. 2011, PNAS 108, 12372); EGFR in squamous cancers of
# head and neck (Bonner et al. 2006, NEJM 354, 567); NKX2-1 in lung adenocarcinoma (Weir et al. 2007, Nature 450, 893).
KNOWN = {
    "skin": ("BRAF", "SOX10"),
    "colorectal": ("CTNNB1", "KRAS"),
    "leukemia": ("MYB", "RUNX1"),
    "multiple_myeloma": ("IRF4", "MCL1"),
    "peripheral_nervous_system": ("MYCN", "GATA3"),
    "breast": ("ESR1", "GATA3"),
    "uterus": ("PAX8",),
    "upper_aerodigestive": ("EGFR",),
    "lung": ("NKX2-1",),
}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data beside the repository")
def test_known_dependencies_of_lineages_come_first() -> None:
    names = ("AchillesCommonEssentialControls.csv", "AchillesNonessentialControls.csv")
    controls = read_control_genes(*(SHARED / "gene_sets" / name for name in names))
    screen = vihier.read_screen(SHARED / "avana_ky.parquet")
    genes = screen.index.genes
    some = [genes[places[::16]] for places in controls.among(genes)]
    known = sorted({gene for of_lineage in KNOWN.values() for gene in of_lineage})
    with vihier.fit(screen.subset(genes=[*known, *some[0], *some[1]]), draws=300, seed=0) as post:
        for lineage, of_lineage in KNOWN.items():
            table = contrast(post, lines_of_lineages(post, [lineage]), controls=controls).table
            assert set(table["hugo_symbol"][: len(of_lineage)]) == set(of_lineage), lineage
            assert table["hit"][: len(of_lineage)].all(), lineage
