"""Which effects are there: of genes, of genes in lines, of genes in lineages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from vihier.answers.control_scaling import control_scaling
from vihier.answers.effect_draws import lineages, require_effect
from vihier.answers.effect_summary import Combination, EffectSummary, strongest_first, summarise_effects
from vihier.answers.false_sign import check_beyond, check_level, false_discovery_rate
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior

By = Literal["gene", "line", "lineage"]


@dataclass(frozen=True, eq=False)
class Hits:
    """Effects that are called, and how many were looked at.

    Attributes
    ----------
    table
        One row an effect: negative ones before positive ones, of each the strongest first, by the bound of the
        interval that is nearer to 0. `hugo_symbol`; `depmap_id` and `lineage`, or `lineage` and
        `n_lines`; `mean`, `sd`, bounds of the 0.89 interval, `prob_negative`; `lfsr`, the local false sign rate; and
        `fdr`, the mean of it over all effects that are at least as sure.
    n_tested
        Effects looked at.
    fdr
        The level asked for.
    """

    table: pd.DataFrame
    n_tested: int
    fdr: float

    @property
    def expected_wrong(self) -> float:
        """Signs expected to be wrong among those called."""
        return float(self.table["lfsr"].sum())


def hits(
    post: Posterior,
    by: By = "gene",
    *,
    fdr: float = 0.05,
    selective: bool = False,
    beyond: float = 0.0,
    controls: ControlGenes | None = None,
) -> Hits:
    """Call effects so that at most a fraction `fdr` of those called is expected to have the wrong sign.

    Everything is computed draw by draw: the mean over lines, the lines' units, the difference from the gene's mean.

    Parameters
    ----------
    post
        A fit with `effect`.
    by
        ``"gene"``: the mean over all lines. ``"line"``: each gene in each line. ``"lineage"``: the mean over the lines
        of each lineage.
    fdr
        Bayesian false discovery rate: the mean local false sign rate of what is called.
    selective
        Take how far a line or lineage is from the gene's mean over all lines.
    beyond
        Call effects whose size is beyond this; in log2 fold change, or in the unit of the control genes.
    controls
        Bring each line to its own unit first: non-essential genes at 0, essential ones at -1.

    Returns
    -------
    Hits

    Raises
    ------
    VihierError
        No `effect` in the fit, no lineages, a level that is none, `selective` of genes, or control genes of no use.
    """
    check_level(fdr)
    check_beyond(beyond)
    if by not in get_args(By):
        raise VihierError(f"hits by {by!r}: unknown; use {', '.join(map(repr, get_args(By)))}")
    if selective and by == "gene":
        raise VihierError("selective hits are of lines or lineages; use them with 'line' or 'lineage', not 'gene'")
    require_effect(post)
    scaling = None if controls is None else control_scaling(post, controls)
    n_quantities, combine = _combination(post, by)
    if selective:
        combine = _from_mean(combine)
    summary = summarise_effects(post, combine, n_quantities, scaling=scaling, beyond=beyond)
    rate = false_discovery_rate(summary.lfsr.ravel())
    called = np.flatnonzero(rate <= fdr)
    bounds = [values.ravel()[called] for values in (summary.mean, summary.hdi_lower, summary.hdi_upper)]
    called = called[strongest_first(*bounds)]
    table = _table(post, by, summary, called)
    table["fdr"] = rate[called]
    return Hits(table, len(rate), fdr)


def _combination(post: Posterior, by: By) -> tuple[int, Combination]:
    if by == "gene":
        return 1, lambda effects: effects.mean(axis=2, keepdims=True)
    if by == "line":
        return len(post.labels("depmap_id")), lambda effects: effects
    names, of_line = lineages(post)
    weights = np.equal.outer(of_line, np.arange(len(names))).astype(np.float32)
    weights /= weights.sum(axis=0)
    return len(names), lambda effects: effects @ weights


def _from_mean(combine: Combination) -> Combination:
    return lambda effects: combine(effects) - effects.mean(axis=2, keepdims=True)


def _table(post: Posterior, by: By, summary: EffectSummary, called: np.ndarray) -> pd.DataFrame:
    gene, quantity = np.divmod(called, summary.mean.shape[1])
    columns: dict[str, np.ndarray] = {"hugo_symbol": post.labels("hugo_symbol")[gene]}
    if by == "line":
        columns["depmap_id"] = post.labels("depmap_id")[quantity]
        if "lineage_of_line" in post.group("index"):
            names, of_line = lineages(post)
            columns["lineage"] = names[of_line[quantity]]
    elif by == "lineage":
        names, of_line = lineages(post)
        columns |= {"lineage": names[quantity], "n_lines": np.bincount(of_line, minlength=len(names))[quantity]}
    return pd.DataFrame({**columns, "mean": summary.mean.ravel()[called], **summary.columns(called)})
