"""Whether effects tell reference essential genes from non-essential ones."""

from __future__ import annotations

import pandas as pd

from vihier.answers.export import effect_matrix
from vihier.diagnostics.checks.items import Item, listed
from vihier.diagnostics.control_genes import ControlGenes, separation
from vihier.posterior.reader import Posterior

WARN, FAIL = 0.95, 0.85
LINE_WARN = 0.9


def judge(by_line: pd.DataFrame) -> Item:
    """Judge AUROC and NNMD of every line, as `vihier.diagnostics.control_genes.separation` gives them."""
    auroc, nnmd = float(by_line["auroc"].median()), float(by_line["nnmd"].median())
    bad = by_line.index[by_line["auroc"] < LINE_WARN].astype(str).tolist()
    sentence = (
        f"essential genes are told from non-essential ones with a median AUROC of {auroc:.3f} and NNMD of {nnmd:.1f}"
    )
    figures = {"auroc": auroc, "nnmd": nnmd, "lines_below": len(bad), "worst_line": float(by_line["auroc"].min())}
    if not auroc >= FAIL:
        return Item("control genes", "fail", f"{sentence}: look at the screen, or at the lists", figures)
    if auroc < WARN or bad:
        named = f"; below {LINE_WARN} in {listed(bad)}" if bad else ""
        return Item("control genes", "warn", sentence + named, figures)
    return Item("control genes", "pass", sentence, figures)


def of_fit(posterior: Posterior, controls: ControlGenes) -> Item:
    """Judge the posterior means of a fit's effects."""
    return judge(separation(effect_matrix(posterior), controls))
