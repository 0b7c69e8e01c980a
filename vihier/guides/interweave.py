"""Sweeps that leave the exact posterior of all scales and locations unchanged, many draws side by side.

A sweep draws the locations given the scales: each gene's given what genes share, then what they share given the genes,
in a few large parts. Then it moves each scale twice: with the deviations held, and with the standardised deviations
held and the rows asking. Interweaving the two mixes well whether the rows say much or little of a scale (Yu & Meng
2011, J. Comput. Graph. Stat. 20, 531). A scale that is the prior scale of others is also moved together with them.
Each move is a slice sampler in one dimension (Neal 2003, Ann. Stat. 31, 705), for all elements and draws at once.

Started from draws of a variational guide, a few sweeps remove what the guide gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vihier.guides.block import (
    SHARED,
    Block,
    Theta,
    align,
    deviation_sd,
    scale_log_prior,
    table_variance,
    variances,
)
from vihier.guides.deviations import (
    draw_shared_deviations,
    normal_like,
    shift_genes,
    split_genes,
    split_shared,
)
from vihier.guides.evidence import collapse
from vihier.guides.slice_sampler import slice_sample
from vihier.guides.structure import Location, Plates, Scale, Structure
from vihier.kernels.elimination import (
    Variances,
    draw_dense,
    draw_leaf,
    eliminate,
    fitted_total,
)
from vihier.kernels.shared_tree import (
    Level,
    SharedVariances,
    draw_above_lines,
    draw_lines,
    lineage_level,
    log_evidence,
    tree_log_evidence,
)

SCALE_FAMILIES = ("HalfNormal", "HalfCauchy")
NOISE_WIDTH = 0.25


def element_sums(plates: Plates, cells: Tensor, block: Block) -> Tensor:
    """Sum a quantity of each gene and line, [B, C, ...], over the elements of a column table."""
    lineage = block.data.lineage
    if plates == ("gene", "line"):
        return cells
    if plates == ("gene",):
        return cells.sum(1)
    if plates == ("gene", "lineage"):
        return lineage.T @ cells
    by_line = cells.sum(0)
    if plates == ("line",):
        return by_line
    return lineage.T @ by_line if plates == ("lineage",) else by_line.sum(0)


def sum_to(child: Plates, parent: Plates, values: Tensor, block: Block) -> Tensor:
    """Sum a table's elements, draws last, by the element of `parent` that each belongs to."""
    if child == parent:
        return values
    axes = tuple(range(values.dim() - 1))
    if parent == ():
        return values.sum(axes)
    if parent == ("gene",):
        return values.sum(axes[1:])
    if child[0] == "gene":
        values, child = values.sum(0), child[1:]
    return values if child == parent else block.data.lineage.T @ values


