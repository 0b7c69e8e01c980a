"""What sweeps ask of a log-scale: its log density with the deviations that it scales held, or taken along."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Density = Callable[[Tensor], Tensor]


def held_density(
    prior: Density, start: Tensor, number: Tensor, squares: Tensor, products: Tensor | None = None
) -> Density:
    """Log density of a log-scale with the deviations held; `squares` are standardised at `start`.

    `products` of these deviations and of others that they are correlated with, likewise, grow with one factor.
    """
    start, number, squares = (value.unsqueeze(-2) for value in (start, number, -0.5 * squares))
    products = None if products is None else products.unsqueeze(-2)

    def density(x: Tensor) -> Tensor:
        shift = x - start
        found = prior(x) - number * shift + squares * (-2 * shift).exp()
        return found if products is None else found - products * (-shift).exp()

    return density


def rows_density(prior: Density, start: Tensor, pull: Tensor, weight: Tensor) -> Density:
    """Log density of a log-scale that takes its deviations along: with f the factor, the rows say f b - f^2 a / 2."""
    start, pull, weight = (value.unsqueeze(-2) for value in (start, pull, -0.5 * weight))

    def density(x: Tensor) -> Tensor:
        factor = (x - start).exp()
        return prior(x) + factor * (pull + factor * weight)

    return density
