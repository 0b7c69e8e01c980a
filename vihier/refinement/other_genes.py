"""What the genes that are not refined say of everything that genes share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.kernels.elimination import NaturalParameters


@dataclass(frozen=True)
class Profiles:
    """Log likelihoods along single log-scales, by their derivatives at points, linear between and constant beyond.

    Attributes
    ----------
    positions : Tensor
        Which elements of the vector of log-scales, shape [W].
    points, slopes : Tensor
        Ascending points and the derivatives there, shape [W, K].
    """

    positions: Tensor
    points: Tensor
    slopes: Tensor

    def add_to(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return the sum of the log likelihoods, each zero at its first point, and add its gradient."""
        at = x[self.positions]
        points, slopes = self.points, self.slopes
        inside = at.clamp(points[:, 0], points[:, -1])
        place = (torch.searchsorted(points, inside[:, None].contiguous()) - 1).clamp(0, points.shape[1] - 2)

        def of(table: Tensor, by: int = 0) -> Tensor:
            return table.gather(1, place + by)[:, 0]

        width = points.diff(dim=1)
        areas = torch.nn.functional.pad((0.5 * (slopes[:, 1:] + slopes[:, :-1]) * width).cumsum(1), (1, 0))
        step = inside - of(points)
        steepening = (of(slopes, 1) - of(slopes)) / of(width)
        slope = of(slopes) + steepening * step
        gradient.index_add_(0, self.positions, slope)
        # Before the first and after the last point the slope stays as it is there.
        return (of(areas) + (of(slopes) + 0.5 * steepening * step) * step + slope * (at - inside)).sum()


@dataclass(frozen=True)
class OtherGenes:
    """The other genes' likelihood of the shared scales and locations, about a centre.

    log L(x, t) = score . (x - centre) - (x - centre) curvature (x - centre) / 2 + profiles(x) + rhs . t
    - t precision t / 2. A scale has either a profile or a place in the quadratic form.

    Attributes
    ----------
    positions : Tensor
        Which elements of the vector of log-scales are in the quadratic form, shape [E].
    centre, score : Tensor
        Shape [E].
    curvature : Tensor
        Shape [E, E], positive semi-definite.
    profiles : Profiles or None
        Of the scales that the guide is so unsure of that a quadratic form would not do.
    natural : NaturalParameters or None
        Of the shared part of each line's mean, for one draw; None where genes share no location.
    """

    positions: Tensor
    centre: Tensor
    score: Tensor
    curvature: Tensor
    profiles: Profiles | None
    natural: NaturalParameters | None

    def add_to(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return the log likelihood of log-scales x with t out, and add its gradient."""
        shift = x[self.positions] - self.centre
        pull = self.curvature @ shift
        gradient.index_add_(0, self.positions, self.score - pull)
        value = self.score @ shift - 0.5 * shift @ pull
        return value if self.profiles is None else value + self.profiles.add_to(x, gradient)
