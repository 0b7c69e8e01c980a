"""Sweeps over the scales of a program whose rows have covariates; see `vihier.guides.interweave` for what is common.

What genes share is drawn in one go given the genes' coefficients: lines are independent given a border of few others
(`vihier.kernels.bordered`), and the scales of either are drawn with those integrated out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, deviation_sd, noise_variance
from vihier.guides.correlation_moves import draw_shifts, held_products, move_factor, rows_gain
from vihier.guides.design_block import OF_LINES, DesignBlock, SharedLayout, Table
from vihier.guides.design_chains import DesignChains, VectorShift, shifts_of
from vihier.guides.deviations import normal_like
from vihier.guides.evidence import global_log_prior
from vihier.guides.gene_chains import GeneChains
from vihier.guides.interchange import swap
from vihier.guides.interweave import Sweeper
from vihier.guides.mixed_model import Correlation, Scale, Structure, is_shared, members_of
from vihier.guides.scale_terms import at_points, log_density_of, sum_to, users_of
from vihier.guides.slice_sampler import slice_sample
from vihier.kernels.bordered import bordered, factor, integrate_lines, rhs_of_lines
from vihier.kernels.correlated import factor_of, gain_of_vectors, log_prior
from vihier.kernels.design import Said, log_evidence, natural_parameters

# Draws of genes' coefficients and of what genes share, in turn, before a first sweep over weighted rows.
FIRST_ROUNDS = 3
# Rounds of moves of a correlation matrix with the deviations held: they cost as much for 100 genes as for 10,000.
ROUNDS = 2


class DesignSweeper(Sweeper):
    """Sweeps over the scales of a structure with a row design, on blocks that together are the whole screen.

    Parameters
    ----------
    structure, designs, layout
        What is swept.
    random : callable
        `random(*keys)` makes a generator keyed to a purpose; blocks have streams of their own.
    """

    def __init__(
        self,
        structure: Structure,
        designs: Sequence[DesignBlock],
        layout: SharedLayout,
        random: Callable[..., torch.Generator],
    ) -> None:
        self.layout, self.designs = layout, designs
        self.shifts = shifts_of(structure, layout)
        self.chains: list[DesignChains] = []
        super().__init__(structure, [design.block for design in designs], random)
        self.tree_scales = []
        self.totals: Tensor | None = None

    def _make_parts(self, blocks: Sequence[Block], generators: Sequence[torch.Generator]) -> list[GeneChains]:
        self.chains = [
            DesignChains(self.structure, design, self.shifts, generator)
            for design, generator in zip(self.designs, generators, strict=True)
        ]
        return list(self.chains)

    def _is_collapsed(self, scale: Scale) -> bool:
        users = users_of(self.structure, scale)
        if not users or scale.name in self.structure.of_rows or not all(is_shared(x.plates) for x in users):
            return False
        of_lines = [location.plates in OF_LINES for location in users]
        if all(location.plates == ("line",) for location in users):
            return scale.plates in ((), ("line",), ("lineage",))
        return not scale.plates and all(of_lines) == any(of_lines)

    def sweep(self, theta: Theta) -> Theta:
        """Return the scales (log-scales, draws last) after one sweep."""
        theta = dict(theta)
        for pairs in self.pairs:
            theta = swap(self.structure, theta, pairs, self.block, self.generator)
        if self.rows is not None:
            at_start = self.of_parts(theta)
            self._for_parts(lambda i: self.chains[i].weigh_rows(at_start[i]))
        if self.draws_shared and self.totals is None:
            self._draw_shared_first(theta)
        said, shifts = self._draw_coefficients(theta), []
        if self.draws_shared:
            shifts = self.draw_shared_given(theta, said)
        mine = self.of_parts(theta)

        def finish(i: int) -> Theta:
            self.chains[i].draw_rest(mine[i], self.totals, shifts)
            return self.chains[i].move_scales(mine[i])

        self._gather(theta, self._for_parts(finish))
        self._move_global_scales(theta)
        self._move_noise_of_rows(theta)
        return theta

    def _take_shift(self, shift: Tensor) -> None:
        if self.totals is None:
            return
        # The chains hold what they were, and predict with it what they did.
        self.totals = self.totals.clone()
        for table in self.layout.tables:
            if (table.plates, table.design) == ((), ""):
                self.totals[table.columns] -= shift

    def _draw_coefficients(self, theta: Theta) -> Said:
        """Draw the genes' coefficients given u; return what they say of it."""
        mine = self.of_parts(theta)
        return reduce(add, self._for_parts(lambda i: self.chains[i].draw_coefficients(mine[i], self.totals)))

    def collapse(self, theta: Theta) -> tuple[Tensor, Tensor, Tensor]:
        """Log evidence at u = 0, [N], and precision [N, P, P] and right-hand side [N, P] of u, genes' tables out."""
        mine = self.of_parts(theta)

        def of_part(i: int) -> tuple[Tensor, Tensor, Tensor]:
            noise = noise_variance(self.structure, mine[i], self.parts[i].block)
            given = self.chains[i].eliminate(mine[i], None)
            data = self.designs[i].data
            return log_evidence(data, given, noise), *natural_parameters(data, given, noise)

        parts = self._for_parts(of_part)
        evidence, precision, rhs = (reduce(add, each) for each in zip(*parts, strict=True))
        return evidence, precision, rhs

    def _scale(self, theta: Theta, tables: Sequence[Table]) -> Tensor:
        """Prior sds of the columns of shared tables, [P, ...], at log-scales whose last axes may be several."""
        parts = []
        for table in tables:
            sd = table.variance(self.structure, theta, self.block).sqrt()
            sd = sd if table.plates else sd[None]
            parts.append(sd.expand(table.columns.stop - table.columns.start, *sd.shape[1:]))
        shape = max((part.shape[1:] for part in parts), key=lambda of_part: (len(of_part), of_part.numel()))
        # A constant sd is the same at all points.
        parts = [part.reshape(len(part), *(1 for _ in shape[1:]), -1) if part.dim() == 2 else part for part in parts]
        return torch.cat([part.expand(-1, *shape) for part in parts])

    def _draw_shared_first(self, theta: Theta) -> None:
        """Draw u from its exact conditional given the scales, all genes out; near it where rows are weighted."""
        if self.rows is not None:
            self.totals = self.block.data.square.new_zeros(self.layout.size, next(iter(theta.values())).shape[-1])
            for _ in range(FIRST_ROUNDS):
                self.draw_shared_given(theta, self._draw_coefficients(theta))
            return
        _, precision, rhs = self.collapse(theta)
        posterior = factor(precision, rhs, self._scale(theta, self.layout.tables).T)
        self.totals = posterior.draw(normal_like(posterior.solution, self.generator)).T

    def draw_shared_given(self, theta: Theta, said: Said) -> list[Tensor]:
        """Draw the scales of shared tables and u given d; return how far d shifts against it, [E, N] for each shift."""
        layout, q = self.layout, self.layout.n_own
        parts = bordered(said.precision, said.rhs, layout.columns, q, layout.n_border)
        n_draws, n_lines = said.rhs.shape[1], len(layout.columns)

        def of_lines(at: Theta) -> Tensor:
            scale = self._scale(at, layout.lines)
            none = scale.new_zeros(layout.size + 1 - len(scale), *scale.shape[1:])
            return torch.cat([scale, none])[layout.columns[:, :q]].movedim((0, 1), (-2, -1))

        precision, rhs = parts.border, parts.border_rhs
        if q:
            precision, rhs = integrate_lines(parts, of_lines(theta))
        border = rhs.new_zeros(n_draws, 0)
        if layout.border:
            for scale in self.collapsed:
                if self._of_border(scale):
                    self._slice(theta, scale, lambda at: self._border_evidence(precision, rhs, at))
            found = factor(precision, rhs, self._scale(theta, layout.border).T)
            border = found.draw(normal_like(found.solution, self.generator))
        lines = rhs.new_zeros(n_draws, n_lines, 0)
        if q:
            left = rhs_of_lines(parts, border)
            for scale in self.collapsed:
                if not self._of_border(scale):
                    plates = scale.plates

                    def evidence(at: Theta, plates: tuple[str, ...] = plates) -> Tensor:
                        given = factor(parts.line, left, of_lines(at)).log_evidence
                        return sum_to(("line",), plates, given.movedim(-1, 0), self.block)

                    self._slice(theta, scale, evidence)
            found = factor(parts.line, left, of_lines(theta))
            lines = found.draw(normal_like(found.solution, self.generator))
        totals = rhs.new_zeros(layout.size + 1, n_draws)
        totals[layout.columns[:, :q]] = lines.permute(1, 2, 0)
        totals[layout.size - layout.n_border : layout.size] = border.T
        totals = totals[: layout.size]
        shifts = self._shift_against(theta, totals, said)
        self.totals = totals
        self.shared = layout.split(self.structure, theta, self.block, totals, self.generator)
        return shifts

    def _of_border(self, scale: Scale) -> bool:
        return all(location.plates not in OF_LINES for location in users_of(self.structure, scale))

    def _border_evidence(self, precision: Tensor, rhs: Tensor, at: Theta) -> Tensor:
        return factor(precision, rhs, self._scale(at, self.layout.border).movedim(0, -1)).log_evidence

    def _slice(self, theta: Theta, scale: Scale, evidence: Callable[[Theta], Tensor]) -> None:
        points = at_points(theta)

        def density(x: Tensor) -> Tensor:
            return self.prior(theta, scale, x) + evidence({**points, scale.name: x})

        theta[scale.name] = slice_sample(density, theta[scale.name], self.generator)

    def _shift_against(self, theta: Theta, totals: Tensor, said: Said) -> list[Tensor]:
        """Draw the shifts that rows do not notice, in which only priors have a say; `totals` are moved along."""
        found = []
        for shift, precision, pull in zip(self.shifts, said.level_precision, said.level_pull, strict=True):
            if isinstance(shift, VectorShift):
                found.append(self._shift_vector(theta, totals, shift, precision, pull))
                continue
            at = shift.shared.columns
            weight = self._scale(theta, [shift.shared]).square().reciprocal()
            total = precision + weight
            mean = (weight * totals[at] - pull) / total
            by = mean + total.rsqrt() * normal_like(mean, self.generator)
            totals[at] -= by
            found.append(by)
        return found

    def _shift_vector(self, theta: Theta, totals: Tensor, shift: VectorShift, number: Tensor, sums: Tensor) -> Tensor:
        """Draw the shifts of all genes' vectors, [K, N]; see `_shift_against`."""
        tables = {i: table for i, table in enumerate(shift.shared) if table is not None}
        shared = {
            i: (self._scale(theta, [table])[0].square().reciprocal(), totals[table.columns][0])
            for i, table in tables.items()
        }
        noise = normal_like(totals.new_empty(totals.shape[1], len(tables)), self.generator)
        root = self._root(theta, shift.correlation)
        by = draw_shifts(root, sums, number, shared, noise)
        for i, table in tables.items():
            totals[table.columns] -= by[i]
        return by

    def _root(self, theta: Theta, correlation: Correlation) -> Tensor:
        """Factor of the prior covariance of what a vector's components add to rows whose designs are 1, [N, K, K]."""
        members, chol = members_of(self.structure, correlation), factor_of(theta[correlation.name])
        sds = [x.reach * deviation_sd(self.structure, x, theta, self.block).reshape(-1) for x in members]
        return torch.stack([sd.expand(len(chol)) for sd in sds], -1)[..., None] * chol

    def _scatter(self, theta: Theta, correlation: Correlation) -> Tensor:
        mine = self.of_parts(theta)
        return reduce(add, self._for_parts(lambda i: self.chains[i].scatter(mine[i], correlation)))

    def _held_squares(self, theta: Theta, scale: Scale, moved: Sequence[Scale]) -> tuple[Tensor, ...]:
        number, squares = self.own_squares(theta, scale, moved)
        names, found = {x.name for x in moved}, []
        for correlation in self.structure.correlations:
            members = members_of(self.structure, correlation)
            if any(location.scale in names for location in members):
                chol, scatter = factor_of(theta[correlation.name]), self._scatter(theta, correlation)
                found.append(held_products(members, chol, scatter, moved))
        if not found:
            return number, squares
        more, products = (reduce(add, each) for each in zip(*found, strict=True))
        return number, squares + more, products

    def _move_global_scales(self, theta: Theta) -> None:
        super()._move_global_scales(theta)
        for correlation in self.structure.correlations:
            self._move_correlation(theta, correlation)

    def _move_correlation(self, theta: Theta, correlation: Correlation) -> None:
        """Move a correlation matrix, with the deviations held and then with the whitened ones and the rows asking."""
        scatter, n_genes = self._scatter(theta, correlation), self.n_genes
        for _ in range(ROUNDS):
            theta[correlation.name] = move_factor(
                theta[correlation.name],
                correlation,
                lambda chol: gain_of_vectors(chol, scatter, n_genes),
                self.generator,
            )
        start, mine = factor_of(theta[correlation.name]), self.of_parts(theta)
        found = self._for_parts(lambda i: self.chains[i].factor_terms(mine[i], correlation, start))
        pull, weight = (reduce(add, terms) for terms in zip(*found, strict=True))
        gain = rows_gain(start, pull, weight)
        theta[correlation.name] = move_factor(theta[correlation.name], correlation, gain, self.generator)
        after = factor_of(theta[correlation.name])
        self._for_parts(lambda i: self.chains[i].take_factor(mine[i], correlation, start, after))

    def log_joint(self, theta: Theta) -> Tensor:
        """Log density, [N], of the rows and of all scales and locations as the last sweep left them."""
        total = self._log_joint(theta)
        for correlation in self.structure.correlations:
            free, scatter = theta[correlation.name], self._scatter(theta, correlation)
            chol = factor_of(free)
            # Beyond the density of components that know nothing of each other.
            gain = gain_of_vectors(chol, scatter, self.n_genes) + 0.5 * scatter.diagonal(dim1=-2, dim2=-1).sum(-1)
            total = total + log_prior(free, chol, correlation.concentration) + gain
        return total

    def _log_joint(self, theta: Theta) -> Tensor:
        """Take genes' vectors as if their components knew nothing of each other."""
        if self.rows is not None:
            return super().log_joint(theta)
        structure, mine = self.structure, self.of_parts(theta)
        total = global_log_prior(structure, theta, self.block)
        for location in structure.locations:
            if is_shared(location.plates):
                total = total + log_density_of(structure, theta, self.block, location, self.shared[location.name])
        noise = noise_variance(structure, theta, self.block)
        squares = reduce(add, self._for_parts(lambda i: self.parts[i].residual_squares()))
        total = total - 0.5 * (squares / noise + self.n_rows * (noise.log() + math.log(2 * math.pi)))
        return reduce(add, self._for_parts(lambda i: self.parts[i].log_prior(mine[i])), total)
