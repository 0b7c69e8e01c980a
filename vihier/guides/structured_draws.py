"""A fitted structured guide: its draws of the scales and shared locations, and exact draws of everything else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vihier.diagnostics.psis import KHAT_LIMIT
from vihier.guides.block import SHARED, Block, Theta, in_single, make_block, of_genes, take_genes, variances
from vihier.guides.deviations import split_genes
from vihier.guides.evidence import gene_log_prior, global_log_prior, shared_posterior
from vihier.guides.interweave import Sweeper
from vihier.guides.scales import ScaleGuide
from vihier.guides.structure import Structure
from vihier.guides.trust import Trust, columns_of, shared_log_densities
from vihier.guides.values import centre, locations_of, to_sites, unpad
from vihier.inference.device import generator
from vihier.inference.threads import in_threads, one_thread
from vihier.kernels.elimination import Eliminated, NaturalParameters, draw_genes, eliminate
from vihier.models.batch import Batch

GENE_SWEEPS = 4
DRAWS_AT_ONCE = 64


@dataclass
class StructuredFit:
    """A fitted structured guide with its draws of the scales and of the shared locations.

    `theta` are log-scales of the whole screen, `shared` deviations of the shared locations; draws last. `frozen` is
    what the genes say of the shared locations at the guide's centre. `swept` is how many interweaving sweeps each chain
    made; 0 where the draws are the guide's own. `sweep_drift` is how far the means of the shared log-scales moved from
    the chains' first draw to their last, in sds; not a number where none was swept.
    """

    structure: Structure
    guide: ScaleGuide
    seed: int
    history: dict[str, np.ndarray]
    converged: bool
    reason: str
    theta: Theta
    shared: Theta
    frozen: NaturalParameters | None
    first: Block
    trust: Trust
    swept: int
    sweep_drift: float
    not_identified: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        log_p = global_log_prior(self.structure, self.theta, self.first)
        log_q = self.guide.global_log_density(self.theta)
        self.column: Tensor | None = None
        if self.frozen is not None:
            totals = self._totals()
            self.column = columns_of(self.structure, self.first, totals)
            parts = list(in_threads(lambda at: self._shared_densities(totals, at), self._slices(), log_p.device))
            log_p = log_p + torch.cat([shared_p for shared_p, _ in parts])
            log_q = log_q + torch.cat([shared_q for _, shared_q in parts])
        self._log_p, self._log_q = log_p, log_q

    def _slices(self) -> list[slice]:
        """Cut the draws into parts whose arrays fit a core's cache."""
        return [
            slice(first, min(first + DRAWS_AT_ONCE, self.n_draws)) for first in range(0, self.n_draws, DRAWS_AT_ONCE)
        ]

    def _shared_densities(self, totals: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        """Log prior and log guide density of some draws of the shared locations, up to the same constant."""
        assert self.frozen is not None
        theta = {name: value[..., at] for name, value in self.theta.items()}
        n = len(totals[at])
        many = NaturalParameters(self.frozen.precision.expand(n, -1, -1), self.frozen.rhs.expand(n, -1))
        return shared_log_densities(shared_posterior(self.structure, theta, self.first, many), totals[at])

    def _totals(self) -> Tensor:
        """Return the sums of the shared tables' deviations, shape [N, P]."""
        tables = []
        for plates in SHARED:
            parts = [location.reach * self.shared[location.name] for location in self.structure.table(plates)]
            if parts:
                tables.append(torch.stack(parts).sum(0).reshape(-1, self.n_draws))
        return torch.cat(tables).T

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return next(iter(self.theta.values())).shape[-1]

    @property
    def sample_stats(self) -> dict[str, np.ndarray]:
        """Log density of the posterior and of the guide at each draw, up to a constant, locations of genes out.

        Complete once every block is drawn.
        """
        return {"log_p": self._log_p.cpu().numpy(), "log_q": self._log_q.cpu().numpy()}

    @property
    def diagnostics(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Pareto k-hat of the guide: of the globals, and of each gene."""
        return {
            "khat_globals": ((), np.asarray(self.trust.globals)),
            "khat": (("hugo_symbol",), self.trust.genes),
            "sweeps": ((), np.asarray(self.swept)),
            "sweep_drift": ((), np.asarray(self.sweep_drift)),
        }

    def doubts(self, genes: np.ndarray) -> str | None:
        """Say in one sentence where the guide cannot be trusted; None where it can, or its draws were all swept.

        Draws that were moved by sweeps no longer depend on what the guide got wrong. On large screens only the genes
        with a high k-hat are swept, given the draws of what they share.
        """
        bad = [str(gene) for gene in np.asarray(genes)[self.trust.genes > KHAT_LIMIT]]
        if self.swept or (self.trust.globals <= KHAT_LIMIT and not bad):
            return None
        named = f"; {len(bad)} gene(s): {', '.join(bad[:5])}" + ", ..." * (len(bad) > 5) if bad else ""
        where = f"Pareto k-hat is above {KHAT_LIMIT} (globals {self.trust.globals:.2f}{named})"
        return f"{where}: the guide is only approximate there; the scales of those genes were moved by sweeps"

    def draw_globals(self, n_draws: int) -> dict[str, Tensor]:
        """Return the draws of the sites shared by genes: site -> [n_draws, *its shape]."""
        assert n_draws == self.n_draws
        values = {
            scale.name: self.theta[scale.name].exp() for scale in self.structure.scales if scale.plates != ("gene",)
        }
        return to_sites(self.structure, values | self._shared_values())

    def _shared_values(self) -> Theta:
        return centre(self.structure, locations_of(self.structure, True), self.shared, {}, self.first)

    def draw_locals(self, batch: Batch, global_draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the sites of a batch's genes from their exact conditional: site -> [n_draws, *its shape there]."""
        structure, block = self.structure, make_block(self.structure, batch)
        theta = of_genes(structure, self.theta, batch)

        def draw(at: slice) -> tuple[Theta, Theta, Tensor]:
            random = functools.partial(
                generator, block.slot.device, self.seed, "genes", int(batch.gene_idx[0]), at.start
            )
            part = {name: value[..., at] for name, value in theta.items()}
            shared = {name: value[..., at] for name, value in self.shared.items()}
            part = self._sweep_genes(part, shared, block, random)
            column = None if self.column is None else self.column[:, at]
            drawn, eliminated = draw_block(structure, part, block, column, random("locals"))
            return {name: part[name] for name in own}, drawn, eliminated.log_evidence

        own = [scale.name for scale in structure.scales if scale.plates == ("gene",)]
        with one_thread():
            parts = list(in_threads(draw, self._slices(), block.slot.device))
        scales, drawn, evidence = zip(*parts, strict=True)
        theta |= {name: torch.cat([part[name] for part in scales], -1) for name in own}
        deviations = {name: torch.cat([part[name] for part in drawn], -1) for name in drawn[0]}
        log_evidence = torch.cat(evidence, 1)
        self._log_p = self._log_p + (log_evidence + gene_log_prior(structure, theta, block)).sum(0)
        self._log_q = self._log_q + self.guide.gene_log_density(theta, batch.gene_idx).sum(0)
        local = locations_of(structure, False)
        unpadded = {
            x.name: unpad(deviations[x.name], block) if x.plates == ("sgrna",) else deviations[x.name] for x in local
        }
        values = centre(structure, local, unpadded, self._shared_values(), block)
        values |= {scale.name: theta[scale.name].exp() for scale in structure.scales if scale.plates == ("gene",)}
        return to_sites(structure, values)

    def _sweep_genes(self, theta: Theta, shared: Theta, block: Block, random: Callable[..., torch.Generator]) -> Theta:
        """Move the scales of genes of which the guide has the wrong shape, given the draws of all that is shared."""
        doubtful = torch.as_tensor(self.trust.genes)[block.batch.gene_idx.cpu()] > KHAT_LIMIT
        genes = doubtful.nonzero()[:, 0].to(block.slot.device)
        if self.swept or not len(genes):
            return theta
        own = [scale.name for scale in self.structure.scales if scale.plates == ("gene",)]
        moved = {**theta, **{name: theta[name][genes] for name in own}}
        sweeper = Sweeper(self.structure, [in_single(take_genes(block, genes))], random, shared)
        for _ in range(GENE_SWEEPS):
            moved = sweeper.sweep(moved)
        return {**theta, **{name: theta[name].index_copy(0, genes, moved[name]) for name in own}}


def draw_block(
    structure: Structure, theta: Theta, block: Block, column: Tensor | None, random: torch.Generator
) -> tuple[Theta, Eliminated]:
    """Draw the deviations of a block's own locations given the scales and the shared part of each line's mean."""
    spread = variances(structure, theta, block)
    eliminated = eliminate(block.data, spread, column)

    def normal(like: Tensor) -> Tensor:  # single precision is a tenth of the work, and fine enough for noise
        return torch.randn(like.shape, generator=random, dtype=torch.float32, device=like.device).to(like)

    dense, leaf = draw_genes(block.data, spread, eliminated, normal(eliminated.scale), normal(eliminated.weight))
    return split_genes(structure, theta, block, dense.transpose(1, 2), leaf, random), eliminated
