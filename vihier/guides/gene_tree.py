"""Genes' tables over lineages and genes as a tree: their scales are drawn with all locations of a gene integrated out.

Where no table is over sgRNAs, what a gene's rows say once e is integrated out is a weight and a right-hand side for
each lineage, and the gene's evidence is a sum over lineages. Where lineages tell little, their scales and deviations
hold each other in place, and moves that hold the one or take it along need dozens of sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vihier.guides.block import Block, Theta, table_variance, variances
from vihier.guides.structure import Plates, Scale, Structure
from vihier.kernels.elimination import integrate_leaf
from vihier.kernels.shared_tree import log_evidence

LINEAGES: Plates = ("gene", "lineage")
GENES: Plates = ("gene",)


@dataclass(frozen=True)
class GeneTree:
    """What a block's rows say of m + b in each lineage, with e integrated out: weight and rhs, [B, L, N]."""

    structure: Structure
    block: Block
    weight: Tensor
    rhs: Tensor

    @classmethod
    def of(cls, structure: Structure, theta: Theta, column: Tensor | None, block: Block) -> GeneTree:
        """Integrate e out, given the shared part of each line's mean, [C, N]."""
        leaf = integrate_leaf(block.data, variances(structure, theta, block), column)
        return cls(structure, block, block.data.lineage.T @ leaf.weight, block.data.lineage.T @ leaf.residual)

    def log_evidence(self, theta: Theta) -> Tensor:
        """Log evidence of each gene, [B, P, N], up to a constant, at log-scales with an axis of points, [..., P, N]."""
        weight, rhs = self.weight.unsqueeze(-2), self.rhs.unsqueeze(-2)
        of_lineages = table_variance(self.structure, LINEAGES, theta, self.block)
        of_genes = table_variance(self.structure, GENES, theta, self.block)
        assert of_lineages is not None
        shrink = (1.0 + of_lineages * weight).reciprocal()
        evidence = 0.5 * (of_lineages * shrink * rhs.square() + shrink.log()).sum(1)
        return evidence + log_evidence((shrink * weight).sum(1), (shrink * rhs).sum(1), of_genes)


def tree_scales(structure: Structure) -> list[Scale]:
    """Return the scales that can be moved so: of genes or unindexed, and of nothing but the tables of the tree."""
    if structure.table(("sgrna",)) or not structure.table(LINEAGES):
        return []
    found = []
    for scale in structure.scales:
        users = [location.plates for location in structure.locations if location.scale == scale.name]
        of_tree = bool(users) and set(users) <= {LINEAGES, GENES}
        if of_tree and scale.plates in ((), GENES) and scale.name not in structure.of_rows:
            found.append(scale)
    return found
