"""How far the guide's own draws can be trusted: k-hat of the globals, and of each gene given the globals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vihier.diagnostics.psis import pareto_khat
from vihier.guides.block import Block, Theta, shared_design, take_genes, variances
from vihier.guides.deviations import normal_like
from vihier.guides.evidence import gene_log_prior, global_log_prior, shared_posterior
from vihier.guides.scales import ScaleGuide
from vihier.guides.structure import Structure
from vihier.inference.threads import in_threads
from vihier.kernels.elimination import NaturalParameters, SharedPosterior, draw_shared, eliminate

# Elements of an array [genes, lines, draws]: in all, for the work; at once, for the memory.
ELEMENTS = 6_000_000
ELEMENTS_AT_ONCE = 400_000
N_INNER = 8
DRIFT_ALLOWED = 0.2


@dataclass(frozen=True)
class Trust:
    """Pareto k-hat of a guide, before any sweeps.

    `globals` is that of all scales and locations shared by genes, everything local integrated out; `genes` [G] that of
    each gene's own scales given the globals, at the guide's centre.
    """

    globals: float
    genes: np.ndarray


@dataclass(frozen=True)
class Globals:
    """N draws of what genes share: log-scales, what genes' scales regress on, [N, H], and each line's part, [C, N]."""

    theta: Theta
    standard: Tensor
    column: Tensor | None


def guide_trust(
    structure: Structure,
    guide: ScaleGuide,
    blocks: Sequence[Block],
    natural: NaturalParameters | None,
    random: Callable[..., torch.Generator],
) -> Trust:
    """Weigh draws of the guide against the posterior.

    The log weight of a draw of the globals is log p(rows, globals) - log q(globals). What is local to a gene is
    integrated out: locations exactly, the gene's own scales by importance sampling from the guide.

    Parameters
    ----------
    blocks : sequence of Block
        The whole screen; float32 does for its evidence, gene by gene.
    natural : NaturalParameters or None
        What all genes say of the shared locations at the guide's centre, for one draw; q(shared | scales) follows.
    random : callable
        `random(*keys)` makes a generator keyed to a purpose.
    """
    like = guide.origin
    cells = guide.gene_origin.shape[0] * blocks[0].data.lineage.shape[0]
    n_inner = N_INNER if guide.gene_sites else 1
    n = int(min(500, max(100, ELEMENTS // (cells * n_inner))))
    keyed = random("trust")
    theta, log_q, standard = guide.sample_globals(normal_like(like.new_empty(n, len(guide.origin)), keyed))
    log_p = global_log_prior(structure, theta, blocks[0])
    column = None
    if natural is not None:
        many = NaturalParameters(natural.precision.expand(n, -1, -1), natural.rhs.expand(n, -1))
        posterior = shared_posterior(structure, theta, blocks[0], many)
        totals = draw_shared(posterior, normal_like(posterior.scale, keyed))
        shared_p, shared_q = shared_log_densities(posterior, totals)
        log_p, log_q = log_p + shared_p, log_q + shared_q
        column = columns_of(structure, blocks[0], totals)

    def weights(number: int, block: Block, at: Globals, n_inner: int) -> Tensor:
        return _gene_weights(structure, guide, block, at, n_inner, random("trust", n_inner, number))

    def of_genes(at: Globals, n_inner: int) -> Iterator[tuple[Block, Tensor]]:
        pieces = list(_pieces(blocks, len(at.standard) * n_inner))
        found = in_threads(lambda x: weights(*x, at, n_inner), list(enumerate(pieces)), like.device)
        return zip(pieces, found, strict=True)

    for _, weight in of_genes(Globals(theta, standard, column), n_inner):
        log_p = log_p + (weight.logsumexp(1) - math.log(n_inner)).sum(0)
    genes = np.full(guide.gene_origin.shape[0], -np.inf)
    if guide.gene_sites:
        theta, _, standard = guide.sample_globals(torch.zeros_like(guide.origin)[None])
        at = Globals(theta, standard, None if column is None else column.mean(1, keepdim=True))
        for block, weight in of_genes(at, int(min(1000, max(200, ELEMENTS // cells)))):
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
    structure: Structure, guide: ScaleGuide, block: Block, at: Globals, n_inner: int, random: torch.Generator
) -> Tensor:
    """Log weights of `n_inner` draws of each gene's own scales for each of N draws of the globals, [B, n_inner, N].

    All draws of the globals see the same standard normals, so that what the few inner draws get wrong is common to them
    and does not look like weight.
    """
    idx = block.batch.gene_idx
    n = len(at.standard)
    noise = normal_like(at.standard.new_empty(len(idx), len(guide.gene_sites), n_inner), random)
    noise = noise[..., None].expand(-1, -1, -1, n).flatten(2)
    own, own_log_q = guide.sample_genes(noise, at.standard.repeat(n_inner, 1), idx)
    both = {name: _repeat(value, n_inner) for name, value in at.theta.items()} | own
    columns = None if at.column is None else _repeat(at.column, n_inner)
    try:
        evidence = _evidence(structure, both, block, columns)
    except torch.linalg.LinAlgError:  # in single precision
        evidence = _evidence(structure, both, replace(block, data=block.data.double()), columns)
    return (evidence.to(own_log_q) + gene_log_prior(structure, both, block) - own_log_q).reshape(len(idx), n_inner, n)


def _evidence(structure: Structure, theta: Theta, block: Block, columns: Tensor | None) -> Tensor:
    """Log evidence of each gene, in the precision of the block."""
    as_rows = {name: value.to(block.data.square) for name, value in theta.items()}
    return eliminate(block.data, variances(structure, as_rows, block), columns).log_evidence


def _repeat(values: Tensor, times: int) -> Tensor:
    return values.repeat(*([1] * (values.dim() - 1)), times)


def columns_of(structure: Structure, block: Block, totals: Tensor) -> Tensor:
    """Add up shared deviations, shape [N, P], to the shared part of each line's mean, [C, N]."""
    design = shared_design(structure, block)
    assert design is not None
    resolution, coarse = design
    coarse = coarse.to(totals)
    elements = totals.T[: len(coarse)] + coarse @ totals.T[len(coarse) :]
    return elements if resolution is None else resolution.to(totals) @ elements


