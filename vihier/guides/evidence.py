"""The collapsed density of a screen: log p(rows, scales) with every location integrated out, over gene blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vihier.guides.block import Block, Theta, scale_log_prior, shared_design, shared_sd, variances
from vihier.guides.structure import Structure
from vihier.kernels.elimination import (
    Eliminated,
    NaturalParameters,
    SharedPosterior,
    Variances,
    eliminate,
    natural_parameters,
    solve_shared,
)


@dataclass(frozen=True)
class Collapsed:
    """A block's genes with their own locations integrated out, and what they say of the shared ones.

    The evidence of `eliminated` is at t = 0; `natural` is None where genes share no location.
    """

    spread: Variances
    eliminated: Eliminated
    natural: NaturalParameters | None


def collapse(structure: Structure, theta: Theta, block: Block) -> Collapsed:
    """Eliminate a block's own locations for N draws of the scales."""
    spread = variances(structure, theta, block)
    eliminated = eliminate(block.data, spread)
    design = shared_design(structure, block)
    if design is None:
        return Collapsed(spread, eliminated, None)
    return Collapsed(spread, eliminated, natural_parameters(block.data, spread, eliminated, design[0]))


def shared_posterior(structure: Structure, theta: Theta, block: Block, natural: NaturalParameters) -> SharedPosterior:
    """Condition the shared locations on what all genes say of them."""
    design = shared_design(structure, block)
    assert design is not None
    return solve_shared(natural, shared_sd(structure, theta, block), design[1])


def global_log_prior(structure: Structure, theta: Theta, block: Block) -> Tensor:
    """Log prior density, shape [N], of the log-scales shared by genes."""
    total = next(iter(theta.values())).new_zeros(())
    for scale in structure.scales:
        if scale.plates != ("gene",):
            prior = scale_log_prior(structure, scale, theta, block)
            total = total + (prior.sum(0) if scale.plates else prior)
    return total


def gene_log_prior(structure: Structure, theta: Theta, block: Block) -> Tensor:
    """Log prior density, shape [B, N], of the genes' own log-scales."""
    genes = [scale for scale in structure.scales if scale.plates == ("gene",)]
    zero = next(iter(theta.values())).new_zeros(())
    return sum((scale_log_prior(structure, scale, theta, block) for scale in genes), zero)


def sum_natural(parts: Sequence[NaturalParameters | None]) -> NaturalParameters | None:
    """Add the natural parameters of disjoint blocks, in their order; None where genes share nothing."""
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total


def collapsed_log_joint(structure: Structure, theta: Theta, block: Block) -> Tensor:
    """Log p(rows, log-scales), shape [N], for a block that is the whole screen: the closed-form evidence."""
    collapsed = collapse(structure, theta, block)
    total = collapsed.eliminated.log_evidence.sum(0)
    if collapsed.natural is not None:
        total = total + shared_posterior(structure, theta, block, collapsed.natural).log_evidence
    total = total + global_log_prior(structure, theta, block)
    return total + gene_log_prior(structure, theta, block).sum(0)
