"""One gene block's side of the sweeps where rows have covariates; `vihier.guides.gene_chains` is what is common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vihier.guides.block import Theta, deviation_sd, noise_variance
from vihier.guides.design_block import DesignBlock, SharedLayout, Table
from vihier.guides.deviations import normal_like
from vihier.guides.gene_chains import GeneChains, single_does
from vihier.guides.mixed_model import Correlation, Location, Scale, Structure, members_of
from vihier.guides.scale_terms import sum_to
from vihier.kernels.correlated import Mixing, factor_of, inverse_factor
from vihier.kernels.design import DesignSums, Eliminated, Said, draw_leaf, eliminate
from vihier.kernels.weighted_design import WeightedDesign

ALL = slice(None)


@dataclass(frozen=True)
class Shift:
    """A shift of a table of genes up and of a shared table down by as much, which rows do not notice.

    `local` is among a block's tables; both have the same design, and the elements of `shared` are what `local` has
    beside genes or sgRNAs, or it has one element.
    """

    local: tuple[tuple[str, ...], str]
    shared: Table


@dataclass(frozen=True)
class VectorShift:
    """Shifts, drawn together, of components that are correlated; of each against a shared table, None where none is."""

    correlation: Correlation
    shared: tuple[Table | None, ...]


def shifts_of(structure: Structure, layout: SharedLayout) -> list[Shift | VectorShift]:
    """Return one shift for each shared table that has a table of genes to shift against; of a vector's, one in all."""
    found: list[Shift | VectorShift] = []
    of_members: dict[tuple[tuple[str, ...], str], Table] = {}
    members = [(x, members_of(structure, x)) for x in structure.correlations]
    correlated = {(location.plates, location.design) for _, each in members for location in each}
    local = [key for key in structure.tables if key[0][:1] in (("gene",), ("sgrna",))]
    for shared in layout.tables:
        if shared.plates:
            against: list[tuple[str, ...]] = [("gene", *shared.plates)]
        else:
            crossed = [plates for plates, design in local if design == shared.design and len(plates) > 1]
            against = [("gene",), ("sgrna",), *crossed]
        keys = [(plates, shared.design) for plates in against if (plates, shared.design) in local]
        keys = [key for key in keys if key[0] != ("gene", "line")]
        if keys and keys[0] in correlated:
            of_members[keys[0]] = shared
        elif keys:
            found.append(Shift(keys[0], shared))
    for correlation, each in members:
        tables = tuple(of_members.get((location.plates, location.design)) for location in each)
        if any(tables):
            found.append(VectorShift(correlation, tables))
    return found


