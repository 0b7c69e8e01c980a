"""Effects as other tools take them: line x gene matrices in the layout of DepMap's CRISPRGeneEffect.csv, and rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd

from vihier.answers.control_scaling import ControlScaling
from vihier.answers.effect_draws import effect_blocks, lineages, require_effect
from vihier.answers.effect_summary import LOWER, UPPER
from vihier.posterior.moments import moments_of_draws
from vihier.posterior.reader import Posterior

# Half way from non-essential genes (0) to essential ones (-1).
MIDPOINT = -0.5
_GENES_AT_ONCE = 512


def effect_matrix(
    post: Posterior, statistic: Literal["mean", "sd"] = "mean", scaling: ControlScaling | None = None
) -> pd.DataFrame:
    """Return the posterior mean or sd of every effect.

    Parameters
    ----------
    post
        A fit with `effect`.
    statistic
        ``"mean"`` or ``"sd"``.
    scaling
        Brings each line to its own unit.

    Returns
    -------
    DataFrame
        float32 [C, G]: lines as rows (index `ModelID`), symbols of genes as columns, both sorted; log2 fold change, or
        the unit of the control genes. Held in memory whole: 72 MB of 18,000 genes in 1,000 lines.

    Raises
    ------
    VihierError
        No `effect` in the fit.
    """
    require_effect(post)
    genes, lines = post.labels("hugo_symbol"), post.labels("depmap_id")
    values = np.empty((len(genes), len(lines)), dtype=np.float32)
    for start in range(0, len(genes), _GENES_AT_ONCE):
        part = slice(start, start + _GENES_AT_ONCE)
        values[part] = post.moments("effect", hugo_symbol=genes[part].tolist())[statistic].values
    if scaling is not None:
        values = scaling.of_effects(values) if statistic == "mean" else scaling.of_spreads(values)
    return _lines_by_genes(values, post)


def dependency_matrix(post: Posterior, scaling: ControlScaling) -> pd.DataFrame:
    """Return the posterior probability that each line depends on each gene, from the draws.

    Parameters
    ----------
    post
        A fit with `effect`.
    scaling
        Says where the control genes are in each line.

    Returns
    -------
    DataFrame
        float32 [C, G] like `effect_matrix`: the fraction of draws in which the effect is below the midpoint between
        the line's medians of non-essential and of essential genes.

    Raises
    ------
    VihierError
        No `effect` in the fit.
    """
    probability = np.empty((len(post.labels("hugo_symbol")), len(post.labels("depmap_id"))), dtype=np.float32)
    for part, draws in effect_blocks(post):
        probability[part] = (scaling.of_effects(draws) < MIDPOINT).mean(axis=0)
    return _lines_by_genes(probability, post)


def effect_rows(post: Posterior, scaling: ControlScaling | None = None) -> Iterator[pd.DataFrame]:
    """Yield one row for each gene in each line, in blocks of genes.

    Parameters
    ----------
    post
        A fit with `effect`.
    scaling
        Brings each line to its own unit.

    Yields
    ------
    DataFrame
        `hugo_symbol`, `depmap_id`, `lineage` where the fit knows it, `mean`, `sd`, bounds of the 0.89 interval,
        `prob_negative`, and with a scaling `dependency`, the probability of `dependency_matrix`.

    Raises
    ------
    VihierError
        No `effect` in the fit.
    """
    genes, lines = post.labels("hugo_symbol"), post.labels("depmap_id")
    of_line = {"depmap_id": lines}
    if "lineage_of_line" in post.group("index"):
        names, lineage = lineages(post)
        of_line["lineage"] = names[lineage]
    for part, raw in effect_blocks(post):
        draws = raw if scaling is None else scaling.of_effects(raw)
        moments = moments_of_draws(draws[None])
        n_genes = part.stop - part.start
        columns = {"hugo_symbol": np.repeat(genes[part], len(lines))}
        columns |= {name: np.tile(labels, n_genes) for name, labels in of_line.items()}
        named = {"mean": "mean", "sd": "sd", LOWER: "hdi_lower", UPPER: "hdi_upper", "prob_negative": "prob_negative"}
        columns |= {name: moments[key].ravel().astype(np.float32) for name, key in named.items()}
        if scaling is not None:
            columns["dependency"] = (draws < MIDPOINT).mean(axis=0).ravel().astype(np.float32)
        yield pd.DataFrame(columns)


def _lines_by_genes(values: np.ndarray, post: Posterior) -> pd.DataFrame:
    lines = pd.Index(post.labels("depmap_id"), name="ModelID")
    return pd.DataFrame(values.T, index=lines, columns=post.labels("hugo_symbol"))
