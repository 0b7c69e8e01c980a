"""The ELBO of the scales' guide and its gradient, every location integrated out or drawn from its exact conditional."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, of_genes, variances
from vihier.guides.deviations import draw_shared_deviations
from vihier.guides.evidence import collapsed_log_joint, gene_log_prior, global_log_prior, shared_posterior
from vihier.guides.scales import ScaleGuide
from vihier.guides.structure import Structure
from vihier.inference.threads import in_threads
from vihier.kernels.elimination import NaturalParameters, eliminate

Noise = tuple[Tensor, Tensor]
"""Standard normals for N draws of the globals, [N, E], and of the genes' scales, [G, m, N]."""


def joint_gradient(structure: Structure, guide: ScaleGuide, block: Block, noise: Noise, n_rows: int) -> float:
    """Accumulate the gradient of minus the ELBO per row, and return the ELBO: one block is the whole screen.

    The locations shared by genes are integrated out at every draw of the scales.
    """
    theta, log_q, standard = guide.sample_globals(noise[0])
    own, own_log_q = guide.sample_genes(noise[1], standard, block.batch.gene_idx)
    elbo = collapsed_log_joint(structure, theta | own, block) - log_q - own_log_q.sum(0)
    (-elbo.mean() / n_rows).backward()
    return float(elbo.detach().mean())


def blocked_gradient(
    structure: Structure,
    guide: ScaleGuide,
    blocks: Sequence[Block],
    frozen: NaturalParameters | None,
    noise: Noise,
    random: torch.Generator,
    n_rows: int,
) -> float:
    """Accumulate the gradient of minus the ELBO per row, and return the ELBO, over many blocks.

    Shared locations are drawn given what genes said of them when it was last summed up, `frozen`. With q(u)
    proportional to p(u) exp(b u - u Lambda u / 2), whose normaliser is Z, log p(u) - log q(u) is
    log Z - b u + u Lambda u / 2. Each block's gradient is taken while the block is at hand; the sum over blocks, in
    their order, is that of all genes at once.
    """
    theta, log_q, standard = guide.sample_globals(noise[0])
    own, own_log_q = guide.sample_genes(noise[1], standard, torch.arange(len(noise[1]), device=standard.device))
    theta |= own
    n = len(noise[0])
    held = {name: value.detach().requires_grad_() for name, value in theta.items()}
    shared = global_log_prior(structure, held, blocks[0])
    column = None
    correction = 0.0
    if frozen is not None:
        natural = NaturalParameters(frozen.precision.expand(n, -1, -1), frozen.rhs.expand(n, -1))
        shared = shared + shared_posterior(structure, held, blocks[0], natural).log_evidence
        with torch.no_grad():
            _, column, elements = draw_shared_deviations(structure, held, blocks[0], natural, random)
            said = (natural.rhs.T * elements).sum(0)
            said = said - 0.5 * (elements * (frozen.precision[0] @ elements)).sum(0)
            correction = float(said.mean())
    shared.sum().backward()
    total = float((shared.detach() - log_q.detach() - own_log_q.detach().sum(0)).mean()) - correction
    gradients = {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in held.items()}
    found = in_threads(lambda x: _block_gradient(structure, x, held, column), blocks, standard.device)
    for block, (log_joint, of_block) in zip(blocks, found, strict=True):
        total += log_joint
        for name, gradient in of_block.items():
            gradients[name][block.batch.gene_idx if name in own else slice(None)] += gradient
    outputs = [(value, gradients[name]) for name, value in theta.items()]
    outputs += [(density, torch.full_like(density, -1.0)) for density in (log_q, own_log_q)]
    used = [(value, -gradient / (n * n_rows)) for value, gradient in outputs if value.requires_grad]
    torch.autograd.backward([value for value, _ in used], [gradient for _, gradient in used])
    return total


def _block_gradient(structure: Structure, block: Block, held: Theta, column: Tensor | None) -> tuple[float, Theta]:
    """Log joint of a block's rows and genes' scales, mean over draws, and the gradient of its sum over draws."""
    mine = of_genes(structure, held, block.batch)
    theta = {name: value.detach().requires_grad_() for name, value in mine.items()}
    with torch.enable_grad():
        evidence = eliminate(block.data, variances(structure, theta, block), column).log_evidence
        log_joint = (evidence + gene_log_prior(structure, theta, block)).sum(0)
        gradients = torch.autograd.grad(log_joint.sum(), list(theta.values()), allow_unused=True)
    found = {name: gradient for name, gradient in zip(theta, gradients, strict=True) if gradient is not None}
    return float(log_joint.detach().mean()), found
