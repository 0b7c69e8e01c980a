"""How far the guide's own draws can be trusted: k-hat of the globals, and of each gene given the globals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vihier.diagnostics.psis import pareto_khat
from vihier.guides.block import Block, Theta, shared_design, take_genes, variances
from vihier.guides.evidence import gene_log_prior, global_log_prior, shared_posterior
from vihier.guides.scales import ScaleGuide
from vihier.guides.structure import Structure
from vihier.kernels.elimination import NaturalParameters, SharedPosterior, draw_shared, eliminate

# Elements of an array [genes, lines, draws]: in all, for the work; at once, for the memory.
ELEMENTS = 20_000_000
ELEMENTS_AT_ONCE = 2_000_000
N_INNER = 8


@dataclass(frozen=True)
class Trust:
    """Pareto k-hat of a guide, before any sweeps.

    `globals` is that of all scales and locations shared by genes, everything local integrated out; `genes` [G] that of
    each gene's own scales given the globals, at the guide's centre.
    """

    globals: float
    genes: np.ndarray


def guide_trust(
    structure: Structure,
    guide: ScaleGuide,
    blocks: Sequence[Block],
    natural: NaturalParameters | None,
    normal: Callable[..., Tensor],
) -> Trust:
    """Weigh draws of the guide against the posterior.

    The log weight of a draw of the globals is log p(rows, globals) - log q(globals). What is local to a gene is
    integrated out: locations exactly, the gene's own scales by importance sampling from the guide.

    Parameters
    ----------
    natural : NaturalParameters or None
        What all genes say of the shared locations at the guide's centre, for one draw; q(shared | scales) follows.
    normal : callable
        `normal(*shape)` draws standard normals.
    """
    cells = guide.gene_origin.shape[0] * blocks[0].data.lineage.shape[0]
    n_inner = N_INNER if guide.gene_sites else 1
    n = int(min(500, max(100, ELEMENTS // (cells * n_inner))))
    theta, log_q, standard = guide.sample_globals(normal(n, len(guide.origin)))
    log_p = global_log_prior(structure, theta, blocks[0])
    column = None
    if natural is not None:
        many = NaturalParameters(natural.precision.expand(n, -1, -1), natural.rhs.expand(n, -1))
        posterior = shared_posterior(structure, theta, blocks[0], many)
        totals = draw_shared(posterior, normal(*posterior.scale.shape))
        shared_p, shared_q = shared_log_densities(posterior, totals)
        log_p, log_q = log_p + shared_p, log_q + shared_q
        column = columns_of(structure, blocks[0], totals)
    for block in _pieces(blocks, n * n_inner):
        weight = _gene_weights(structure, guide, block, theta, standard, column, n_inner, normal)
        log_p = log_p + (weight.logsumexp(1) - math.log(n_inner)).sum(0)
    genes = np.full(guide.gene_origin.shape[0], -np.inf)
    if guide.gene_sites:
        many_inner = int(min(1000, max(200, ELEMENTS // cells)))
        theta, _, standard = guide.sample_globals(torch.zeros_like(guide.origin)[None])
        if column is not None:
            column = column.mean(1, keepdim=True)
        for block in _pieces(blocks, many_inner):
            weight = _gene_weights(structure, guide, block, theta, standard, column, many_inner, normal)
            genes[block.batch.gene_idx.cpu().numpy()] = pareto_khat(weight[..., 0].cpu().numpy())
    return Trust(float(pareto_khat((log_p - log_q).cpu().numpy())), genes)


def _pieces(blocks: Sequence[Block], n_draws: int) -> Iterator[Block]:
    """Cut blocks into parts whose arrays with that many draws stay within memory."""
    for block in blocks:
        n_genes, _, n_lines = block.data.count.shape
        size = max(1, ELEMENTS_AT_ONCE // (n_lines * n_draws))
        for first in range(0, n_genes, size):
            yield take_genes(block, torch.arange(first, min(first + size, n_genes), device=block.slot.device))


def _gene_weights(
    structure: Structure,
    guide: ScaleGuide,
    block: Block,
    theta: Theta,
    standard: Tensor,
    column: Tensor | None,
    n_inner: int,
    normal: Callable[..., Tensor],
) -> Tensor:
    """Log weights of `n_inner` draws of each gene's own scales for each of N draws of the globals, [B, n_inner, N].

    All draws of the globals see the same standard normals, so that what the few inner draws get wrong is common to them
    and does not look like weight.
    """
    idx = block.batch.gene_idx
    n = len(standard)
    noise = normal(len(idx), len(guide.gene_sites), n_inner)[..., None].expand(-1, -1, -1, n).flatten(2)
    own, own_log_q = guide.sample_genes(noise, standard.repeat(n_inner, 1), idx)
    both = {name: _repeat(value, n_inner) for name, value in theta.items()} | own
    columns = None if column is None else _repeat(column, n_inner)
    evidence = eliminate(block.data, variances(structure, both, block), columns).log_evidence
    return (evidence + gene_log_prior(structure, both, block) - own_log_q).reshape(len(idx), n_inner, n)


def _repeat(values: Tensor, times: int) -> Tensor:
    return values.repeat(*([1] * (values.dim() - 1)), times)


def columns_of(structure: Structure, block: Block, totals: Tensor) -> Tensor:
    """Add up shared deviations, shape [N, P], to the shared part of each line's mean, [C, N]."""
    design = shared_design(structure, block)
    assert design is not None
    resolution, coarse = design
    elements = totals.T[: len(coarse)] + coarse @ totals.T[len(coarse) :]
    return elements if resolution is None else resolution @ elements


def shared_log_densities(posterior: SharedPosterior, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Log prior and log guide density of the shared deviations, shapes [N], up to the same constant."""
    standard = totals / posterior.scale
    noise = (posterior.chol.mT @ standard[..., None])[..., 0] - posterior.solution
    log_q = posterior.chol.diagonal(dim1=-2, dim2=-1).log().sum(1) - 0.5 * noise.square().sum(1)
    return -0.5 * standard.square().sum(1), log_q
