"""Whether rows drawn from the fit look like the rows measured, by gene, by line, by lineage and by replicate.

Posterior predictive p-values (Gelman, Meng & Stern 1996, Statistica Sinica 6, 733) of five statistics of each group. A
right model has few of them near 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vihier.diagnostics.checks.items import Item, judged

STATISTICS = ("mean", "sd", "min", "max", "tail")
EXTREME = 0.01
WARN, FAIL = 0.05, 0.25
FEWEST_ROWS = 5


@dataclass(frozen=True, eq=False)
class PValues:
    """p-values of one grouping.

    Attributes
    ----------
    grouping
        `gene`, `line`, `lineage` or `replicate`.
    labels
        Of the groups, [k]; those with fewer than five rows are left out.
    values
        Statistic -> share of draws in which it is larger than in the rows measured, ties counting half, [k].
    """

    grouping: str
    labels: np.ndarray
    values: Mapping[str, np.ndarray]


class Groups:
    """Statistics of groups of rows, in what was measured and in draws that come some rows at a time.

    Parameters
    ----------
    code
        Group of each row, int [n].
    labels
        Of the groups.
    lfc
        What was measured, [n].
    """

    def __init__(self, grouping: str, code: np.ndarray, labels: np.ndarray, lfc: np.ndarray) -> None:
        self.grouping, self.code, self.labels = grouping, code, labels
        k = len(labels)
        self.count = np.bincount(code, minlength=k)
        n = np.maximum(self.count, 1)
        self.centre = np.bincount(code, lfc, k) / n
        self.spread = np.sqrt(np.bincount(code, (lfc - self.centre[code]) ** 2, k) / n)
        self.observed = self._empty(1)
        self._add(self.observed, slice(0, len(lfc)), lfc[None])
        self.drawn: dict[str, np.ndarray] = {}

    def _empty(self, n_draws: int) -> dict[str, np.ndarray]:
        start = {"sum": 0.0, "square": 0.0, "tail": 0.0, "min": np.inf, "max": -np.inf}
        return {name: np.full((n_draws, len(self.labels)), value) for name, value in start.items()}

    def add(self, rows: slice, values: np.ndarray) -> None:
        """Take draws of some rows, [N, rows]; each row once."""
        if not self.drawn:
            self.drawn = self._empty(len(values))
        self._add(self.drawn, rows, values)

    def _add(self, into: dict[str, np.ndarray], rows: slice, values: np.ndarray) -> None:
        code = self.code[rows]
        order = np.argsort(code, kind="stable")
        ranked = code[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        groups = ranked[starts]
        # Deviations from what was measured: sums of squares of these lose no digits.
        deviation = values[:, order] - self.centre[ranked]
        into["sum"][:, groups] += np.add.reduceat(deviation, starts, axis=1)
        into["square"][:, groups] += np.add.reduceat(deviation**2, starts, axis=1)
        far = (np.abs(deviation) > 2 * self.spread[ranked]).astype(np.float64)
        into["tail"][:, groups] += np.add.reduceat(far, starts, axis=1)
        for name, function in (("min", np.minimum), ("max", np.maximum)):
            into[name][:, groups] = function(into[name][:, groups], function.reduceat(deviation, starts, axis=1))

    def _statistics(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        n = np.maximum(self.count, 1)
        mean = sums["sum"] / n
        sd = np.sqrt(np.maximum(sums["square"] / n - mean**2, 0))
        return {"mean": mean, "sd": sd, "min": sums["min"], "max": sums["max"], "tail": sums["tail"] / n}

    def p_values(self) -> PValues:
        """Return the p-values of groups of five rows and more."""
        kept = self.count >= FEWEST_ROWS
        observed, drawn = self._statistics(self.observed), self._statistics(self.drawn)
        values = {}
        for name in STATISTICS:
            larger = (drawn[name] > observed[name]) + 0.5 * (drawn[name] == observed[name])
            values[name] = larger.mean(0)[kept]
        return PValues(self.grouping, self.labels[kept], values)


def judge(found: PValues) -> Item:
    """Judge the p-values of one grouping by the statistic with the most extreme ones."""
    name = f"posterior predictive by {found.grouping}"
    if not len(found.labels):
        return Item(name, "pass", f"no {found.grouping} has {FEWEST_ROWS} rows: nothing to compare")
    shares = {
        statistic: float(((values < EXTREME) | (values > 1 - EXTREME)).mean())
        for statistic, values in found.values.items()
    }
    worst = max(shares, key=lambda statistic: shares[statistic])
    said = ", ".join(f"{statistic} {share:.0%}" for statistic, share in shares.items())
    sentence = f"of {len(found.labels):,} {found.grouping}s, p is below {EXTREME} or above {1 - EXTREME} in: {said}"
    status = judged(shares[worst], WARN, FAIL)
    if status != "pass":
        groups = found.values[worst]
        most = found.labels[np.argsort(-np.abs(groups - 0.5), kind="stable")][0]
        sentence += f"; worst is the {worst}, as in {most}"
    return Item(name, status, sentence, shares)


def judge_all(groups: Sequence[Groups]) -> tuple[list[Item], list[PValues]]:
    """Judge every grouping."""
    found = [each.p_values() for each in groups]
    return [judge(each) for each in found], found
