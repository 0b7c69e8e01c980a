"""What a referee would ask of a fit, item by item: each passes, is worth a look, or fails, with one sentence."""

from __future__ import annotations

from vihier.diagnostics.checks.items import Item
from vihier.diagnostics.checks.run import Checked, check_fit

__all__ = ["Checked", "Item", "check_fit"]
