"""Hierarchical Bayesian models of genome-wide CRISPR screens, variational inference first.

Examples
--------
>>> import vihier
>>> vihier.read_screen.__name__
'read_screen'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vihier.diagnostics.checks import check_fit
    from vihier.diagnostics.model_comparison import compare_held_out, compare_loo
    from vihier.errors import FitError, FitWarning, ScreenWarning, VihierError
    from vihier.inference.fit import fit
    from vihier.inference.predict import posterior_predictive, prior_predictive
    from vihier.inference.predict_table import predict
    from vihier.posterior.reader import Posterior, open_posterior
    from vihier.refinement.refine import refine
    from vihier.screen.read import read_screen
    from vihier.screen.report import ReadReport
    from vihier.screen.screen import Screen, ScreenIndex
    from vihier.screen.simulate import simulate

__all__ = [
    "FitError",
    "FitWarning",
    "Posterior",
    "ReadReport",
    "Screen",
    "ScreenIndex",
    "ScreenWarning",
    "VihierError",
    "check_fit",
    "compare_held_out",
    "compare_loo",
    "fit",
    "open_posterior",
    "posterior_predictive",
    "predict",
    "prior_predictive",
    "read_screen",
    "refine",
    "simulate",
]

# Resolved on first use (PEP 562): torch alone takes more than a second to import, and `vihier --help` must not wait.
_HOME = {
    "FitError": "vihier.errors",
    "FitWarning": "vihier.errors",
    "Posterior": "vihier.posterior.reader",
    "ReadReport": "vihier.screen.report",
    "Screen": "vihier.screen.screen",
    "ScreenIndex": "vihier.screen.screen",
    "ScreenWarning": "vihier.errors",
    "VihierError": "vihier.errors",
    "check_fit": "vihier.diagnostics.checks",
    "compare_held_out": "vihier.diagnostics.model_comparison",
    "compare_loo": "vihier.diagnostics.model_comparison",
    "fit": "vihier.inference.fit",
    "open_posterior": "vihier.posterior.reader",
    "posterior_predictive": "vihier.inference.predict",
    "predict": "vihier.inference.predict_table",
    "prior_predictive": "vihier.inference.predict",
    "read_screen": "vihier.screen.read",
    "refine": "vihier.refinement.refine",
    "simulate": "vihier.screen.simulate",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("vihier")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'vihier' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
