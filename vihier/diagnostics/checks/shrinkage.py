"""Whether what the hierarchy pools scatters as it assumes: standard Normal about its means, in units of its scales.

In draws of a right posterior (value - prior mean) / prior sd of every element is standard Normal (Yuan & Johnson 2012,
Biometrics 68, 156). A spread below 1 is too little pooling assumed, above 1 too much; far elements are shrunk too much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vihier.diagnostics.checks.items import Item, Status, judged

FAR = 4.0
SD_WARN, SD_FAIL = 0.15, 0.5
FAR_WARN, FAR_FAIL = 1e-3, 2e-2
FEWEST = 20


@dataclass(frozen=True)
class Scatter:
    """Elements x draws of one site, their sum of squares in units of the prior sd, and how many are far out."""

    count: int
    square: float
    far: int

    def __add__(self, other: Scatter) -> Scatter:
        return Scatter(self.count + other.count, self.square + other.square, self.far + other.far)

    @staticmethod
    def of(standard: np.ndarray) -> Scatter:
        """Count standardised values."""
        return Scatter(standard.size, float((standard**2).sum()), int((np.abs(standard) > FAR).sum()))


def judge(scatters: dict[str, Scatter], n_draws: int) -> Item:
    """Judge every pooled site with at least 20 elements.

    Parameters
    ----------
    scatters
        Site -> what was counted over all draws.
    n_draws
        Draws counted.
    """
    sites = {name: each for name, each in scatters.items() if each.count >= FEWEST * n_draws}
    if not sites:
        return Item("shrinkage", "pass", f"no site has {FEWEST} elements to pool")
    status: Status = "pass"
    figures: dict[str, float | str] = {}
    said, notes = [], []
    for name, each in sites.items():
        sd, far = (each.square / each.count) ** 0.5, each.far / each.count
        figures |= {f"{name}_sd": sd, f"{name}_far": far}
        said.append(f"{name} {sd:.2f}")
        own = {judged(abs(sd - 1), SD_WARN, SD_FAIL), judged(far, FAR_WARN, FAR_FAIL)}
        if "fail" in own:
            status = "fail"
        elif "warn" in own and status == "pass":
            status = "warn"
        if far >= FAR_WARN:
            notes.append(f"{far:.2%} of {name} lie beyond {FAR:.0f} sds and are shrunk too much")
    sentence = f"elements scatter about their means by {', '.join(said)} of the spread assumed"
    return Item("shrinkage", status, "; ".join([sentence, *notes]), figures)
