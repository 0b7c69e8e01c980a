"""Figures, one function each, that take and return matplotlib axes."""

from vihier.plots.agreement import nuts_quantiles
from vihier.plots.controls import control_distributions
from vihier.plots.convergence import drift, elbo
from vihier.plots.forest import forest
from vihier.plots.gene_page import gene_page
from vihier.plots.guide_vs_nuts import guide_vs_nuts, nuts_tables
from vihier.plots.heatmap import effect_heatmap
from vihier.plots.hyperparameters import density, trace
from vihier.plots.line_quality import line_quality
from vihier.plots.lineage import boxes_by_lineage, effects_by_lineage
from vihier.plots.p_values import p_values
from vihier.plots.predictive import predictive_check
from vihier.plots.shrinkage import shrinkage
from vihier.plots.truth import truth_vs_posterior
from vihier.plots.volcano import volcano

__all__ = [
    "boxes_by_lineage",
    "control_distributions",
    "density",
    "drift",
    "effect_heatmap",
    "effects_by_lineage",
    "elbo",
    "forest",
    "gene_page",
    "guide_vs_nuts",
    "line_quality",
    "nuts_quantiles",
    "nuts_tables",
    "p_values",
    "predictive_check",
    "shrinkage",
    "trace",
    "truth_vs_posterior",
    "volcano",
]
