"""What the tests of refinement share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import vihier


@dataclass(frozen=True)
class Refined:
    """A screen's table, the file of its fit, and a copy of that with three genes refined."""

    table: Path
    screen: vihier.Screen
    fit: Path
    path: Path
