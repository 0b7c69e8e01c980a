"""How the effects of essential and of non-essential genes are distributed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vihier.diagnostics.control_genes import ControlGenes, separation
from vihier.plots.axes import MEAN_COLOUR, UNIT, WARN_COLOUR, axes

N_BINS = 80


def control_distributions(
    effect: pd.DataFrame, controls: ControlGenes, ax: Axes | None = None, *, unit: str = UNIT
) -> Axes:
    """Draw histograms of all effects, in all lines, of the two kinds of control genes, with their medians.

    Parameters
    ----------
    effect
        Lines as rows and genes as columns, as from `vihier.answers.effect_matrix`; missing ones are left out.
    controls
        Reference genes.
    ax
        Where to draw; a new figure when None. The tails beyond 0.1 % are cut off.
    unit
        Of the effects.

    Raises
    ------
    VihierError
        No gene of one kind is among the columns.
    """
    ax = axes(ax, 6.4, 3.6)
    places = controls.among(effect.columns)
    kinds = [effect.iloc[:, chosen].to_numpy(np.float64).ravel() for chosen in places]
    kinds = [values[np.isfinite(values)] for values in kinds]
    low, high = np.quantile(np.concatenate(kinds), (0.001, 0.999))
    for values, chosen, colour, name in zip(
        kinds, places, (WARN_COLOUR, MEAN_COLOUR), ("essential", "non-essential"), strict=True
    ):
        label = f"{name} ({len(chosen):,} genes)"
        ax.hist(values, bins=N_BINS, range=(low, high), density=True, alpha=0.55, color=colour, label=label)
        ax.axvline(float(np.median(values)), color=colour, linewidth=1.2, linestyle="--")
    auroc = float(separation(effect, controls)["auroc"].median())
    ax.set(xlabel=f"effect in a line ({unit}); {len(effect):,} lines, median AUROC {auroc:.3f}", ylabel="density")
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return ax
