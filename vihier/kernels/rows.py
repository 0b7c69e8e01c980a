"""Rows that count by a precision of their own: Student-t rows as Normal ones of random precision, many draws at once.

A Student-t row is Normal given a weight w, lfc ~ N(mean, sigma / sqrt(w)) with w ~ Gamma(nu / 2, nu / 2) (Andrews &
Mallows 1974, J. R. Stat. Soc. B 36, 99). Given its residual z in units of sigma the weight is
Gamma((nu + 1) / 2, (nu + z^2) / 2), and given the weights all locations are Gaussian.

What is of each row and draw, [n, N], is in float32: its error is far below that of one draw of a weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vihier.kernels.cells import GeneData

ROW_DTYPE = torch.float32
PIECE = 1024
# Factors 1 + z^2 / nu whose product is taken before its logarithm; float32 holds it up to z^2 / nu of 4e9 in each.
FACTORS = 4


@dataclass(frozen=True)
class RowTable:
    """Rows of a block of genes, sorted by cell.

    Attributes
    ----------
    cell : Tensor
        (gene * K + slot) * C + line of each row, int64, ascending, shape [n].
    lengths : Tensor
        Rows of each cell, int64, shape [B * K * C].
    lfc : Tensor
        Log2 fold change less any constant in every row's mean, float32, shape [n].
    noise, freedom : Tensor or None
        Which noise scale, and which degrees of freedom, each row has, int64, shape [n]; None where all have one.
    by_freedom : Tensor or None
        The rows in the order of their degrees of freedom, int64, shape [n]; None where all have one.
    of_freedom : tuple of int
        How many rows have each of the degrees of freedom that some have; empty where all have one.
    shape : tuple of int
        (B, K, C).
    counts : CountTable or None
        Of rows that are read counts; `lfc` is then a first guess.
    """

    cell: Tensor
    lengths: Tensor
    lfc: Tensor
    noise: Tensor | None
    freedom: Tensor | None
    by_freedom: Tensor | None
    of_freedom: tuple[int, ...]
    shape: tuple[int, int, int]
    counts: CountTable | None = None

    def take_genes(self, genes: Tensor, n_slots: int) -> RowTable:
        """Return the rows of some genes, which have `n_slots` sgRNAs at most; a gene's position is that in `genes`."""
        n_genes, old_slots, n_lines = self.shape
        position = torch.full((n_genes,), -1, dtype=torch.long, device=genes.device)
        position[genes] = torch.arange(len(genes), device=genes.device)
        gene, rest = self.cell // (old_slots * n_lines), self.cell % (old_slots * n_lines)
        rows = (position[gene] >= 0).nonzero()[:, 0]
        cell = position[gene[rows]] * n_slots * n_lines + rest[rows]
        parts = [None if x is None else x[rows] for x in (self.lfc, self.noise, self.freedom)]
        counts = None if self.counts is None else replace(self.counts.at(rows), gene=position[gene[rows]])
        shape = (len(genes), n_slots, n_lines)
        return row_table(cell, parts[0], parts[1], parts[2], shape, counts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class CountTable:
    """Read counts of rows.

    Attributes
    ----------
    counts, log_expected : Tensor
        These, and the natural logarithm of what is expected of each, float32, shape [n].
    offset : Tensor
        Log2 of their mean relative to that where every deviation is zero, float32, shape [n].
    gene, sgrna : Tensor
        Each row's gene within the block and its sgRNA in the whole screen, int64, shape [n].
    """

    counts: Tensor
    log_expected: Tensor
    offset: Tensor
    gene: Tensor
    sgrna: Tensor

    def at(self, rows: Tensor) -> CountTable:
        """Return some rows, in an order."""
        return CountTable(*(x[rows] for x in vars(self).values()))


def row_table(
    cell: Tensor,
    lfc: Tensor,
    noise: Tensor | None,
    freedom: Tensor | None,
    shape: tuple[int, int, int],
    counts: CountTable | None = None,
) -> RowTable:
    """Sort rows by cell; arguments as the attributes of `RowTable`, in any order of rows."""
    order = torch.argsort(cell, stable=True)
    lengths = torch.bincount(cell, minlength=math.prod(shape))
    noise, freedom = (None if x is None else x[order] for x in (noise, freedom))
    table = table_of_cells(lengths, lfc[order].to(ROW_DTYPE), shape, noise, freedom)
    return table if counts is None else replace(table, counts=counts.at(order))


def table_of_cells(
    lengths: Tensor,
    lfc: Tensor,
    shape: tuple[int, int, int],
    noise: Tensor | None = None,
    freedom: Tensor | None = None,
) -> RowTable:
    """Return the table of rows that are sorted by cell, of which each has so many; see `RowTable`."""
    cell = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    by_freedom = None if freedom is None else torch.argsort(freedom, stable=True)
    of_freedom = () if freedom is None else tuple(torch.bincount(freedom).tolist())
    return RowTable(cell, lengths, lfc, noise, freedom, by_freedom, of_freedom, shape)


def of_rows(values: Tensor, element: Tensor | None) -> Tensor:
    """Give each row its element's value: [R, N] or, where all rows have one, [N], to [n or 1, N] in float32."""
    values = values.to(ROW_DTYPE)
    return values[None] if element is None else values.index_select(0, element)


def sum_rows(values: Tensor, element: Tensor | None, size: int) -> Tensor:
    """Sum over rows, [n, N], by element, [R, N], or over all, [N]; in float64."""
    if element is None:
        # In single precision over pieces, whose error is some 1e-7 of them: in double it takes three times as long.
        whole = len(values) // PIECE * PIECE
        pieces = values[:whole].unflatten(0, (-1, PIECE)).sum(1)
        return pieces.sum(0, dtype=torch.float64) + values[whole:].sum(0, dtype=torch.float64)
    zeros = values.new_zeros(size, values.shape[1])
    return zeros.index_add(0, element, values).double()


def weighted_data(
    rows: RowTable, precision: Tensor, like: GeneData, evidence: bool = False, value: Tensor | None = None
) -> GeneData:
    """Sum rows of given precision into cells.

    Parameters
    ----------
    rows : RowTable
    precision : Tensor
        1 / variance of each row in N draws, float32, shape [n, N].
    like : GeneData
        Whose lineages and dtype the result has.
    evidence : bool
        Whether the log evidence is wanted of it; it is not a number otherwise, and a pass over the rows is saved.
    value : Tensor, optional
        What rows are in each draw, [n, N], where it is not their `lfc`.
    """
    n_draws = precision.shape[1]
    dtype = like.count.dtype
    value = rows.lfc[:, None] if value is None else value
    weighted = precision * value

    def cells(values: Tensor) -> Tensor:
        summed = torch.segment_reduce(values, "sum", lengths=rows.lengths, axis=0)
        return summed.to(dtype).reshape(*rows.shape, n_draws)

    if evidence:
        square = cells(weighted * value).sum((1, 2))
        log_weight = 0.5 * cells(precision.log() - math.log(2 * math.pi)).sum((1, 2))
    else:
        square = log_weight = like.square.new_full((rows.shape[0], n_draws), math.nan)
    return replace(
        like,
        count=cells(precision),
        total=cells(weighted),
        pairs=None,
        square=square,
        log_weight=log_weight,
    )


def fitted_rows(rows: RowTable, columns: Tensor, slots: Tensor) -> Tensor:
    """Give each row what is predicted by gene and line, [B, C, N], and by sgRNA, [B, K, N]; float32, shape [n, N]."""
    fitted = columns.to(ROW_DTYPE)[:, None] + slots.to(ROW_DTYPE)[:, :, None]
    return fitted.reshape(-1, fitted.shape[-1]).index_select(0, rows.cell)


def residuals(rows: RowTable, columns: Tensor, slots: Tensor) -> Tensor:
    """Rows less what is predicted of them; arguments and shape as of `fitted_rows`."""
    return rows.lfc[:, None] - fitted_rows(rows, columns, slots)


def step_weights(weight: Tensor, freedom: Tensor, squares: Tensor, random: torch.Generator) -> Tensor:
    """Move the weights of Student-t rows by one step that leaves Gamma((nu + 1) / 2, (nu + z^2) / 2) unchanged.

    The proposal is that of a rejection sampler (Marsaglia & Tsang 2000, ACM Trans. Math. Softw. 26, 363), whose rate of
    acceptance is above 0.9. What it rejects stays where it is, instead of being tried again: the flow from one weight
    to another is then proportional to the product of their densities, the same both ways.

    Parameters
    ----------
    weight : Tensor
        Shape [n, N].
    freedom : Tensor
        nu, shape [n or 1, N].
    squares : Tensor
        z^2, shape [n, N].
    """
    d = 0.5 * freedom + 1 / 6
    x = torch.randn(weight.shape, generator=random, dtype=weight.dtype, device=weight.device)
    root = (x * (1 / (3 * d.sqrt()))).add_(1.0)
    cube = root * root * root
    # Where the root is not positive, its logarithm is so far down that nothing is accepted.
    level = root.clamp_min_(1e-30).log_().mul_(3.0).add_(1.0).sub_(cube).mul_(d).add_(x.square_(), alpha=0.5)
    log_uniform = x.uniform_(1e-30, 1.0, generator=random).log_()
    return torch.where(log_uniform < level, cube.mul_(2 * d).div_(freedom + squares), weight)


def draw_weights(freedom: Tensor, squares: Tensor, random: torch.Generator) -> Tensor:
    """Draw the weights of Student-t rows, from Gamma((nu + 1) / 2, (nu + z^2) / 2); arguments as of `step_weights`."""
    weight = step_weights(torch.zeros_like(squares), freedom, squares, random)
    flat, of_flat = weight.view(-1), squares.reshape(-1)
    left = (flat == 0).nonzero()[:, 0]
    while len(left):  # what is rejected, one in twenty, is tried again
        row = left // squares.shape[1] if len(freedom) > 1 else torch.zeros_like(left)
        some = freedom[row, left % squares.shape[1]]
        tried = step_weights(flat.new_zeros(len(left)), some, of_flat[left], random)
        flat[left] = tried
        left = left[tried == 0]
    return weight


def noise_pull(freedom: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """How the log density of Student-t rows bends with the logarithm of their scale, weights integrated out.

    With q = z^2 / (nu + z^2) its first derivative is (nu + 1) q - 1, and the second -2 (nu + 1) q (1 - q).

    Returns
    -------
    pull, bend : Tensor
        (nu + 1) q and (nu + 1) q (1 - q), shape [n, N].
    """
    share = squares / (freedom + squares)
    pull = share * (freedom + 1)
    return pull, torch.addcmul(pull, pull, share, value=-1)


def sum_log_tails(squares: Tensor, inverse_freedom: Tensor) -> Tensor:
    """Sum log(1 + z^2 / nu) over rows.

    Parameters
    ----------
    squares : Tensor
        z^2, shape [n, N].
    inverse_freedom : Tensor
        1 / nu, shape [N].

    Returns
    -------
    Tensor
        Shape [N], float64.
    """
    inverse_freedom = inverse_freedom.to(squares)
    whole = len(squares) // FACTORS * FACTORS
    product = torch.ones_like(squares[: whole // FACTORS])
    for factor in squares[:whole].unflatten(0, (FACTORS, -1)) if whole else ():
        product.mul_((factor * inverse_freedom).add_(1.0))
    left = (squares[whole:] * inverse_freedom).log1p_()
    return sum_rows(product.log_(), None, 1) + left.sum(0, dtype=torch.float64)


def student_constant(freedom: Tensor) -> Tensor:
    """Log density of a Student-t row whose residual is zero, in units of its scale."""
    half = 0.5 * freedom
    return torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (freedom * math.pi).log()


def student_log_density(freedom: Tensor, log_tails: Tensor, count: Tensor | float) -> Tensor:
    """Log density of rows that have the same degrees of freedom, in units of their scales.

    Parameters
    ----------
    freedom : Tensor
        nu, of any shape.
    log_tails : Tensor
        Sum over the rows of log(1 + z^2 / nu).
    count : Tensor or float
        Number of rows.
    """
    return count * student_constant(freedom) - 0.5 * (freedom + 1) * log_tails
