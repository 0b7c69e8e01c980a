"""Sufficient statistics of gene blocks: rows summed into cells, one for each sgRNA and line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GeneData:
    """Sufficient statistics of a block of genes, padded to the block's largest number of sgRNAs.

    Rows count equally, or each with a precision of its own that differs between N draws: then `count`, `total` and
    `square` have draws last, and are sums of precisions, of precision x lfc and of precision x lfc^2; the noise
    variance that goes with them is 1.

    Attributes
    ----------
    count, total : Tensor
        Number of rows and sum of lfc of each cell, shape [B, K, C]; weighted, [B, K, C, N].
    pairs : Tensor or None
        Products of the counts of two sgRNAs in a line, the lower triangle, shape [B, K(K+1)/2, C]; None where weighted.
    square : Tensor
        Sum of squared lfc of each gene's rows, shape [B]; weighted, [B, N].
    lineage : Tensor
        One-hot lineage of each line, shape [C, L]; L = 0 where there are none.
    log_weight : Tensor or None
        Sum over each gene's rows of log(precision / 2 pi) / 2, shape [B, N]; None where rows count equally.
    """

    count: Tensor
    total: Tensor
    pairs: Tensor | None
    square: Tensor
    lineage: Tensor
    log_weight: Tensor | None = None

    def to(self, dtype: torch.dtype) -> GeneData:
        """Return the same in another floating-point type."""
        return GeneData(*(None if x is None else x.to(dtype) for x in vars(self).values()))  # type: ignore[arg-type]

    def double(self) -> GeneData:
        """Return the same in float64."""
        return self.to(torch.float64)

    @property
    def is_weighted(self) -> bool:
        """Whether each row has a precision of its own in each draw."""
        return self.log_weight is not None

    def _with_draws(self, values: Tensor) -> Tensor:
        return values if self.is_weighted else values[..., None]

    @property
    def line_count(self) -> Tensor:
        """Rows of each gene and line, shape [B, C, 1 or N]."""
        return self._with_draws(self.count.sum(1))

    @property
    def line_total(self) -> Tensor:
        """Sum of lfc of each gene and line, shape [B, C, 1 or N]."""
        return self._with_draws(self.total.sum(1))

    @property
    def slot_count(self) -> Tensor:
        """Rows of each sgRNA, shape [B, K, 1 or N]."""
        return self._with_draws(self.count.sum(2))

    @property
    def slot_total(self) -> Tensor:
        """Sum of lfc of each sgRNA, shape [B, K, 1 or N]."""
        return self._with_draws(self.total.sum(2))

    @property
    def gene_square(self) -> Tensor:
        """Sum of squared lfc of each gene, shape [B, 1 or N]."""
        return self._with_draws(self.square)

    def to_slots(self, lines: Tensor) -> Tensor:
        """Sum over an sgRNA's rows what is known by line: [B or 1, C, N] or [C, N] to [B, K, N]."""
        if not self.is_weighted:
            return self.count @ lines
        return (self.count * lines[..., None, :, :]).sum(2)

    def to_lines(self, slots: Tensor) -> Tensor:
        """Sum over the rows in a line what is known by sgRNA: [B, K, N] to [B, C, N]."""
        if not self.is_weighted:
            return self.count.transpose(1, 2) @ slots
        return (self.count * slots[:, :, None]).sum(1)

    def cross(self, lines: Tensor) -> Tensor:
        """Multiply each cell's rows by what is known by gene and line: [B, C, N] to [N, B, K, C]."""
        by_draw = lines.permute(2, 0, 1)[:, :, None]
        return (self.count.permute(3, 0, 1, 2) if self.is_weighted else self.count) * by_draw

    def products(self, lines: Tensor) -> Tensor:
        """Sum over lines the products of two sgRNAs' rows with what is known by line: [B, C, N] to [B, N, K, K]."""
        n_genes, n_slots, n_draws = len(self.count), self.count.shape[1], lines.shape[-1]
        if self.is_weighted:
            by_draw = self.count.permute(0, 3, 1, 2)
            return (by_draw * lines.permute(0, 2, 1)[:, :, None]) @ by_draw.mT
        if 2 * n_draws <= n_slots or self.pairs is None:
            # Few draws: one small matrix product for each gene and draw reads less than the table of pairs.
            scaled = self.count[:, None] * lines.permute(0, 2, 1)[:, :, None]
            return scaled @ self.count.mT[:, None]
        i = torch.arange(n_slots, device=lines.device)
        high, low = torch.maximum(i[:, None], i), torch.minimum(i[:, None], i)
        lower = high * (high + 1) // 2 + low
        found = (self.pairs @ lines)[:, lower.reshape(-1)].transpose(1, 2)
        return found.reshape(n_genes, n_draws, n_slots, n_slots)


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
