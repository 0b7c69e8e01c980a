"""Log-scales as one vector: where each element of each scale is in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.block import Block, Theta
from vihier.guides.structure import Structure


@dataclass(frozen=True)
class LogScales:
    """Where the log-scales of a structure are in a vector of `size`, those of genes covering a block's genes.

    `shapes` holds the shape of each scale over its plates, in the order of the structure.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, structure: Structure, block: Block, *, own: bool = False) -> LogScales:
        """Lay out the scales of a structure for the genes of a block: all, or the genes' own."""
        sizes = {"gene": len(block.batch.gene_idx), "line": block.batch.n_lines, "lineage": block.batch.lineages}
        scales = [scale for scale in structure.scales if not own or scale.plates == ("gene",)]
        shapes = [tuple(sizes[plate] for plate in scale.plates) for scale in scales]
        return cls(tuple(scale.name for scale in scales), tuple(shapes))

    @property
    def _lengths(self) -> list[int]:
        return [int(torch.Size(shape).numel()) for shape in self.shapes]

    @property
    def size(self) -> int:
        """Number of log-scales."""
        return sum(self._lengths)

    def split(self, vectors: Tensor) -> Theta:
        """Take N vectors, [N, size], apart: site -> [*plates, N]."""
        parts = vectors.T.split(self._lengths)
        return {
            name: part.reshape(*shape, -1) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }

    def join(self, theta: Theta) -> Tensor:
        """Put the log-scales of N draws, site -> [*plates, N], into vectors [N, size]."""
        return torch.cat([theta[name].reshape(-1, theta[name].shape[-1]) for name in self.names]).T

    def positions(self) -> dict[str, Tensor]:
        """Position in the vector of each element: site -> [*plates]."""
        numbers = torch.arange(self.size).split(self._lengths)
        return {name: part.reshape(shape) for name, shape, part in zip(self.names, self.shapes, numbers, strict=True)}

    def elements(self) -> list[str]:
        """Name of each element: the site, and its place over its plates where it has any."""
        found = []
        for name, shape, length in zip(self.names, self.shapes, self._lengths, strict=True):
            found += [name] if not shape else [f"{name}[{i}]" for i in range(length)]
        return found
