"""Figures, one function each, that take and return matplotlib axes."""

from vihier.plots.convergence import elbo
from vihier.plots.forest import forest
from vihier.plots.heatmap import effect_heatmap
from vihier.plots.hyperparameters import density, trace
from vihier.plots.lineage import boxes_by_lineage, effects_by_lineage
from vihier.plots.truth import truth_vs_posterior

__all__ = [
    "boxes_by_lineage",
    "density",
    "effect_heatmap",
    "effects_by_lineage",
    "elbo",
    "forest",
    "trace",
    "truth_vs_posterior",
]
