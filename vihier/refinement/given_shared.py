"""What NUTS walks on where rows are Student-t or of several noise scales: some genes' log-scales, given all else.

Given a weight for each row (see `vihier.kernels.rows`) and what genes share, the genes' locations can be integrated
out, and NUTS walks over their log-scales alone. After each of its transitions the locations are drawn from their exact
conditional, the weights given them, and what genes share is set to another draw of the fit, whose chains have it from
all genes. So the posterior of the genes is pooled over the posterior of what they share, and what the rows of these
genes say of it is not counted twice.

A chain remembers of one draw of what genes share only what its scales and weights do, and these depend on the rows'
residuals. With few genes beside those sampled that would be an approximation; `refine` asks for twenty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, align, deviation_sd, plates_of, scale_log_prior, variances
from vihier.guides.deviations import shared_columns
from vihier.guides.gene_chains import GeneChains
from vihier.guides.row_chains import RowChains
from vihier.guides.structure import Location, Structure
from vihier.guides.values import locations_of
from vihier.inference.device import generator
from vihier.kernels.cells import GeneData
from vihier.kernels.evidence_gradient import evidence_gradient
from vihier.refinement.log_scales import LogScales

CPU = torch.device("cpu")
# Draws of locations and weights in turn before the first transition, where the weights start as those of Normal rows,
# and after each one. An effect of which rows disagree, so that it has two humps, passes from one to the other by these.
SETTLE, ROUNDS = 20, 8


@dataclass
class GivenShared:
    """Log density of the log-scales of a block's genes given weights and what is shared, which move between calls.

    Attributes
    ----------
    structure, block
        The model's; the genes, with their rows, float64.
    layout : LogScales
        Of the genes' own scales.
    scales, shared : dict
        Draws of the fit: log-scales and deviations of locations that genes share, draws last.
    order : Tensor
        Which of these draws goes with each transition, warm-up included.
    seed : int
    """

    structure: Structure
    block: Block
    layout: LogScales
    scales: Theta
    shared: Theta
    order: Tensor
    seed: int
    _chains: GeneChains = field(init=False, repr=False)
    _theta: Theta = field(init=False, repr=False)
    _column: Tensor | None = field(init=False, repr=False)
    _data: GeneData = field(init=False, repr=False)
    _where: list[tuple[Location, Tensor]] = field(init=False, repr=False)

    def begin(self, x: Tensor) -> None:
        """Start a chain from log-scales x, shape [size]."""
        self._chains = GeneChains(self.structure, self.block, generator(CPU, self.seed, "rows"))
        self._where = list(self._positions())
        self._take(int(self.order[0]))
        for _ in range(SETTLE):
            self._draw(x)
            self._weigh()

    def move(self, x: Tensor, number: int) -> Tensor:
        """Return the genes' deviations drawn at log-scales x, [size of all], and move all else on after a transition.

        `number` is how many transitions there were.
        """
        for _ in range(ROUNDS - 1):
            self._draw(x)
            self._weigh()
        local = self._draw(x)
        self._take(int(self.order[number % len(self.order)]))
        return local

    def _take(self, draw: int) -> None:
        self._theta = {name: value[..., draw : draw + 1] for name, value in self.scales.items()}
        shared = {name: value[..., draw : draw + 1] for name, value in self.shared.items()}
        self._column = shared_columns(self.structure, shared, self.block)
        self._weigh()

    def _weigh(self) -> None:
        """Sum the rows at their present weights, less the shared part of each line's mean."""
        self._chains.weigh_rows(self._theta)
        weighed = self._chains.data
        count, total = weighed.count[..., 0], weighed.total[..., 0]
        if self._column is not None:
            total = total - count * self._column[:, 0]
        # The sum of squares does not depend on the scales.
        self._data = replace(weighed, count=count, total=total, square=torch.zeros(len(count)), log_weight=None)

    def _draw(self, x: Tensor) -> Tensor:
        """Draw the locations at log-scales x, then the weights; return the deviations as one vector."""
        theta, chains = self._with(x), self._chains
        chains.draw_dense(theta, self._column)
        chains.draw_leaf(theta, self._column, None)
        assert isinstance(chains.rows, RowChains)
        chains.rows.take_residuals(chains.columns, chains.slots)
        chains.rows.take_squares(theta)
        chains.rows.step_weights(theta)
        return torch.cat([chains.deviations[name].reshape(-1) for name in self.local_shapes()])

    def split(self, vectors: Tensor) -> Theta:
        """Take N vectors of deviations, [N, size of all], apart: location -> [its table, sgRNAs padded, N]."""
        shapes = self.local_shapes()
        parts = vectors.T.split([math.prod(shape) for shape in shapes.values()])
        return {name: part.reshape(*shape, -1) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def local_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each of the genes' locations over its table, sgRNAs padded, in the order of `move`'s vector."""
        data = self.block.data
        sizes = {"gene": data.count.shape[0], "line": data.count.shape[2], "lineage": data.lineage.shape[1]}
        return {
            location.name: (len(data.count), data.count.shape[1])
            if location.plates == ("sgrna",)
            else tuple(sizes[plate] for plate in location.plates)
            for location in locations_of(self.structure, False)
        }

    def _with(self, x: Tensor) -> Theta:
        return self._theta | self.layout.split(x[None])

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density, up to a constant, and its gradient, shape [size], at log-scales x of shape [size]."""
        theta = self._with(x)
        spread = variances(self.structure, theta, self.block)
        found = evidence_gradient(self._data, spread, None)
        gradient = torch.zeros_like(x)
        for location, positions in self._where:
            share = self._share(location, theta) * found.of_genes(location.plates)
            gradient.index_add_(0, positions.expand(share.shape).reshape(-1), share.reshape(-1))
        return found.log_evidence[0] + self._add_prior(x, gradient), gradient

    def _positions(self) -> Iterator[tuple[Location, Tensor]]:
        """Yield the genes' locations whose scale is sampled, with where in x that of each element is, one draw last."""
        where = self.layout.positions()
        for location in locations_of(self.structure, False):
            if location.scale in where:
                own = plates_of(self.structure, location.scale)
                yield location, align(where[location.scale][..., None], own, location.plates, self.block)

    def _share(self, location: Location, theta: Theta) -> Tensor | float:
        """Share of a location in the variance of its table."""
        others = self.structure.table(location.plates)
        if len(others) == 1:
            return 1.0
        parts = [(each.reach * deviation_sd(self.structure, each, theta, self.block)).square() for each in others]
        return parts[others.index(location)] / torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def _add_prior(self, x: Tensor, gradient: Tensor) -> Tensor:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            theta = self._with(at)
            priors = [
                scale_log_prior(self.structure, self.structure.scale(name), theta, self.block).sum()
                for name in self.layout.names
            ]
            density = torch.stack(priors).sum()
            gradient += torch.autograd.grad(density, at)[0]
        return density.detach()
