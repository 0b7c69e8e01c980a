"""Log density of a subset's log-scales and its gradient, every location integrated out: what NUTS walks on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pyro.distributions import HalfNormal
from torch import Tensor

from vihier.guides.block import SHARED, Block, align, plates_of, scale_log_prior, shared_design
from vihier.guides.structure import Location, Plates, Scale, Structure
from vihier.kernels.elimination import Variances
from vihier.kernels.evidence_gradient import EvidenceGradient, Shared, evidence_gradient
from vihier.refinement.log_scales import LogScales
from vihier.refinement.other_genes import OtherGenes


@dataclass(frozen=True)
class _Part:
    """What one location adds to a table's variance: exp(2 log-scale) times `square`, each element by its own scale.

    `positions` are where the log-scales of the elements are in the vector, one draw last; None for a constant sd.
    """

    plates: Plates
    square: float
    positions: Tensor | None


class LogPosterior:
    """Log p(rows of a block's genes, log-scales), with what other genes say of the globals, and its gradient.

    Parameters
    ----------
    structure
        The model's.
    block
        The genes whose rows are looked at, float64.
    others
        What all other genes say of the shared scales and locations; None where the block is the whole screen.
    """

    def __init__(self, structure: Structure, block: Block, others: OtherGenes | None) -> None:
        self.structure, self.block, self.others = structure, block, others
        self.layout = LogScales.of(structure, block)
        self._where = self.layout.positions()
        self._parts = [self._part(location) for location in structure.locations]
        self._n_parts = Counter(part.plates for part in self._parts)
        self._half_normal = [scale for scale in structure.scales if scale.family is HalfNormal]
        self._other_priors = [scale for scale in structure.scales if scale.family is not HalfNormal]
        self._children, self._parents, self._offsets = self._prior_links(self._half_normal)
        self._design = shared_design(structure, block)
        self._present = [plates for plates in SHARED if structure.table(plates)]
        n_lines, n_lineages = block.data.lineage.shape
        self._sizes: dict[Plates, int] = {("line",): n_lines, ("lineage",): n_lineages, (): 1}

    def _part(self, location: Location) -> _Part:
        square = (location.reach * location.factor) ** 2
        if location.scale is None:
            return _Part(location.plates, square, None)
        return _Part(location.plates, square, self._positions(location.scale, location.plates))

    def _positions(self, source: str, plates: Plates) -> Tensor:
        """Return where the elements of a scale are that those of a table over `plates` follow, one draw last."""
        return align(self._where[source][..., None], plates_of(self.structure, source), plates, self.block)

    def _prior_links(self, scales: Sequence[Scale]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the elements of half-normal scales, where the scale of each one's prior is (-1: none), its factor."""
        children, parents, offsets = [], [], []
        for scale in scales:
            (argument,) = scale.arguments
            source, factor = argument.source, argument.factor
            where = self._where[scale.name]
            parent = torch.full_like(where, -1)
            if source is not None:
                parent = self._positions(source, scale.plates)[..., 0].expand_as(where)
            children.append(where.reshape(-1))
            parents.append(parent.reshape(-1))
            offsets.append(torch.full((where.numel(),), math.log(factor), dtype=torch.float64))
        if not children:
            none = torch.zeros(0, dtype=torch.long)
            return none, none, none.double()
        return torch.cat(children), torch.cat(parents), torch.cat(offsets)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density, up to a constant, and its gradient, shape [size], at log-scales x of shape [size]."""
        terms = [self._term(part, x) for part in self._parts]
        tables: dict[Plates, Tensor] = {}
        for part, term in zip(self._parts, terms, strict=True):
            tables[part.plates] = tables[part.plates] + term if part.plates in tables else term
        found = evidence_gradient(self.block.data, self._spread(x, tables), self._shared(tables))
        gradient = torch.zeros_like(x)
        if self.structure.noise is not None:
            gradient[self._where[self.structure.noise]] += found.noise[0]
        for part, term in zip(self._parts, terms, strict=True):
            if part.positions is None:
                continue
            table = self._table(found, part.plates)
            if self._n_parts[part.plates] > 1:  # its share of the variance
                table = table * (term / tables[part.plates])
            gradient.index_add_(0, part.positions.expand(table.shape).reshape(-1), table.reshape(-1))
        value = found.log_evidence[0] + self._add_prior(x, gradient)
        if self.others is not None:
            value = value + self.others.add_to(x, gradient)
        return value, gradient

    def _term(self, part: _Part, x: Tensor) -> Tensor:
        if part.positions is None:
            return x.new_full((1,) * (len(part.plates) + 1), part.square)
        return part.square * (2 * x[part.positions]).exp()

    def _spread(self, x: Tensor, tables: Mapping[Plates, Tensor]) -> Variances:
        noise = x.new_full((1,), self.structure.noise_factor**2)
        if self.structure.noise is not None:
            noise = noise * (2 * x[self._where[self.structure.noise]]).exp()
        return Variances(
            noise=noise,
            sgrna=tables.get(("sgrna",)),
            gene=tables.get(("gene",)),
            gene_lineage=tables.get(("gene", "lineage")),
            gene_line=tables.get(("gene", "line")),
        )

    def _shared(self, tables: Mapping[Plates, Tensor]) -> Shared | None:
        if self._design is None:
            return None
        sd = torch.cat([tables[plates].reshape(-1).expand(self._sizes[plates]) for plates in self._present]).sqrt()
        others = None if self.others is None else self.others.natural
        return Shared(sd[None], *self._design, others)

    def _table(self, found: EvidenceGradient, plates: Plates) -> Tensor:
        """Return the derivatives in the sds of a table, over its elements and one draw."""
        if plates in SHARED:
            assert found.shared is not None
            start = sum(self._sizes[each] for each in self._present[: self._present.index(plates)])
            part = found.shared[0, start : start + self._sizes[plates], None]
            return part if plates else part[0]
        return found.of_genes(plates)

    def _add_prior(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return the log prior density, and add its gradient."""
        above = torch.where(self._parents >= 0, x[self._parents], 0.0)
        standard = x[self._children] - self._offsets - above
        square = (2 * standard).exp()
        gradient.index_add_(0, self._children, 1 - square)
        has_parent = self._parents >= 0
        gradient.index_add_(0, self._parents[has_parent], (square - 1)[has_parent])
        total = (standard - 0.5 * square).sum()
        if self._other_priors:
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                theta = self.layout.split(at[None])
                priors = [scale_log_prior(self.structure, scale, theta, self.block) for scale in self._other_priors]
                density = torch.stack([prior.sum() for prior in priors]).sum()
                gradient += torch.autograd.grad(density, at)[0]
            total = total + density.detach()
        return total
