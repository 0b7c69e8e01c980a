"""Quality of a screen before a fit, and of what a fit says of its lines and sgRNAs."""

from vihier.quality.fit_quality import FitQuality, fit_quality
from vihier.quality.judge import judge
from vihier.quality.limits import FIT_LIMITS, SCREEN_LIMITS, Limit
from vihier.quality.screen_quality import ScreenQuality, screen_quality

__all__ = [
    "FIT_LIMITS",
    "SCREEN_LIMITS",
    "FitQuality",
    "Limit",
    "ScreenQuality",
    "fit_quality",
    "judge",
    "screen_quality",
]
