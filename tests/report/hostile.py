"""Labels that are markup, and what is reported under them."""

from __future__ import annotations

from dataclasses import dataclass

import vihier
from vihier.posterior.reader import Posterior
from vihier.report import WrittenReport

HOSTILE_GENE = "<script>alert(1)</script>"
HOSTILE_GENES = (
    HOSTILE_GENE,
    "</script><img src=x onerror=window.pwned=1>",
    '"><b>&amp;',
    "<!--<script>",
    "a 'b' %{x} $c$",
    r"$\frac{$",  # no formula: matplotlib, asked to set it, would fail
)
HOSTILE_LINE = "<svg/onload=window.pwned=2>"
HOSTILE_LINEAGE = '<a href="javascript:window.pwned=3">skin</a>'
HOSTILE_SGRNA = "</textarea><script>window.pwned=4</script>"


@dataclass(frozen=True, eq=False)
class Reported:
    """A fit, the screen that it is of, and the report of both."""

    post: Posterior
    screen: vihier.Screen
    written: WrittenReport

    @property
    def html(self) -> str:
        """The page."""
        return self.written.path.read_text(encoding="utf-8")
