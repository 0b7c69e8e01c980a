"""The rows of genes whose means have covariates, given draws of the scales and of what genes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vihier.diagnostics.prior_tables import deviation_draws, deviation_variance
from vihier.guides.mixed_model import Location, Structure, index_of, is_shared
from vihier.inference.draws import Draws
from vihier.kernels.correlated import Mixing
from vihier.kernels.gene_conditional import RowDesign
from vihier.models.batch import Batch

Entry = tuple[Location, tuple[Tensor, ...], Tensor, Tensor]
"""A gene's location, which element of it each row is in, times what, and the elements' prior variances, draws first."""


@dataclass(frozen=True)
class DesignedGenes:
    """A batch's rows less what genes share, [n, N], and the entries of each in the genes' own tables.

    `factors` are locations that are correlated, by name, and the factors of their correlation matrices, [N, K, K].
    """

    batch: Batch
    value: Tensor
    entries: tuple[Entry, ...]
    factors: tuple[tuple[tuple[str, ...], Tensor], ...] = ()

    @classmethod
    def of(cls, structure: Structure, values: Draws, batch: Batch) -> DesignedGenes:
        """Take draws of all sites, draws first."""
        assert structure.design is not None and batch.lfc is not None
        designs, offset = structure.design.of(batch)
        n_draws = len(next(iter(values.values())))
        total = (batch.lfc - offset)[:, None].repeat(1, n_draws)
        entries = []
        for location in structure.locations:
            index = index_of(location.plates, ("row",), batch)
            assert index is not None
            x = location.reach * (designs[location.design] if location.design else torch.ones_like(offset))
            if is_shared(location.plates):
                everything: tuple[Any, ...] = (slice(None), *index)
                deviation = deviation_draws(structure, location, values, batch)[everything]
                total -= (x * deviation.reshape(n_draws, -1)).T
            else:
                entries.append(
                    (location, index, x, deviation_variance(structure, location, values, batch, reach=False))
                )
        factors = tuple((x.members, values[x.name]) for x in structure.correlations)
        return cls(batch, total, tuple(entries), factors)

    def conditional(self, at: slice, gene: int, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, [n, N], of the means of a gene's rows given all of them, of noise variances given."""
        y = self.value[at]
        dense, sds = [y.new_zeros(len(y), 0)], [y.new_zeros(0, y.shape[1])]
        leaf = leaf_variance = None
        kept = {name for members, _ in self.factors for name in members}
        place: dict[str, int] = {}
        for location, index, x, variance in self.entries:
            if location.plates == ("sgrna",):
                sgrnas, element = index[0][at].unique(return_inverse=True)
                of_table = variance[:, sgrnas]
            else:
                of_table = variance[:, gene] if len(index) > 1 else variance[:, gene, None]
                element = index[1][at] if len(index) > 1 else torch.zeros_like(index[0][at])
            if location.plates == ("gene", "line") and leaf is None:
                leaf, leaf_variance = x[at], of_table.T
                continue
            columns = torch.nn.functional.one_hot(element, of_table.shape[1]).to(y) * x[at, None]
            used = (columns != 0).any(0) | (location.name in kept)
            place[location.name] = sum(x.shape[1] for x in dense)
            dense.append(columns[:, used])
            sds.append(of_table[:, used].sqrt().T)
        design = RowDesign(torch.cat(dense, 1), leaf, self.batch.line[at])
        mixings = [Mixing(torch.tensor([place[x] for x in members]), chol) for members, chol in self.factors]
        return design.conditional(torch.cat(sds), leaf_variance, 1 / noise, y, mixings)
