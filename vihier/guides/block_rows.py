"""The rows of all blocks side by side, for a sweeper: what is common to fold changes and to read counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Generic, TypeVar

import torch
from torch import Tensor

from vihier.guides.block import Theta
from vihier.guides.count_chains import CountChains
from vihier.guides.gene_chains import GeneChains
from vihier.guides.mixed_model import Structure
from vihier.guides.row_chains import RowChains
from vihier.inference.threads import in_threads

Rows = TypeVar("Rows", RowChains, CountChains)
Result = TypeVar("Result")


class BlockRows(Generic[Rows]):
    """What the rows of all blocks say.

    Parameters
    ----------
    structure : Structure
        Of a program whose rows are not Normal with one noise scale.
    parts : sequence of GeneChains
        The blocks' chains.
    rows : sequence
        Those of their rows.
    generator : torch.Generator
    """

    def __init__(
        self, structure: Structure, parts: Sequence[GeneChains], rows: Sequence[Rows], generator: torch.Generator
    ) -> None:
        self.structure, self.parts, self.generator = structure, parts, generator
        self.rows: Sequence[Rows] = rows

    def _for_parts(self, function: Callable[[int], Result]) -> list[Result]:
        return list(in_threads(function, range(len(self.rows)), self.parts[0].block.slot.device))

    def _sum(self, function: Callable[[int], Tensor]) -> Tensor:
        return reduce(add, in_threads(function, range(len(self.rows)), self.parts[0].block.slot.device))

    @property
    def weights(self) -> list[Tensor | None]:
        """Weights of each block's Student-t rows, or the observations of counts, [n, N]; None where none."""
        return [rows.weight for rows in self.rows]

    def start_from(self, weights: Sequence[Tensor | None]) -> None:
        """Start from weights of rows, or observations, as `weights` gives them."""
        for rows, weight in zip(self.rows, weights, strict=True):
            rows.weight = weight

    def take_residuals(self) -> None:
        """Work out what the locations leave of the rows."""
        self._for_parts(lambda i: self.rows[i].take_residuals(self.parts[i].columns, self.parts[i].slots))

    def log_density(self, mine: Sequence[Theta]) -> Tensor:
        """Log density of the rows, [N], weights integrated out."""
        return self._sum(lambda i: self.rows[i].log_density(mine[i]))