class DesignChains(GeneChains):
    """The chains' state for the genes of one block.

    Attributes
    ----------
    dense, leaf : Tensor
        d, [B, D, N], and e, [B, C, N].
    dense_left, leaf_left : Tensor
        What all locations leave of the rows, summed with the rows' designs: x' and z of it.
    """

    def __init__(
        self,
        structure: Structure,
        design: DesignBlock,
        shifts: Sequence[Shift | VectorShift],
        generator: torch.Generator,
    ) -> None:
        super().__init__(structure, design.block, generator)
        self.tree_scales = []
        self.design, self.shifts = design, shifts
        self.stats: DesignSums = design.data
        self.dense: Tensor
        self.leaf: Tensor
        self.dense_left: Tensor
        self.leaf_left: Tensor
        self.shared_totals: Tensor | None = None
        self._given: Eliminated

    def weigh_rows(self, theta: Theta) -> None:
        """Take the rows at their present precisions, where these are unequal."""
        if self.rows is not None and self.design.cells is not None:
            rows = self.rows.data(theta, self.block.data)
            self.stats = self.design.cells.weigh(rows.count[:, 0, 0], rows.total[:, 0, 0])

    @property
    def columns(self) -> Tensor:  # type: ignore[override]
        """What all locations predict of each row, [n, 1, N]; `slots` adds nothing."""
        assert self.design.cells is not None
        return self.design.cells.fitted(self.dense, self.leaf, self.shared_totals)[:, None]

    @property
    def slots(self) -> Tensor:  # type: ignore[override]
        """Zero: see `columns`."""
        return self.dense.new_zeros(1, 1, 1)

    def eliminate(self, theta: Theta, shared: Tensor | None) -> Eliminated:
        """Integrate e out and factor d given the scales and u, [P, N]; see `GeneChains._eliminate` on precision."""
        if self.data.count.dtype == torch.float32:
            try:
                given = self._eliminate_design(theta, shared)
            except torch.linalg.LinAlgError:
                given = None
            if given is not None and single_does(given.chol):
                return given
            self.design = self.design.to(torch.float64)
            self.block = self.design.block
            self._take_data(self.block.data)
            assert isinstance(self.stats, WeightedDesign)
            self.stats = self.stats.double()
        return self._eliminate_design({name: value.double() for name, value in theta.items()}, shared)

    def _eliminate_design(self, theta: Theta, shared: Tensor | None) -> Eliminated:
        noise = noise_variance(self.structure, theta, self.block)
        scale, leaf = self.design.scale(self.structure, theta), self.design.leaf_variance(self.structure, theta)
        shared = None if shared is None else shared.to(noise)
        return eliminate(self.stats, noise, scale, leaf, shared, self._mixings(theta))

    def _mixings(self, theta: Theta) -> list[Mixing]:
        """Return how columns of d are correlated, for N draws."""
        found, like = [], self.design.data.square
        for correlation in self.structure.correlations:
            columns = torch.tensor(self._member_columns(correlation), device=like.device)
            # The prior sds of d have no sign.
            signs = like.new_tensor([math.copysign(1.0, x.reach) for x in members_of(self.structure, correlation)])
            found.append(Mixing(columns, signs[:, None] * factor_of(theta[correlation.name]).to(signs)))
        return found

    def draw_coefficients(self, theta: Theta, shared: Tensor | None) -> Said:
        """Draw d given u, [P, N], with e integrated out; return what it says of u."""
        given = self.eliminate(theta, shared)
        self._given = given
        self.dense = given.draw(normal_like(given.solution, self.generator))
        noise = noise_variance(self.structure, theta, self.block)
        said = self.stats.said(given, 1.0 / noise, self.dense)
        precisions, pulls = [], []
        for shift in self.shifts:
            if isinstance(shift, VectorShift):
                precisions.append(noise.new_full((1, 1), float(len(self.dense))))
                pulls.append(self.dense[:, self._member_columns(shift.correlation)].sum(0))
                continue
            table = self._table(shift.local)
            weight = given.scale.mT[:, table.columns].square().reciprocal()
            if table.plates == ("sgrna",):
                weight = weight * self.block.filled[..., None]
            parts = weight.sum(0), (weight * self.dense[:, table.columns]).sum(0)
            if not shift.shared.plates:
                parts = tuple(part.sum(0, keepdim=True) for part in parts)  # type: ignore[assignment]
            precisions.append(parts[0])
            pulls.append(parts[1])
        return replace(said, level_precision=tuple(precisions), level_pull=tuple(pulls)).double()

    def _member_columns(self, correlation: Correlation) -> list[int]:
        """Which column of d each component of a vector is."""
        members = members_of(self.structure, correlation)
        return [self._table((location.plates, location.design)).columns.start for location in members]

    def _table(self, key: tuple[tuple[str, ...], str]) -> Table:
        return next(table for table in self.design.local if (table.plates, table.design) == key)

    def draw_rest(self, theta: Theta, shared: Tensor | None, shifts: list[Tensor]) -> None:
        """Shift d, draw e given the new u, and work out what they leave."""
        given, data = self._given, self.stats
        del self._given
        for shift, by in zip(self.shifts, shifts, strict=True):
            at = (
                self._member_columns(shift.correlation)
                if isinstance(shift, VectorShift)
                else self._table(shift.local).columns
            )
            self.dense[:, at] += by.to(self.dense)
        shared = None if shared is None else shared.to(self.dense)
        self.shared_totals = shared
        rest = data.rest(shared, self.dense.shape[-1])
        left = rest.leaf - data.to_leaf(self.dense, ALL)
        leaf = self.design.leaf_variance(self.structure, theta)
        self.leaf = torch.zeros_like(left)
        if leaf is not None:
            noise = noise_variance(self.structure, theta, self.block)
            self.leaf = draw_leaf(given, leaf, noise, left, normal_like(left, self.generator))
        self.leaf_left = left - data.leaf_weight * self.leaf
        self.dense_left = rest.dense - data.gram_times(self.dense, ALL) - data.to_dense(self.leaf)
        self.deviations = self.design.split(self.structure, theta, self.dense, self.leaf, self.generator)
        self._squares = {}

    def residual_squares(self) -> Tensor:
        """Sum of the rows' squared residuals, [N]."""
        data, shared = self.design.data, self.shared_totals
        rest = data.rest(shared, self.dense.shape[-1])
        explained = (self.dense * (rest.dense + self.dense_left)).sum((0, 1))
        explained = explained + (self.leaf * (rest.leaf + self.leaf_left)).sum((0, 1))
        return data.squares(shared) - explained

    def _columns_of(self, location: Location) -> slice | None:
        """Return which columns of d a location's table is; None where it is the leaf."""
        leaf, key = self.design.leaf, (location.plates, location.design)
        return None if leaf is not None and key == (leaf.plates, leaf.design) else self._table(key).columns

    def rows_terms(self, theta: Theta, scale: Scale, location: Location) -> tuple[Tensor, Tensor]:
        """B and a of `rows_density` for a scale and one location that it scales."""
        noise = noise_variance(self.structure, theta, self.block)
        part, at = self._part(location), self._columns_of(location)
        part = part[:, None] if location.plates == ("gene",) else part
        if at is None:
            count, summed = self.stats.leaf_weight, self.leaf_left
        else:
            count, summed = self.stats.diagonal(at), self.dense_left[:, at]
        squares, pulled = count * part.square(), part * summed
        if location.plates == ("gene",):
            squares, pulled = squares[:, 0], pulled[:, 0]
        weight = sum_to(location.plates, scale.plates, squares, self.block)
        pull = sum_to(location.plates, scale.plates, pulled, self.block) + weight
        return pull / noise, weight / noise

    def _take_change(self, location: Location, change: Tensor) -> None:
        """Bring what is left of the rows along with a change of a location's part of its table."""
        data, at = self.stats, self._columns_of(location)
        change = change[:, None] if location.plates == ("gene",) else change
        if at is None:
            change = change.expand_as(self.leaf)
            self.leaf = self.leaf + change
            self.leaf_left = self.leaf_left - data.leaf_weight * change
            self.dense_left = self.dense_left - data.to_dense(change)
        else:
            self.dense[:, at] += change
            self.leaf_left = self.leaf_left - data.to_leaf(change, at)
            self.dense_left = self.dense_left - data.gram_times(change, at)

    def standardised(self, theta: Theta, correlation: Correlation) -> Tensor:
        """Return the deviations of a vector's components in units of their sds, [B, K, N], in float64."""
        parts = []
        for location in members_of(self.structure, correlation):
            parts.append(self.deviations[location.name] / deviation_sd(self.structure, location, theta, self.block))
        return torch.stack(parts, 1).double()

    def scatter(self, theta: Theta, correlation: Correlation) -> Tensor:
        """Sum of products of the standardised components of a vector over genes, [N, K, K]."""
        standard = self.standardised(theta, correlation)
        return torch.einsum("bjn,bkn->njk", standard, standard)

    def factor_terms(self, theta: Theta, correlation: Correlation, chol: Tensor) -> tuple[Tensor, Tensor]:
        """Sum what the rows say of L, [N, K, K], where the standardised deviations are L z and z is held.

        With t the change of L, it is <pull, t> - <t, weight t> / 2: pull [N, K, K] and weight [N, K, K, K, K].
        """
        noise = noise_variance(self.structure, theta, self.block).double()
        members, at = members_of(self.structure, correlation), self._member_columns(correlation)
        n_draws = len(noise)
        sds = [x.reach * deviation_sd(self.structure, x, theta, self.block) for x in members]
        scale = torch.stack([sd.expand(1, n_draws) for sd in sds], 1).double()
        whitened = torch.einsum("njk,bkn->bjn", inverse_factor(chol), self.standardised(theta, correlation))
        pull = torch.einsum("bjn,bkn->njk", scale * self.dense_left[:, at] / noise, whitened)
        gram = self.stats.gram(n_draws)[..., at, :][..., at].permute(0, 2, 3, 1)
        gram = gram * (scale[:, :, None] * scale[:, None] / noise)
        size = len(at)
        weight = noise.new_zeros(n_draws, size, size, size, size)
        for j in range(size):
            for m in range(j + 1):
                weight[:, :, j, :, m] = torch.einsum("bkln,bn->nkl", gram, whitened[:, j] * whitened[:, m])
                weight[:, :, m, :, j] = weight[:, :, j, :, m]
        return pull, weight

    def take_factor(self, theta: Theta, correlation: Correlation, before: Tensor, after: Tensor) -> None:
        """Bring the components of a vector along with the factor of their correlations."""
        standard = self.standardised(theta, correlation)
        change = torch.einsum("njk,bkn->bjn", after @ inverse_factor(before), standard) - standard
        for i, location in enumerate(members_of(self.structure, correlation)):
            moved = deviation_sd(self.structure, location, theta, self.block) * change[:, i].to(self.dense)
            self.move_location(location, moved)