def shared_log_densities(posterior: SharedPosterior, totals: Tensor) -> tuple[Tensor, Tensor]:
    """Log prior and log guide density of the shared deviations, shapes [N], up to the same constant."""
    standard = totals / posterior.scale
    noise = (posterior.chol.mT @ standard[..., None])[..., 0] - posterior.solution
    log_q = posterior.chol.diagonal(dim1=-2, dim2=-1).log().sum(1) - 0.5 * noise.square().sum(1)
    return -0.5 * standard.square().sum(1), log_q


def sweep_drift(first: Tensor, last: Tensor) -> tuple[float, float]:
    """Say how far chains moved together between two sweeps, and how far they may by chance.

    Parameters
    ----------
    first, last : Tensor
        Log-scales shared by genes of N chains at either sweep, shape [N, E].

    Returns
    -------
    drift : float
        Largest move of a mean over chains, in sds between chains.
    limit : float
        `DRIFT_ALLOWED`, and four standard errors of such a move were the chains' two states independent.

    Examples
    --------
    >>> chains = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> drift, limit = sweep_drift(chains, chains + 1)
    >>> round(drift, 1), drift > limit
    (1.0, True)
    """
    spread = (0.5 * (first.var(0) + last.var(0))).sqrt()
    drift = ((last.mean(0) - first.mean(0)).abs() / spread.clamp_min(1e-12)).max()
    return float(drift), DRIFT_ALLOWED + 4 * math.sqrt(2 / len(first))
