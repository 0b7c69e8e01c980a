"""A visit of the streamed chains to one block with the gene x line table integrated out throughout.

Where lines fall into few kinds by their number of rows (`vihier.kernels.levels`), a gene's evidence for any scales is
made of a few dozen sums, and what its sgRNA and gene tables say of the shared part of each line's mean of a few matrix
products. The genes' own scales are then moved with all the gene's locations integrated out, and what is moved after
the pass with its gene x line table integrated out: the chains forget where they started in a few passes, also where the
rows say next to nothing of that table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, variances
from vihier.guides.deviations import gene_level, split_genes
from vihier.guides.evidence import gene_log_prior
from vihier.guides.gene_chains import Said
from vihier.guides.scale_terms import number_of, squares_of, standardised
from vihier.guides.sgrna_spread import SgrnaSums, sgrna_spread
from vihier.guides.slice_sampler import slice_sample
from vihier.guides.structure import Scale, Structure
from vihier.kernels.elimination import Variances
from vihier.kernels.levels import Levels, eliminate_levels, levels_of

MOVES = 1
"""Moves of each of the genes' own scales a visit."""


@dataclass(frozen=True)
class Left:
    """What sgRNA and gene tables leave of a block's genes, for each number of rows a line may have.

    `lines` [B, J] lines that have so many rows; `square` [B, J, N] the sum over them of the squared rest of the line's
    total; `residual` [B, N] the sum of the rows' squared rests; `rows` [J].
    """

    rows: Tensor
    lines: Tensor
    square: Tensor
    residual: Tensor

    def log_evidence(self, noise: Tensor, leaf: Tensor | None) -> Tensor:
        """Log density of the rows of each gene, [B, N], the gene x line table of variance `leaf` [B or 1, N] out."""
        tau = 1.0 / noise
        n_rows = (self.rows * self.lines).sum(1)[:, None]
        found = 0.5 * (n_rows * tau.log() - tau * self.residual)
        if leaf is None:
            return found
        shrink = 1.0 / (1.0 + tau * leaf[:, None] * self.rows[:, None])
        pooled = leaf[:, None] * tau.square() * shrink
        return found + 0.5 * (self.lines[..., None] * shrink.log() + pooled * self.square).sum(1)


def visit_levels(
    structure: Structure, block: Block, theta: Theta, column: Tensor | None, rows: Tensor, random: torch.Generator
) -> tuple[Theta, Said, dict[str, tuple[Tensor, Tensor]], Left, SgrnaSums | None]:
    """Move the genes' own scales, draw their sgRNA and gene tables, and sum what the shared ones are drawn from.

    Parameters
    ----------
    theta : dict
        Log-scales of the block, float64.
    column : Tensor or None
        The shared part of each line's mean, [C, N].
    rows : Tensor
        Every number of rows that a gene may have in a line, [J].
    """
    data = block.data
    levels = _wide(levels_of(data, column, with_evidence=True, rows=rows))
    own = [scale for scale in structure.scales if scale.plates == ("gene",)]
    theta = {name: value.double() for name, value in theta.items()}
    for _ in range(MOVES):
        for scale in own:
            density = _GeneDensity(structure, block, levels, theta, scale)
            theta[scale.name] = slice_sample(density, theta[scale.name], random)
    spread = variances(structure, theta, block)
    given = eliminate_levels(levels, spread, with_evidence=False)
    noise = torch.randn(given.shape, generator=random, dtype=torch.float64, device=data.count.device)
    dense = given.draw(noise)
    said = _said(block, levels, spread, dense)
    deviations = split_genes(structure, theta, block, dense.transpose(1, 2), dense.new_zeros(()), random)
    squares = {}
    for location in structure.locations:
        if location.plates in SHARED or location.plates == ("gene", "line") or location.scale is None:
            continue
        of_location = structure.site(location.scale)
        assert isinstance(of_location, Scale)
        own_deviations = deviations[location.name]
        counted = (
            number_of(structure, block, location),
            squares_of(structure, block, location, own_deviations),
        )
        squares[location.name] = standardised(structure, theta, location, counted, of_location, block)
    slots = _slots(levels, spread, dense)
    sgrnas = None if sgrna_spread(structure) is None else SgrnaSums.of(slots, block.filled)
    return {scale.name: theta[scale.name] for scale in own}, said, squares, _left(levels, slots), sgrnas