class Sweeper:
    """Sweeps over the scales of a structure, on a block that is the whole screen.

    Parameters
    ----------
    structure, block, generator
        What is swept, and its random numbers.
    shared : dict, optional
        Deviations of the shared locations. Where given, these and the scales shared by genes are held, and the block
        may be any genes: only their own scales move.

    Attributes
    ----------
    deviations : dict
        Draws of every location's deviation from the last sweep, draws last; sgRNAs padded to [B, K, N].
    """

    def __init__(
        self,
        structure: Structure,
        block: Block,
        generator: torch.Generator,
        shared: dict[str, Tensor] | None = None,
    ) -> None:
        self.structure, self.block, self.generator = structure, block, generator
        self.held = shared is not None
        self.deviations: dict[str, Tensor] = dict(shared or {})
        data = block.data
        self.children = {
            scale.name: [child for child in structure.scales if scale.name in [x[1] for x in child.arguments]]
            for scale in structure.scales
        }
        self.users = {
            scale.name: [location for location in structure.locations if location.scale == scale.name]
            for scale in structure.scales
        }
        # Scales of shared tables only, which can be drawn with those tables integrated out.
        self.collapsed = [scale for scale in structure.scales if self._is_collapsed(scale)]
        self.filled = block.filled.to(data.square.dtype)[..., None]
        self.n_rows = data.count.sum()
        self.cell_count = data.line_count[..., None]
        self.slot_count = data.count.sum(2)[..., None]
        self.slot_total = data.total.sum(2)[..., None]

    def sweep(self, theta: Theta) -> Theta:
        """Return the scales (log-scales, draws last) after one sweep."""
        theta = dict(theta)
        self._draw(theta)
        self._fit()
        for scale in self.structure.scales:
            if (self.held and scale.plates != ("gene",)) or scale in self.collapsed:
                continue
            if scale.name == self.structure.noise:
                self._move_noise(theta, scale)
            else:
                self._move(theta, scale)
        return theta

    def _is_collapsed(self, scale: Scale) -> bool:
        users = self.users[scale.name]
        if self.held or not users or scale.name == self.structure.noise:
            return False
        if scale.plates:
            return all(location.plates == ("line",) for location in users)
        return all(location.plates in SHARED for location in users)

    def shared(self) -> dict[str, Tensor]:
        """Return the shared locations' deviations after the last sweep."""
        return {
            location.name: self.deviations[location.name]
            for location in self.structure.locations
            if location.plates in SHARED
        }

    def _draw(self, theta: Theta) -> None:
        """Draw every location given the scales; shared scales are moved on the way.

        The first time all are drawn from their exact joint conditional. From then on in turn: d given t, with e
        integrated out; t given d, with e integrated out, when lines are independent; and what the rows cannot tell
        apart, a shift of all genes against the shared level, from its own conditional.
        """
        block = self.block
        spread = variances(self.structure, theta, block)
        if not self.deviations and not self.held:
            natural = collapse(self.structure, theta, block).natural
            if natural is not None:
                self.deviations, _, _ = draw_shared_deviations(self.structure, theta, block, natural, self.generator)
        column = self._column()
        eliminated = eliminate(block.data, spread, column)
        dense = draw_dense(eliminated, normal_like(eliminated.scale, self.generator))
        left = block.data.line_total[..., None] - fitted_total(block.data, spread, dense)
        if column is not None and self.held:
            left = left - self.cell_count * column
        elif column is not None:
            weight = eliminated.weight.sum(0)
            rhs = (left * eliminated.leaf_shrink).sum(0) / spread.noise
            dense, shift = self._draw_shared(theta, spread, weight, rhs, dense)
            column = self._column()
            assert column is not None
            left = left - self.cell_count * (column + shift)
        leaf = draw_leaf(spread, eliminated, left, normal_like(left, self.generator))
        self.deviations |= split_genes(self.structure, theta, block, dense.transpose(1, 2), leaf, self.generator)

    def _draw_shared(
        self, theta: Theta, spread: Variances, weight: Tensor, rhs: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw the shared scales and locations given d, in one go; shift d against them, by how much.

        Scales that are not indexed are drawn with all shared locations integrated out, those of lines and lineages
        with the lines integrated out.
        """
        structure, block = self.structure, self.block
        lineage = block.data.lineage
        prior = self._shared_variances(theta)
        level = lineage_level(weight, rhs, prior, lineage)
        for scale in self.collapsed:
            if not scale.plates:
                self._move_collapsed(theta, scale, weight, rhs, level)
                prior = self._shared_variances(theta)
                level = lineage_level(weight, rhs, prior, lineage)
        noise = normal_like(weight.new_empty(sum(lineage.shape) + 1, weight.shape[1]), self.generator)
        groups, top, above = draw_above_lines(level, prior, lineage, noise[len(lineage) :])
        for scale in self.collapsed:
            if scale.plates:
                self._move_collapsed_lines(theta, scale, weight, rhs - weight * above)
        prior = self._shared_variances(theta)
        tables = [draw_lines(weight, rhs, prior, above, noise[: len(lineage)]), groups, top]
        dense, shift = shift_genes(spread, dense, tables, prior, self.filled, self.generator)
        present = zip(tables, (prior.line, prior.lineage, prior.top), strict=True)
        parts = [x if x.dim() == 2 else x[None] for x, variance in present if variance is not None]
        self.deviations |= split_shared(structure, theta, block, torch.cat(parts), self.generator)
        return dense, shift

    def _shared_variances(self, theta: Theta) -> SharedVariances:
        return SharedVariances(*(table_variance(self.structure, plates, theta, self.block) for plates in SHARED))

    def _move_collapsed(self, theta: Theta, scale: Scale, weight: Tensor, rhs: Tensor, level: Level) -> None:
        """Move an unindexed scale of shared locations given the genes' d, all shared locations integrated out."""
        of_lines = any(location.plates == ("line",) for location in self.users[scale.name])

        def density(x: Tensor) -> Tensor:
            prior = self._shared_variances({**theta, scale.name: x})
            at = lineage_level(weight, rhs, prior, self.block.data.lineage) if of_lines else level
            return self._prior(theta, scale, x) + tree_log_evidence(at, prior)

        theta[scale.name] = slice_sample(density, theta[scale.name], self.generator)

    def _move_collapsed_lines(self, theta: Theta, scale: Scale, weight: Tensor, rhs: Tensor) -> None:
        """Move a scale of the line table's elements given all but that table."""

        def density(x: Tensor) -> Tensor:
            variance = table_variance(self.structure, ("line",), {**theta, scale.name: x}, self.block)
            evidence = sum_to(("line",), scale.plates, log_evidence(weight, rhs, variance), self.block)
            return self._prior(theta, scale, x) + evidence

        theta[scale.name] = slice_sample(density, theta[scale.name], self.generator)

    def _column(self) -> Tensor | None:
        """Shared part of each line's mean, [C, N]; None where genes share nothing."""
        total: Tensor | None = None
        for location in self.structure.locations:
            if location.plates in SHARED:
                part = align(location.reach * self.deviations[location.name], location.plates, ("line",), self.block)
                total = part if total is None else total + part
        return None if total is None else total.expand(self.block.batch.n_lines, -1)

    def _fit(self) -> None:
        """Compute what the deviations predict, by column and sgRNA, and what they leave, summed over rows."""
        data = self.block.data
        self.columns = torch.zeros_like(self.cell_count)
        self.slots = torch.zeros_like(self.slot_count)
        for location in self.structure.locations:
            part = location.reach * self.deviations[location.name]
            if location.plates == ("sgrna",):
                self.slots = self.slots + part
            else:
                self.columns = self.columns + align(part, location.plates, ("gene", "line"), self.block)
        self.residual = data.line_total[..., None] - self.cell_count * self.columns
        self.residual = self.residual - data.count.transpose(1, 2) @ self.slots

    def _slot_residual(self) -> Tensor:
        return self.slot_total - self.block.data.count @ self.columns - self.slot_count * self.slots

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        """Move the rows' scale given the sum of their squared residuals: sum y^2 - sum f (y + (y - f)).

        Locations may have it as their scale too.
        """
        data, start = self.block.data, theta[scale.name]
        squares = data.square.sum() - (self.columns * (data.line_total[..., None] + self.residual)).sum((0, 1))
        squares = squares - (self.slots * (self.slot_total + self._slot_residual())).sum((0, 1))
        squares = squares / self.structure.noise_factor**2
        own_number, own_squares = self._own_squares(theta, scale, [scale])
        number, squares = self.n_rows + own_number, squares + own_squares * (2 * start).exp()

        def density(x: Tensor) -> Tensor:
            return self._prior(theta, scale, x) - number * x - 0.5 * squares * (-2 * x).exp()

        theta[scale.name] = slice_sample(density, start, self.generator, width=NOISE_WIDTH)

    def _own_squares(self, theta: Theta, scale: Scale, moved: list[Scale]) -> tuple[Tensor, Tensor]:
        """Count and sum the squares of the standardised deviations whose scales are `moved`, by element of `scale`."""
        number, squares = torch.zeros_like(theta[scale.name]), torch.zeros_like(theta[scale.name])
        for member in moved:
            for location in self.users[member.name]:
                standard = self.deviations[location.name] / deviation_sd(self.structure, location, theta, self.block)
                one = torch.ones_like(standard)
                if location.plates == ("sgrna",):
                    standard, one = standard * self.filled, one * self.filled
                number = number + sum_to(location.plates, scale.plates, one, self.block)
                squares = squares + sum_to(location.plates, scale.plates, standard.square(), self.block)
        return number, squares

    def _own_prior(self, theta: Theta, scale: Scale, x: Tensor) -> Tensor:
        return scale_log_prior(self.structure, scale, {**theta, scale.name: x}, self.block)

    def _prior(self, theta: Theta, scale: Scale, x: Tensor) -> Tensor:
        """Log prior of a scale's elements at x, with that of the scales whose prior they are in."""
        total = self._own_prior(theta, scale, x)
        for child in self.children[scale.name]:
            prior = scale_log_prior(self.structure, child, {**theta, scale.name: x}, self.block)
            total = total + sum_to(child.plates, scale.plates, prior, self.block)
        return total

    def _move(self, theta: Theta, scale: Scale) -> None:
        name, users = scale.name, self.users[scale.name]
        self._move_held(theta, scale, [scale], self._prior)
        if len(users) == 1:
            self._move_with_rows(theta, scale, [], users[0], self._prior)
        family = self.children[name]
        if not users and all(self._is_leaf(child) for child in family):
            self._move_held(theta, scale, family, self._own_prior)
            if len(family) == 1 and len(self.users[family[0].name]) == 1:
                self._move_with_rows(theta, scale, family, self.users[family[0].name][0], self._own_prior)

    def _is_leaf(self, scale: Scale) -> bool:
        """Whether a scale's prior is the same when it and its parent grow by one factor, and nothing else asks."""
        free = scale.name != self.structure.noise and not self.children[scale.name]
        return free and scale.family.__name__ in SCALE_FAMILIES

    def _move_held(
        self, theta: Theta, scale: Scale, moved: list[Scale], prior: Callable[[Theta, Scale, Tensor], Tensor]
    ) -> None:
        """Move a scale, or a scale of scales with all of those, by one factor while the deviations are held."""
        start = theta[scale.name]
        number, squares = self._own_squares(theta, scale, moved)

        def density(x: Tensor) -> Tensor:
            shift = x - start
            return prior(theta, scale, x) - number * shift - 0.5 * squares * (-2 * shift).exp()

        theta[scale.name] = slice_sample(density, start, self.generator)
        self._shift(theta, scale, [member for member in moved if member is not scale], theta[scale.name] - start)

    def _shift(self, theta: Theta, scale: Scale, family: list[Scale], shift: Tensor) -> None:
        for child in family:
            theta[child.name] = theta[child.name] + align(shift, scale.plates, child.plates, self.block)

    def _move_with_rows(
        self,
        theta: Theta,
        scale: Scale,
        family: list[Scale],
        location: Location,
        prior: Callable[[Theta, Scale, Tensor], Tensor],
    ) -> None:
        """Move a scale together with the deviations that it scales: with f the factor, the rows say f b - f^2 a / 2."""
        data, start = self.block.data, theta[scale.name]
        noise = data.square.new_full(start.shape[-1:], self.structure.noise_factor)
        if self.structure.noise is not None:
            noise = noise * theta[self.structure.noise].exp()
        part = location.reach * self.deviations[location.name]
        if location.plates == ("sgrna",):
            count, summed = self.slot_count, self._slot_residual()
        else:
            count = element_sums(location.plates, self.cell_count, self.block)
            summed = element_sums(location.plates, self.residual, self.block)
        b = sum_to(location.plates, scale.plates, part * (summed + count * part), self.block) / noise.square()
        a = sum_to(location.plates, scale.plates, count * part.square(), self.block) / noise.square()

        def density(x: Tensor) -> Tensor:
            factor = (x - start).exp()
            return prior(theta, scale, x) + factor * b - 0.5 * factor.square() * a

        theta[scale.name] = slice_sample(density, start, self.generator)
        shift = theta[scale.name] - start
        self._shift(theta, scale, family, shift)
        change = part * (align(shift, scale.plates, location.plates, self.block).exp() - 1)
        self.deviations[location.name] = self.deviations[location.name] + change / location.reach
        if location.plates == ("sgrna",):
            self.slots = self.slots + change
            self.residual = self.residual - data.count.transpose(1, 2) @ change
        else:
            columns = align(change, location.plates, ("gene", "line"), self.block)
            self.columns = self.columns + columns
            self.residual = self.residual - self.cell_count * columns
