"""Each line's own unit: non-essential genes at 0, essential ones at -1.

The convention of DepMap's gene effects (Meyers et al. 2017, Nature Genetics 49, 1779). It makes lines comparable that
differ in how far a lost gene sets cells back during the screen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vihier.answers.effect_draws import require_effect
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior
from vihier.screen.faults import shown


@dataclass(frozen=True, eq=False)
class ControlScaling:
    """Where 0 and -1 are in each line.

    Attributes
    ----------
    zero
        Median effect of the non-essential genes in each line, float64 [C].
    unit
        How far below it the median of the essential genes is, float64 [C], positive.
    n_essential, n_nonessential
        How many genes they rest on.

    Examples
    --------
    >>> scaling = ControlScaling(np.array([0.2]), np.array([2.0]), 300, 300)
    >>> scaling.of_effects(np.array([0.2, -1.8, -3.8])[:, None]).ravel().tolist()
    [0.0, -1.0, -2.0]
    """

    zero: np.ndarray
    unit: np.ndarray
    n_essential: int
    n_nonessential: int

    def of_effects(self, effects: np.ndarray) -> np.ndarray:
        """Return effects [..., C], draws or means, in the unit of their line; of the type that they have."""
        return (effects - self.zero.astype(effects.dtype)) / self.unit.astype(effects.dtype)

    def of_spreads(self, sds: np.ndarray) -> np.ndarray:
        """Return standard deviations or widths [..., C] in the unit of their line."""
        return sds / self.unit.astype(sds.dtype)


def control_scaling(post: Posterior, controls: ControlGenes) -> ControlScaling:
    """Find each line's unit from the posterior means of the control genes.

    The two medians are then taken as known: in Avana and KY with the Achilles controls (323 and 368 genes) their own
    posterior sds are 0.03 and 0.015, where a gene's effect in a line has about 0.15.

    Parameters
    ----------
    post
        A fit with `effect`.
    controls
        Reference genes; those that the fit does not have are passed over.

    Raises
    ------
    VihierError
        None of one kind is in the fit, or a line in which the essential genes are not the lower ones.
    """
    require_effect(post)
    genes = post.labels("hugo_symbol")
    essential, nonessential = controls.among(genes)
    low = np.median(_means(post, genes[essential]), axis=0)
    zero = np.median(_means(post, genes[nonessential]), axis=0)
    unit = zero - low
    bad = np.flatnonzero(~(unit > 0))
    if len(bad):
        more = f" (and {len(bad) - 1:,} more lines)" if len(bad) > 1 else ""
        raise VihierError(
            f"control genes: in line {shown(post.labels('depmap_id')[bad[0]])}{more} the essential genes' median "
            f"effect ({low[bad[0]]:.3g}) is not below the non-essential genes' ({zero[bad[0]]:.3g}); check the lists, "
            "leave the line out of the fit, or go without the lists"
        )
    return ControlScaling(zero, unit, len(essential), len(nonessential))


def _means(post: Posterior, genes: np.ndarray) -> np.ndarray:
    return post.moments("effect", hugo_symbol=genes.tolist())["mean"].values.astype(np.float64)