class _GeneDensity:
    """Log density of one of the genes' own log-scales at points, [B, P, N], all the gene's locations integrated out."""

    def __init__(self, structure: Structure, block: Block, levels: Levels, theta: Theta, scale: Scale) -> None:
        self.structure, self.block, self.levels, self.theta, self.scale = structure, block, levels, theta, scale
        self._at: tuple[int, Levels, Theta] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        n_points = x.shape[-2]
        if self._at is None or self._at[0] != n_points:
            repeated = {name: _repeat(value, n_points) for name, value in self.theta.items()}
            self._at = n_points, _repeat_levels(self.levels, n_points), repeated
        _, levels, theta = self._at
        theta = {**theta, self.scale.name: x.flatten(-2)}
        spread = variances(self.structure, theta, self.block)
        evidence = eliminate_levels(levels, spread, with_evidence=True).log_evidence
        assert evidence is not None
        return (evidence + gene_log_prior(self.structure, theta, self.block)).unflatten(-1, x.shape[-2:])


def _repeat(values: Tensor, times: int) -> Tensor:
    return values.repeat(*([1] * (values.dim() - 1)), times)


def _repeat_levels(levels: Levels, times: int) -> Levels:
    assert levels.square is not None and levels.gene_square is not None
    return replace(
        levels,
        slot_left=_repeat(levels.slot_left, times),
        slot_product=_repeat(levels.slot_product, times),
        left=_repeat(levels.left, times),
        square=_repeat(levels.square, times),
        gene_square=_repeat(levels.gene_square, times),
    )


def _wide(levels: Levels) -> Levels:
    return replace(levels, **{name: value.double() for name, value in vars(levels).items() if value is not None})


def _slots(levels: Levels, spread: Variances, dense: Tensor) -> Tensor:
    """Add up what d adds to the mean of each sgRNA's rows, [B, K, N]."""
    n_slots = levels.slot_rows.shape[1]
    parts = dense.transpose(1, 2)
    total = parts.new_zeros(parts.shape[0], n_slots, parts.shape[2])
    if spread.sgrna is not None:
        total = total + parts[:, :n_slots]
    return total + parts[:, -1:] if spread.gene is not None else total


def _left(levels: Levels, slots: Tensor) -> Left:
    assert levels.square is not None and levels.gene_square is not None
    square = levels.square - 2 * (slots[:, :, None] * levels.slot_product).sum(1)
    square = square + torch.einsum("bkn,bklj,bln->bjn", slots, levels.pairs, slots)
    left = levels.slot_total[..., None] - levels.slot_left.sum(2)
    residual = levels.gene_square - 2 * (slots * left).sum(1)
    residual = residual + (slots.square() * levels.slot_rows.sum(2)[..., None]).sum(1)
    return Left(levels.rows, levels.lines, square, residual)


def _said(block: Block, levels: Levels, spread: Variances, dense: Tensor) -> Said:
    """Sum what d says of the shared part of each line's mean over the block's genes."""
    data = block.data
    n_genes, n_slots, n_lines = data.count.shape
    count, total = data.line_count[..., 0], data.line_total[..., 0]
    tau = 1.0 / spread.noise
    slots = _slots(levels, spread, dense)
    n_draws = slots.shape[-1]
    weight, rhs = total.new_zeros(n_lines, n_draws).double(), total.new_zeros(n_lines, n_draws).double()
    for n in levels.rows:
        mask = (count == n).to(total)
        if not bool(mask.any()):
            continue
        shrunk = tau if spread.gene_line is None else tau / (1.0 + tau * spread.gene_line[:, 0] * n)
        shrunk = shrunk.expand(n_genes, n_draws)
        weight += (mask.T @ (n * shrunk).to(total)).double()
        rhs += ((mask * total).T @ shrunk.to(total)).double()
        counted = (data.count * mask[:, None]).reshape(n_genes * n_slots, n_lines)
        rhs -= (counted.T @ (slots * shrunk[:, None]).reshape(-1, n_draws).to(total)).double()
    level = gene_level(spread, block)
    assert level is not None
    part = dense[..., level[0]]
    weights = level[1].expand_as(part)
    return Said(weight, rhs, weights.sum((0, 2)), (part * weights).sum((0, 2)))
