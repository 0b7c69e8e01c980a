"""One gene block's side of the interweaving sweeps: its genes' own locations and scales, many chains side by side.

What concerns several blocks enters as sums over them; see `vihier.guides.interweave`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vihier.guides.block import (
    Block,
    Theta,
    align,
    noise_variance,
    variances,
)
from vihier.guides.count_chains import CountChains
from vihier.guides.deviations import gene_level, normal_like, split_genes
from vihier.guides.evidence import gene_log_prior
from vihier.guides.gene_tree import GeneTree, tree_scales
from vihier.guides.row_chains import RowChains
from vihier.guides.scale_densities import held_density, rows_density
from vihier.guides.scale_terms import (
    at_points,
    element_sums,
    log_density_of,
    log_prior,
    number_of,
    plates_of_scale,
    squares_of,
    standardised,
    sum_to,
    users_of,
)
from vihier.guides.slice_sampler import slice_sample
from vihier.guides.structure import Location, Scale, Structure
from vihier.kernels.cells import GeneData
from vihier.kernels.elimination import Eliminated, Variances, dense_column, draw_dense, draw_leaf, eliminate

# Largest error, from rounding, of a prior precision beside the rows'.
SINGLE_ERROR = 0.03


@dataclass(frozen=True)
class Said:
    """What a block's d say of the shared part t of each line's mean: weight and rhs, [C, N], with e integrated out.

    `level_precision` and `level_pull`, [N], are those of a shift of all its genes: only their prior has a say.
    """

    weight: Tensor
    rhs: Tensor
    level_precision: Tensor
    level_pull: Tensor

    def __add__(self, other: Said) -> Said:
        return Said(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def double(self) -> Said:
        """Return the same in float64."""
        return Said(*(x.double() for x in vars(self).values()))


@dataclass(frozen=True)
class _Drawn:
    spread: Variances
    eliminated: Eliminated
    dense: Tensor
    left: Tensor


def single_does(chol: Tensor | None) -> bool:
    """Whether single precision resolves the directions that only the prior knows beside those that rows know best.

    `chol` is the factor of the whitened precision of genes' locations; None where it is diagonal.
    """
    if chol is None:
        return True
    largest = chol.diagonal(dim1=-2, dim2=-1).max()
    return bool(largest.square() * torch.finfo(torch.float32).eps < SINGLE_ERROR)


class GeneChains:
    """The chains' state for the genes of one block.

    Attributes
    ----------
    deviations : dict
        Draws of the deviations of the genes' own locations, draws last; sgRNAs padded to [B, K, N].
    columns, slots, residual : Tensor
        What all deviations predict, by gene and line [B, C, N] and by sgRNA [B, K, N], and what they leave of the rows'
        sum in each gene and line.
    """

    def __init__(self, structure: Structure, block: Block, generator: torch.Generator) -> None:
        self.structure, self.block, self.generator = structure, block, generator
        self.deviations: Theta = {}
        self._squares: Theta = {}
        self.rows: RowChains | CountChains | None = None
        if block.rows is not None:
            self.rows = (RowChains if structure.counts is None else CountChains)(structure, block.rows, generator)
        self._take_data(block.data)
        self.own_scales = [scale for scale in structure.scales if scale.plates == ("gene",)]
        self.tree_scales = tree_scales(structure)
        self.tree: GeneTree
        self._drawn: _Drawn

    def _take_data(self, data: GeneData) -> None:
        self.data = data
        self.cell_count, self.cell_total = data.line_count, data.line_total
        self.slot_count, self.slot_total = data.slot_count, data.slot_total

    def weigh_rows(self, theta: Theta) -> None:
        """Take the rows at their present precisions, where these are unequal."""
        if self.rows is not None:
            self._take_data(self.rows.data(theta, self.block.data).to(self.block.data.square.dtype))

    @property
    def weighed(self) -> Block:
        """The block, its rows at the precisions last taken."""
        return replace(self.block, data=self.data)

    def move_tree_scales(self, theta: Theta, column: Tensor | None) -> Theta:
        """Move the genes' own scales of the tree with all of a gene's locations integrated out; return all scales."""
        theta = dict(theta)
        self.tree = GeneTree.of(self.structure, theta, column, self.weighed)
        for scale in self.own_scales:
            if scale in self.tree_scales:
                self.move_in_tree(theta, scale)
        return theta

    def move_in_tree(self, theta: Theta, scale: Scale) -> None:
        """Move one of them."""
        points = at_points(theta)

        def density(x: Tensor) -> Tensor:
            evidence = self.tree.log_evidence({**points, scale.name: x})
            return log_prior(self.structure, theta, scale, x, self.block) + evidence

        theta[scale.name] = slice_sample(density, theta[scale.name], self.generator)

    def draw_dense(self, theta: Theta, column: Tensor | None) -> Said:
        """Draw d = (a, m, b) given the shared part of each line's mean, with e integrated out."""
        spread, eliminated = self._eliminate(theta, column)
        dense = draw_dense(eliminated, normal_like(eliminated.scale, self.generator))
        left = self._left(spread, dense).expand_as(eliminated.weight)
        self._drawn = _Drawn(spread, eliminated, dense, left)
        weight, rhs = eliminated.weight.sum(0), (left * eliminated.leaf_shrink).sum(0) / spread.noise
        level = gene_level(spread, self.block)
        if level is None:
            return Said(weight, rhs, torch.zeros_like(rhs[0]), torch.zeros_like(rhs[0]))
        part, weights = dense[..., level[0]], level[1]
        return Said(weight, rhs, weights.expand_as(part).sum((0, 2)), (part * weights).sum((0, 2)))

    def _eliminate(self, theta: Theta, column: Tensor | None) -> tuple[Variances, Eliminated]:
        """Integrate e out; in double precision from the first time on that single precision would not do."""
        spread = variances(self.structure, theta, self.block)
        if self.data.count.dtype == torch.float32:
            try:
                eliminated = eliminate(self.data, spread, column, with_evidence=False)
            except torch.linalg.LinAlgError:
                eliminated = None
            if eliminated is not None and single_does(eliminated.chol):
                return spread, eliminated
            self.block = replace(self.block, data=self.block.data.double())
            self._take_data(self.data.double())
            spread = variances(self.structure, theta, self.block)
        return spread, eliminate(self.data, spread, column, with_evidence=False)

    def _left(self, spread: Variances, dense: Tensor) -> Tensor:
        """Sum over a gene's rows in each line of lfc less what d predicts, [B, C, N]."""
        left, column = self.cell_total, dense_column(self.block.data, spread, dense)
        if column is not None:
            left = left - self.cell_count * column
        if spread.sgrna is not None:
            slots = dense[..., : self.slot_count.shape[1]].transpose(1, 2)
            left = left - self.data.to_lines(slots)
        return left

    def draw_leaf(self, theta: Theta, column: Tensor | None, shift: Tensor | None) -> None:
        """Shift d, draw e given the new shared part of each line's mean, and work out what they leave."""
        drawn = self._drawn
        del self._drawn
        dense, left = drawn.dense, drawn.left
        # Other blocks may be in another precision.
        shared = torch.zeros_like(left[0]) if column is None else column.to(left)
        shift = None if shift is None else shift.to(left)
        left = torch.addcmul(left, self.cell_count, shared if shift is None else shared + shift, value=-1)
        level = gene_level(drawn.spread, self.block)
        if shift is not None and level is not None:
            dense[..., level[0]] += shift[:, None]
        leaf = draw_leaf(drawn.spread, drawn.eliminated, left, normal_like(left, self.generator))
        self.deviations = split_genes(self.structure, theta, self.block, dense.transpose(1, 2), leaf, self.generator)
        self._squares = {}
        of_dense = dense_column(self.block.data, drawn.spread, dense)
        self.columns = leaf + (shared if of_dense is None else shared + of_dense)
        self.residual = torch.addcmul(left, self.cell_count, leaf, value=-1)
        self.slots = torch.zeros_like(self.slot_count)
        if drawn.spread.sgrna is not None:
            self.slots = dense[..., : self.slot_count.shape[1]].transpose(1, 2)

    def _slot_residual(self) -> Tensor:
        return self.slot_total - self.data.to_slots(self.columns) - self.slot_count * self.slots

    def residual_squares(self) -> Tensor:
        """Sum of the rows' squared residuals, shape [N], in float64: sum y^2 - sum f (y + (y - f))."""
        explained = (self.columns * (self.cell_total + self.residual)).sum(1)
        if self.structure.table(("sgrna",)):
            explained = explained + (self.slots * (self.slot_total + self._slot_residual())).sum(1)
        return (self.block.data.square[:, None].double() - explained.double()).sum(0)

    def own_squares(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """Count and sum the squares of a location's standardised deviations by element of a scale."""
        name = location.name
        if name not in self._squares:
            self._squares[name] = squares_of(self.structure, self.block, location, self.deviations[name])
        counted = number_of(self.structure, self.block, location), self._squares[name]
        return standardised(self.structure, theta, location, counted, scale, self.block)

    def _part(self, location: Location) -> Tensor:
        deviations = self.deviations[location.name]
        return deviations if location.reach == 1 else location.reach * deviations

    def rows_terms(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """B and a of `rows_density` for a scale and one location that it scales."""
        noise = noise_variance(self.structure, theta, self.block)
        part = self._part(location)
        if location.plates == ("sgrna",):
            count, summed = self.slot_count, self._slot_residual()
        else:
            count = element_sums(location.plates, self.cell_count, self.block)
            summed = element_sums(location.plates, self.residual, self.block)
        weight = sum_to(location.plates, scale.plates, part * (count * part), self.block)
        pull = sum_to(location.plates, scale.plates, part * summed, self.block) + weight
        return pull / noise, weight / noise

    def log_prior(self, theta: Theta) -> Tensor:
        """Log prior density, [N], of the genes' own scales and locations."""
        total = gene_log_prior(self.structure, theta, self.block).double()
        total = total.sum(0) if total.dim() > 1 else total
        for name, deviations in self.deviations.items():
            location = self.structure.site(name)
            assert isinstance(location, Location)
            total = total + log_density_of(self.structure, theta, self.block, location, deviations)
        return total

    def stretch(self, scale: Scale, location: Location, shift: Tensor) -> None:
        """Grow a location's deviations along with its scale, by exp(shift) over the scale's plates."""
        name, shift = location.name, shift.to(self.cell_count)
        if name in self._squares:
            grown = align(shift, scale.plates, plates_of_scale(self.structure, location), self.block)
            self._squares[name] = self._squares[name] * (2 * grown).exp()
        grown = align(shift, scale.plates, location.plates, self.block).expm1()
        change = self._part(location) * grown
        self.deviations[name] = self.deviations[name] + (change if location.reach == 1 else change / location.reach)
        self._take_change(location, change)

    def move_location(self, location: Location, moved: Tensor) -> None:
        """Move a location's deviations by so much, with all that follows from them."""
        self.deviations[location.name] = self.deviations[location.name] + moved
        self._squares.pop(location.name, None)
        self._take_change(location, location.reach * moved)

    def _take_change(self, location: Location, change: Tensor) -> None:
        """Bring predictions and residuals along with a change of what a location adds to rows' means."""
        if location.plates == ("sgrna",):
            self.slots = self.slots + change
            self.residual -= self.data.to_lines(change)
        else:
            columns = align(change, location.plates, ("gene", "line"), self.block)
            self.columns += columns
            self.residual.addcmul_(self.cell_count, columns, value=-1)

    def move_scales(self, theta: Theta) -> Theta:
        """Move the genes' own scales, with the deviations held and with the rows asking; return all scales."""
        theta = dict(theta)
        for scale in self.own_scales:
            if scale in self.tree_scales or scale.name in self.structure.of_rows:
                continue
            users = users_of(self.structure, scale)
            self.move_held(theta, scale, users)
            if len(users) == 1:
                self.move_with_rows(theta, scale, users[0])
        return theta

    def move_held(self, theta: Theta, scale: Scale, users: Sequence[Location]) -> None:
        """Move a scale of the genes while the deviations are held."""
        start = theta[scale.name]
        number, squares = torch.zeros_like(start), torch.zeros_like(start)
        for location in users:
            more, larger = self.own_squares(theta, scale, location)
            number, squares = number + more, squares + larger
        density = held_density(lambda x: log_prior(self.structure, theta, scale, x, self.block), start, number, squares)
        theta[scale.name] = slice_sample(density, start, self.generator)

    def move_with_rows(self, theta: Theta, scale: Scale, location: Location) -> None:
        """Move a scale of the genes together with the deviations that it scales."""
        start = theta[scale.name]
        pull, weight = self.rows_terms(theta, scale, location)
        density = rows_density(lambda x: log_prior(self.structure, theta, scale, x, self.block), start, pull, weight)
        theta[scale.name] = slice_sample(density, start, self.generator)
        self.stretch(scale, location, theta[scale.name] - start)
