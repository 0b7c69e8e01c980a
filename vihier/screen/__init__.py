"""From a table to a validated screen, its index and its cells; simulation."""

from vihier.screen.read import read_screen
from vihier.screen.report import ReadReport
from vihier.screen.screen import Screen, ScreenIndex

__all__ = ["ReadReport", "Screen", "ScreenIndex", "read_screen"]
