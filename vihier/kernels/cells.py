"""Sufficient statistics of gene blocks: rows summed into cells, one for each sgRNA and line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GeneData:
    """Sufficient statistics of a block of genes, padded to the block's largest number of sgRNAs.

    Attributes
    ----------
    count, total : Tensor
        Number of rows and sum of lfc of each cell, shape [B, K, C].
    pairs : Tensor
        Products of the counts of two sgRNAs in a line, the lower triangle, shape [B, K(K+1)/2, C].
    square : Tensor
        Sum of squared lfc of each gene's rows, shape [B].
    lineage : Tensor
        One-hot lineage of each line, shape [C, L]; L = 0 where there are none.
    """

    count: Tensor
    total: Tensor
    pairs: Tensor
    square: Tensor
    lineage: Tensor

    def to(self, dtype: torch.dtype) -> GeneData:
        """Return the same in another floating-point type."""
        return GeneData(*(x.to(dtype) for x in (self.count, self.total, self.pairs, self.square, self.lineage)))

    def double(self) -> GeneData:
        """Return the same in float64."""
        return self.to(torch.float64)

    @property
    def line_count(self) -> Tensor:
        """Rows of each gene and line, shape [B, C]."""
        return self.count.sum(1)

    @property
    def line_total(self) -> Tensor:
        """Sum of lfc of each gene and line, shape [B, C]."""
        return self.total.sum(1)


def gene_data(
    gene: Tensor, slot: Tensor, line: Tensor, lfc: Tensor, shape: tuple[int, int, int], lineage: Tensor
) -> GeneData:
    """Sum rows into cells.

    Parameters
    ----------
    gene, slot, line : Tensor
        Each row's gene within the block, sgRNA within the gene, and line; int64, shape [N].
    lfc : Tensor
        Log2 fold change less any constant in every row's mean, shape [N].
    shape : tuple of int
        (B, K, C).
    lineage : Tensor
        One-hot lineage of each line, shape [C, L].
    """
    n_genes, n_slots, n_lines = shape
    cell = (gene * n_slots + slot) * n_lines + line
    zeros = lfc.new_zeros(n_genes * n_slots * n_lines)
    count = zeros.index_add(0, cell, torch.ones_like(lfc)).reshape(shape)
    total = zeros.index_add(0, cell, lfc).reshape(shape)
    square = lfc.new_zeros(n_genes).index_add(0, gene, lfc * lfc)
    i, j = torch.tril_indices(n_slots, n_slots, device=lfc.device)
    return GeneData(count, total, count[:, i] * count[:, j], square, lineage)
