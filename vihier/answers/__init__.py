"""Answers from a posterior: tables for other tools, hits, and contrasts of sets of lines."""

from vihier.answers.contrast import Contrast, contrast
from vihier.answers.control_scaling import ControlScaling, control_scaling
from vihier.answers.export import dependency_matrix, effect_matrix, effect_rows
from vihier.answers.false_sign import false_discovery_rate, local_false_sign_rate
from vihier.answers.hits import Hits, hits
from vihier.answers.line_sets import lines_of
from vihier.answers.line_table import line_table
from vihier.answers.noise import replicate_table
from vihier.answers.residuals import Residuals, residuals
from vihier.answers.sgrna_table import sgrna_table

__all__ = [
    "Contrast",
    "ControlScaling",
    "Hits",
    "Residuals",
    "contrast",
    "control_scaling",
    "dependency_matrix",
    "effect_matrix",
    "effect_rows",
    "false_discovery_rate",
    "hits",
    "line_table",
    "lines_of",
    "local_false_sign_rate",
    "replicate_table",
    "residuals",
    "sgrna_table",
]
