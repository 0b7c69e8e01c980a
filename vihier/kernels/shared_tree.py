"""The tables shared by genes once the genes' own are known: lines are independent, and the tables a tree.

What the rows say of line c's shared part t[c] is exp(rhs[c] t[c] - weight[c] t[c]^2 / 2), with t = line + lineage +
top, Normal deviations of mean zero each. A level is integrated out by shrinking what it says of the level above.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """What the rows say of some elements: weight and rhs, [E, N], and the log evidence, [N], of what is below them.

    Here and in the evidence, N may be several axes.
    """

    weight: Tensor
    rhs: Tensor
    log_evidence: Tensor


@dataclass(frozen=True)
class SharedVariances:
    """Prior variances of the tables over lines [C or 1, N], lineages [L or 1, N] and nothing [N]; None where absent."""

    line: Tensor | None
    lineage: Tensor | None
    top: Tensor | None


def log_evidence(weight: Tensor, rhs: Tensor, variance: Tensor | None) -> Tensor:
    """Log of the integral of exp(rhs t - weight t^2 / 2) over t ~ N(0, variance), element by element."""
    if variance is None:
        return torch.zeros_like(weight)
    precision = 1.0 + variance * weight
    return 0.5 * (variance * rhs.square() / precision - precision.log())


def integrate(level: Level, variance: Tensor | None, parent: Tensor | None) -> Level:
    """Integrate a level's own deviations out.

    Parameters
    ----------
    level : Level
        Of E elements.
    variance : Tensor or None
        Prior variances, [E or 1, N]; None where the level has no deviations of its own.
    parent : Tensor or None
        One-hot parent of each element, [E, P]; None where all have one.
    """
    weight, rhs, below = level.weight, level.rhs, level.log_evidence
    if variance is not None:
        shrink = 1.0 / (1.0 + variance * weight)
        below = below + 0.5 * (variance * shrink * rhs.square() + shrink.log()).sum(0)
        weight, rhs = shrink * weight, shrink * rhs
    if parent is None:
        return Level(weight.sum(0, keepdim=True), rhs.sum(0, keepdim=True), below)
    return Level(torch.tensordot(parent.T, weight, 1), torch.tensordot(parent.T, rhs, 1), below)


def lineage_level(weight: Tensor, rhs: Tensor, variances: SharedVariances, lineage: Tensor) -> Level:
    """Integrate the line table out; where there is no table over lineages, all lines have one parent."""
    rows = Level(weight, rhs, weight.new_zeros(weight.shape[1:]))
    return integrate(rows, variances.line, None if variances.lineage is None else lineage)


def tree_log_evidence(level: Level, variances: SharedVariances) -> Tensor:
    """Log evidence, [N], with everything integrated out, from what `lineage_level` gives."""
    top = level if variances.lineage is None else integrate(level, variances.lineage, None)
    variance = None if variances.top is None else variances.top[None]
    return top.log_evidence + log_evidence(top.weight, top.rhs, variance).sum(0)


def draw_above_lines(
    level: Level, variances: SharedVariances, lineage: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the tables over lineages, [L, N], and over nothing, [N], lines integrated out; zero where absent.

    Parameters
    ----------
    level : Level
        From `lineage_level`.
    noise : Tensor
        Standard normals, shape [L + 1, N].

    Returns
    -------
    lineages, top, above
        The last is the sum of both for each line, [C, N].
    """
    highest = level if variances.lineage is None else integrate(level, variances.lineage, None)
    top = torch.zeros_like(noise[-1])
    if variances.top is not None:
        top = _draw(highest.weight[0], highest.rhs[0], variances.top, noise[-1])
    groups = torch.zeros_like(noise[:-1])
    above = top.expand(len(lineage), -1)
    if variances.lineage is not None:
        groups = _draw(level.weight, level.rhs - level.weight * top, variances.lineage, noise[:-1])
        above = top + lineage @ groups
    return groups, top, above


def draw_lines(weight: Tensor, rhs: Tensor, variances: SharedVariances, above: Tensor, noise: Tensor) -> Tensor:
    """Draw the table over lines, [C, N], given what is above it, from standard normals; zero where absent."""
    if variances.line is None:
        return torch.zeros_like(noise)
    return _draw(weight, rhs - weight * above, variances.line, noise)


def _draw(weight: Tensor, rhs: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    spread = variance / (1.0 + variance * weight)
    return spread * rhs + spread.sqrt() * noise
