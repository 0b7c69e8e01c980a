"""What genes share, moved after a pass over all blocks, given the sums that the visits have left behind."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Theta, table_variance
from vihier.guides.interweave import Sweeper
from vihier.guides.pass_rows import move_rows
from vihier.guides.pass_sums import Visit
from vihier.guides.scale_terms import children_of, sum_to, users_of
from vihier.guides.sgrna_spread import move_spread
from vihier.guides.slice_sampler import slice_sample
from vihier.guides.structure import Location, Scale, Structure

if TYPE_CHECKING:
    from vihier.guides.streamed_chains import StreamedChains

# Widths of the slice sampler's intervals: for the logarithm of the noise first these, then so many posterior sds.
NOISE_WIDTHS = (2.0, 0.2, 0.02)
NOISE_SDS = 30.0
SCALE_WIDTH = 5.0


def moved_with_rows(structure: Structure) -> list[tuple[Scale, list[Scale], Location]]:
    """Return the shared scales that move along with deviations of genes: their own, or those of the scales below.

    Returns
    -------
    list of (scale, family, location)
        `family` are the genes' or elements' scales that grow with it; empty where the location's own scale it is.
    """
    found: list[tuple[Scale, list[Scale], Location]] = []
    for scale in structure.scales:
        if scale.plates == ("gene",) or scale.name == structure.noise:
            continue
        users, family = users_of(structure, scale), children_of(structure, scale)
        below = users_of(structure, family[0]) if len(family) == 1 and not users else []
        if len(users) == 1 and users[0].plates not in SHARED:
            found.append((scale, [], users[0]))
        elif len(below) == 1 and below[0].plates not in SHARED:
            found.append((scale, family, below[0]))
    return found


class _Sums:
    """A pass's sums in the place of the blocks that they were taken over."""

    def __init__(self, chains: StreamedChains, total: Visit, theta: Theta) -> None:
        self.structure, self.block, self._total, self._start = chains.structure, chains.block, total, theta
        self.own_scales = [scale for scale in chains.structure.scales if scale.plates == ("gene",)]
        self.cell_count = total.residual

    def residual_squares(self) -> Tensor:
        """Sum of the rows' squared residuals, shape [N]."""
        return self._total.residual

    def own_squares(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """Count and sum the squares of a location's standardised deviations by element of a scale."""
        assert location.scale is not None
        count, square = self._total.squares[location.name]
        plates = self.structure.site(location.scale).plates
        square = square * (2 * (self._start[location.scale] - theta[location.scale])).exp()
        count = count.expand_as(square)
        return sum_to(plates, scale.plates, count, self.block), sum_to(plates, scale.plates, square, self.block)

    def rows_terms(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """B and a of `rows_density` for a scale and one location that grows with it."""
        pull, weight = self._total.rows[scale.name, location.name]
        noise = self.structure.noise
        change = 1.0 if noise is None else (2 * (self._start[noise] - theta[noise])).exp()
        return pull * change, weight * change

    def stretch(self, scale: Scale, location: Location, shift: Tensor) -> None:
        """Do nothing: deviations do not outlive the pass, and no move comes after this one."""


class SharedMoves(Sweeper):
    """The moves of what genes share, in some chains, given sums over all blocks.

    `shared` are the locations' deviations after them.

    One scale a pass moves along with deviations of genes, after all that move with the deviations held: what the rows
    say of another would have changed with it.
    """

    def __init__(self, chains: StreamedChains, total: Visit, theta: Theta, at: slice) -> None:
        passes = chains.state.passes
        super().__init__(
            chains.structure, [chains.block], lambda *keys: chains.random("pass", passes, "globals", at.start, *keys)
        )
        self.shared = {name: value[..., at] for name, value in chains.state.shared.items()}
        self.parts = [_Sums(chains, total, dict(theta))]  # type: ignore[list-item]
        self.genes = [torch.arange(chains.cells.n_genes, device=chains.block.slot.device)]
        self.n_rows = float(chains.cells.n_rows)
        self._turn, self._left = passes // 2, total.left
        self._rows, self._of_rows, self._first = chains.rows, total.of_rows, at.start
        self._sgrnas = total.sgrnas
        # A block of all genes, for tables over them; it holds no cells of theirs.
        self._whole = replace(chains.block, batch=replace(chains.block.batch, gene_idx=self.genes[0]))

    def move_scales(self, theta: Theta) -> None:
        """Move every shared scale that is not drawn with the shared locations."""
        moved = [scale for scale in self.global_scales if scale not in self.collapsed]
        together: tuple[Scale, ...] = ()
        if self.spread is not None and self._sgrnas is not None:
            together = self.spread.moved
            move_spread(self.structure, self.spread, theta, self.shared, self._sgrnas, self._whole, self.generator)
            moved = [scale for scale in moved if scale not in together]
        if self._rows is not None and self._of_rows is not None:
            at = slice(self._first, self._first + self._of_rows.pull.shape[-1])
            points = self._rows.points and self._rows.points.of_chains(at)
            move_rows(self, theta, self._of_rows, points, self._turn)
            moved = [scale for scale in moved if scale.name not in self.structure.of_rows]
        # The noise first: its squares are those before anything moved.
        for scale in sorted(moved, key=lambda scale: scale.name != self.structure.noise):
            family = children_of(self.structure, scale)
            if self._left is not None and self._concerns_leaf([scale]):
                self._move_leaf_out(theta, scale, [])
            elif self._left is not None and self._concerns_leaf(family):
                self._move_held(theta, scale, [scale], self.prior)
                self._move_leaf_out(theta, scale, family)
            elif scale.name == self.structure.noise:
                self._move_noise(theta, scale)
            else:
                self.move(theta, scale)
        # Deviations that are held here have not been drawn since those scales moved.
        with_rows = [x for x in moved_with_rows(self.structure) if x[0] not in together]
        if self._left is None and self._rows is None and with_rows:
            scale, family, location = with_rows[self._turn % len(with_rows)]
            super()._move_with_rows(theta, scale, family, location, self.own_prior if family else self.prior)

    def _concerns_leaf(self, scales: Collection[Scale]) -> bool:
        """Whether the rows, or the gene x line table, have one of these for their scale."""
        users = [location.plates for scale in scales for location in users_of(self.structure, scale)]
        return ("gene", "line") in users or self.structure.noise in [scale.name for scale in scales]

    def _move_leaf_out(self, theta: Theta, scale: Scale, family: Collection[Scale]) -> None:
        """Move a scale, or one and the genes' scales below it by one factor, the gene x line table integrated out."""
        start, left = theta[scale.name], self._left
        assert left is not None
        prior = self.own_prior if family else self.prior

        def density(points: Tensor) -> Tensor:
            each = [of_point(x) for x in points.unbind(-2)]
            return prior(theta, scale, points) + torch.stack(each, -2)

        def of_point(x: Tensor) -> Tensor:
            at = {**theta, scale.name: x}
            at |= {child.name: theta[child.name] + (x - start) for child in family}
            leaf = table_variance(self.structure, ("gene", "line"), at, self._whole)
            noise = torch.full_like(x, self.structure.noise_factor)
            if self.structure.noise is not None:
                noise = noise * at[self.structure.noise].exp()
            return left.log_evidence(noise.square(), None if leaf is None else leaf[:, 0]).sum(0)

        for width in self._widths(scale):
            theta[scale.name] = slice_sample(density, theta[scale.name], self.generator, width=width)
        for child in family:
            theta[child.name] = theta[child.name] + (theta[scale.name] - start)

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        for width in self._widths(scale):
            self.noise_width = width
            super()._move_noise(theta, scale)

    def _widths(self, scale: Scale) -> tuple[float, ...]:
        """Widths of a scale's moves, one after another: from how far off it may be to how well it is known."""
        if scale.name != self.structure.noise:
            return (SCALE_WIDTH,)
        narrow = NOISE_SDS / math.sqrt(2 * self.n_rows)
        return (*(width for width in NOISE_WIDTHS if width > narrow), narrow)

    def _move_with_rows(self, *_: object) -> None:
        return
