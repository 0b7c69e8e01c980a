"""Degrees of freedom moved on points that are chosen before a pass: one pass over the rows gives the density at all.

The points are a lattice through where a chain is, which is at a random place of it, so that each of them would have
had the same lattice with the same chance; one is drawn in proportion to the density (Tjelmeland 2004, Norwegian
University of Science and Technology, Statistics 4/2004).

The lattice is even in y = log(nu / (nu + 1)), and all noise scales move along with exp(y). By the Student-t's
information matrix that is the way along which the rows' density changes least; n rows then know y to 0.85 / sqrt(n),
whatever nu.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.block import Theta
from vihier.guides.mixed_model import Structure

N_POINTS = 8
# Degrees of freedom that are as good as those of a Normal.
LARGEST = 1e6
# Between points, in 1 / sqrt(n): 0.6 sds; and the longest.
STEP, LONGEST = 0.5, 0.1
# The first moves, in the burn-in, are by Newton's method on lattices of such steps and then shorter ones, each time by
# this: of those that suit a posterior, points are so near that their densities, of single rows in single
# precision, do not show a bend from far off. A lattice whose densities do not bend is gone over by its own length.
FAR_OFF, FIRST, SHORTER = 6, 0.02, 3.0


@dataclass(frozen=True)
class FreedomPoints:
    """Points of the logarithm of the degrees of freedom, chains last.

    Attributes
    ----------
    log_source : Tensor
        Of the scale that the degrees of freedom refer to, float64, shape [P, K, N], or [P, N] where all rows have one.
    log_jacobian : Tensor
        Logarithm of the derivative of that logarithm by y; minus infinity at a point that is none.
    moved : Tensor
        How far y is from where the chain is.
    shift : Tensor
        How far the logarithms of the noise scales go along: zero where rows have several degrees of freedom.
    inverse : Tensor
        What the squared residuals in units of the present noise scales are times, for z^2 / nu at the points; as
        `log_source`.
    """

    log_source: Tensor
    log_jacobian: Tensor
    moved: Tensor
    shift: Tensor
    inverse: Tensor

    def of_chains(self, at: slice) -> FreedomPoints:
        """Return those of some chains."""
        return FreedomPoints(*(x[..., at] for x in vars(self).values()))

    def at_maximum(self, structure: Structure, log_density: Tensor) -> FreedomPoints:
        """Return one point: where a parabola through the points' densities is largest; not far beyond them."""
        finite = log_density.isfinite()
        weight = finite.double()
        t = self.moved / (self.moved[-1] - self.moved[0])
        design = torch.stack([torch.ones_like(t), t, t.square()], -1).movedim(0, -2)  # [..., P, 3]
        values = torch.where(finite, log_density, 0.0)
        values = (values - values.amax(0)).movedim(0, -1)
        weighed = design * weight.movedim(0, -1)[..., None]
        solved = torch.linalg.lstsq(weighed, (values * weight.movedim(0, -1))[..., None]).solution[..., 0]
        slope, bend = solved[..., 1], solved[..., 2]
        best = torch.where(bend < 0, -slope / (2 * bend), slope.sign())
        moved = best.clamp(-1, 1) * (self.moved[-1] - self.moved[0])
        freedom = structure.freedom
        assert freedom is not None
        start = freedom.value_at(self.log_source.gather(0, (self.moved == 0).long().argmax(0)[None]))[0]
        y = (start / (start + 1)).log()
        return _points_at(structure, start, torch.minimum(moved, -0.5 * y)[None])


def freedom_points(
    structure: Structure, theta: Theta, n_rows: int, turn: int, random: torch.Generator
) -> FreedomPoints | None:
    """Choose points; None where rows have no degrees of freedom to move.

    Parameters
    ----------
    theta : dict
        Log-scales of the screen, chains last.
    turn : int
        How often they were moved before.
    """
    freedom = structure.freedom
    if freedom is None or freedom.source is None:
        return None
    start = freedom.value_at(theta[freedom.source].double())
    step = STEP / math.sqrt(n_rows / max(1, start.numel() // start.shape[-1]))
    step = min(max(step, FIRST / SHORTER**turn if turn < FAR_OFF else 0.0), LONGEST)
    place = torch.randint(N_POINTS, start.shape, generator=random, device=start.device)
    number = torch.arange(N_POINTS, device=start.device).reshape(-1, *[1] * start.dim())
    return _points_at(structure, start, step * (number - place))


def _points_at(structure: Structure, start: Tensor, moved: Tensor) -> FreedomPoints:
    """Return points at y moved by so much from that of degrees of freedom, points first."""
    freedom = structure.freedom
    assert freedom is not None
    # There are no degrees of freedom for y from zero on: such points have no density, and any value will do.
    y = (start / (start + 1)).log() + moved
    present = (y < -1 / LARGEST) | (moved == 0)
    freedoms = torch.where(moved == 0, start, 1 / torch.where(present, -y, 1.0).expm1())
    along = structure.noise is not None and start.dim() == 1
    shift = moved if along else torch.zeros_like(moved)
    log_jacobian = torch.where(present, (freedoms + 1).log(), -math.inf)
    return FreedomPoints((freedoms / freedom.factor).log(), log_jacobian, moved, shift, (-2 * shift).exp() / freedoms)


def chosen_point(log_density: Tensor, random: torch.Generator) -> Tensor:
    """Draw which of the points, the first axis, each element has, in proportion to their density."""
    uniform = torch.rand(log_density.shape, generator=random, dtype=log_density.dtype, device=log_density.device)
    return (log_density - (-uniform.log()).log()).argmax(0)
