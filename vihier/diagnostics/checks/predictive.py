"""Whether rows drawn from the fit look like the rows measured, by gene, by line, by lineage and by replicate.

Posterior predictive p-values (Gelman, Meng & Stern 1996, Statistica Sinica 6, 733) of five statistics of each group. A
right model has few of them near 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vihier.diagnostics.checks.items import Item, Status, judged

# What a difference must be to matter, with thousands of rows: of the mean and the extremes in sds of the group, of the
# sd relative to it, of the share of rows beyond two sds.
STATISTICS = {"mean": 0.1, "sd": 0.15, "min": 1.0, "max": 1.0, "tail": 0.02}
# Intervals do not rest on a group's single lowest and highest row: these warn and never fail.
MILD = ("min", "max")
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
    sizes
        Statistic -> how far its mean over draws is from the measured, in the units of `STATISTICS`, [k].
    """

    grouping: str
    labels: np.ndarray
    values: Mapping[str, np.ndarray]
    sizes: Mapping[str, np.ndarray]

    def off(self, statistic: str) -> np.ndarray:
        """Mark the groups whose p-value is extreme and whose difference is large enough to matter, bool [k]."""
        p = self.values[statistic]
        return ((p < EXTREME) | (p > 1 - EXTREME)) & (self.sizes[statistic] > STATISTICS[statistic])


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
        values, sizes = {}, {}
        for name in STATISTICS:
            larger = (drawn[name] > observed[name]) + 0.5 * (drawn[name] == observed[name])
            values[name] = larger.mean(0)[kept]
            unit = 1.0 if name == "tail" else np.maximum(self.spread, 1e-12)
            sizes[name] = (np.abs(drawn[name].mean(0) - observed[name][0]) / unit)[kept]
        return PValues(self.grouping, self.labels[kept], values, sizes)


def judge(found: PValues) -> Item:
    """Judge the p-values of one grouping by the statistic with the most extreme ones."""
    name = f"posterior predictive by {found.grouping}"
    if not len(found.labels):
        return Item(name, "pass", f"no {found.grouping} has {FEWEST_ROWS} rows: nothing to compare")
    shares = {statistic: float(found.off(statistic).mean()) for statistic in STATISTICS}
    statuses = {each: judged(share, WARN, np.inf if each in MILD else FAIL) for each, share in shares.items()}
    status: Status = "fail" if "fail" in statuses.values() else "warn" if "warn" in statuses.values() else "pass"
    said = ", ".join(f"{statistic} {share:.0%}" for statistic, share in shares.items())
    sentence = (
        f"of {len(found.labels):,} {found.grouping}s, rows drawn differ from the measured, p beyond {EXTREME}: {said}"
    )
    if status != "pass":
        worst = max((each for each in shares if statuses[each] == status), key=lambda each: shares[each])
        most = found.labels[np.argmax(np.where(found.off(worst), found.sizes[worst], 0))]
        sentence += f"; most in the {worst}, of {most} above all"
    return Item(name, status, sentence, shares)


def judge_all(groups: Sequence[Groups]) -> tuple[list[Item], list[PValues]]:
    """Judge every grouping."""
    found = [each.p_values() for each in groups]
    return [judge(each) for each in found], found
