"""One row for each sgRNA: how it differs from the others of its gene, and how efficient it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from vihier.answers.control_scaling import ControlScaling
from vihier.answers.effect_summary import LOWER, UPPER
from vihier.answers.residuals import Residuals
from vihier.errors import VihierError
from vihier.posterior.moments import moments_of_draws
from vihier.posterior.reader import Posterior

# Efficacy is a share of the gene's effect: of a gene without one it would be a share of nothing.
SURE_OF_EFFECT = 0.95
_AT_ONCE = 4096


def has_sgrna_effects(post: Posterior) -> bool:
    """Return whether the model has effects of sgRNAs, and so `sgrna_table` a table."""
    return {"alpha_dev", "effect_gene"} <= post.variables.keys() and "gene_of_sgrna" in post.group("index")


def sgrna_table(
    post: Posterior, scaling: ControlScaling | None = None, residuals: Residuals | None = None
) -> pd.DataFrame:
    """Return a table of the sgRNAs.

    Parameters
    ----------
    post
        A fit with `alpha_dev` and `effect`: `additive`, `crossed`.
    scaling
        Says where no effect is: at the non-essential genes' mean level over lines, in place of no fold change.
    residuals
        Of the rows that were fitted, from `vihier.answers.residuals`.

    Returns
    -------
    DataFrame
        `sgrna`, `hugo_symbol`; `alpha_dev`, the sgRNA's effect minus the mean of its gene's sgRNAs (log2 fold change),
        with `sd`, bounds of its 0.89 interval and `prob_negative`; `efficacy`, its mean effect over lines as a share
        of that of its gene's strongest sgRNA in the same draw, from 0 to 1, with `efficacy_sd`. There is no efficacy
        where the gene's mean effect is negative with a probability below 0.95. With residuals `residual`, the root
        mean square of the sgRNA's rows minus what the fit expects of them.

    Raises
    ------
    VihierError
        The model has no effects of sgRNAs.
    """
    missing = [name for name in ("alpha_dev", "effect_gene") if name not in post.variables]
    index = post.group("index")
    if missing or "gene_of_sgrna" not in index:
        lacks = missing[0] if missing else "gene_of_sgrna"
        raise VihierError(f"{post.path}: model {post.model!r} has no effects of sgRNAs (no {lacks!r}); fit 'additive'")
    gene_of_sgrna = index["gene_of_sgrna"].values
    level = 0.0 if scaling is None else float(scaling.zero.mean())
    gene = _flat(post.draws("effect_gene").values) - np.float32(level)
    strongest = np.full_like(gene, np.inf)
    for part, deviation in _sgrna_blocks(post):
        # Unbuffered, since several sgRNAs of a block may be of one gene.
        np.minimum.at(strongest.T, gene_of_sgrna[part], deviation.T)
    strongest += gene
    has_effect = (gene < 0).mean(axis=0) >= SURE_OF_EFFECT
    names, genes = post.labels("sgrna"), post.labels("hugo_symbol")
    blocks = []
    for part, deviation in _sgrna_blocks(post):
        of_gene = gene_of_sgrna[part]
        share = _share(deviation + gene[:, of_gene], strongest[:, of_gene])
        moments = moments_of_draws(deviation[None])
        columns = {
            "sgrna": names[part],
            "hugo_symbol": genes[of_gene],
            "alpha_dev": moments["mean"],
            "sd": moments["sd"],
            LOWER: moments["hdi_lower"],
            UPPER: moments["hdi_upper"],
            "prob_negative": moments["prob_negative"],
            "efficacy": np.where(has_effect[of_gene], share.mean(axis=0), np.nan),
            "efficacy_sd": np.where(has_effect[of_gene], share.std(axis=0, ddof=1), np.nan),
        }
        blocks.append(pd.DataFrame(columns))
    table = pd.concat(blocks, ignore_index=True)
    if residuals is not None and residuals.sgrna is not None:
        table["residual"] = residuals.sgrna
    return table


def _share(effect: np.ndarray, strongest: np.ndarray) -> np.ndarray:
    """Return effects as a share of the strongest, from 0 to 1; 0 where the strongest is none."""
    share = np.zeros_like(effect)
    np.divide(effect, strongest, out=share, where=strongest < 0)
    return share.clip(0, 1)


def _sgrna_blocks(post: Posterior) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield draws of alpha_dev [N, S'] in blocks of the file's order: scattered ones would each be read many times."""
    names = post.labels("sgrna")
    for start in range(0, len(names), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        yield part, _flat(post.draws("alpha_dev", sgrna=names[part].tolist()).values)


def _flat(draws: np.ndarray) -> np.ndarray:
    return draws.reshape(-1, *draws.shape[2:])
