"""From a table to a validated screen, its index and its cells; simulation."""

from vihier.screen.cells import Cells, cell_statistics
from vihier.screen.read import read_screen
from vihier.screen.report import ReadReport
from vihier.screen.screen import Screen, ScreenIndex
from vihier.screen.subset import parse_where
from vihier.screen.validate import require_lineage

__all__ = [
    "Cells",
    "ReadReport",
    "Screen",
    "ScreenIndex",
    "cell_statistics",
    "parse_where",
    "read_screen",
    "require_lineage",
]
