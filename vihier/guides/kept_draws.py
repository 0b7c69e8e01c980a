"""A fit of a whole screen whose draws are the states of its chains, each with what a pass drew of every gene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from vihier.diagnostics.chains import ess_bulk
from vihier.guides.block import SHARED, Block, Theta
from vihier.guides.block_file import BlockFile
from vihier.guides.deviations import split_table
from vihier.guides.streamed_draws import GeneDraws, StreamedGlobals
from vihier.guides.structure import Structure
from vihier.guides.values import centre, locations_of
from vihier.models.batch import Batch


@dataclass(kw_only=True)
class KeptFit(StreamedGlobals):
    """Draws of what genes share in memory, and of genes in a file.

    Attributes
    ----------
    drawn : BlockFile
        What the passes drew of the blocks.
    slots : tuple of int
        Records of each block, in the order of the draws.
    number_of : mapping
        First gene of a block -> its number.
    n_chains : int
    ess : tuple of float
        Smallest and median effective sample size of the shared log-scales.
    """

    drawn: BlockFile
    slots: tuple[int, ...]
    number_of: Mapping[int, int]
    n_chains: int
    ess: tuple[float, float]

    @property
    def diagnostics(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """How far the chains were, and how much their draws are worth."""
        found = {"chains": self.n_chains, "ess_globals": self.ess[0], "ess_globals_median": self.ess[1]}
        return super().diagnostics | {name: ((), np.asarray(x)) for name, x in found.items()}

    def draw_genes(self, block: Block) -> GeneDraws:
        """Return the draws of a block's genes."""
        structure, number = self.structure, self.number_of[int(block.batch.gene_idx[0])]
        parts = [self.drawn.get(number, slot) for slot in self.slots]
        drawn = {
            name: torch.cat([part[name] for part in parts], -1)[..., : self.n_draws].to(block.slot.device)
            for name in parts[0]
        }
        shared = {name: value.to(self.dtype) for name, value in self.shared_values.items()}
        leaves = structure.table(("gene", "line"))
        local = [location for location in locations_of(structure, False) if location not in leaves]
        scales = {scale.name: drawn[scale.name].exp() for scale in structure.scales if scale.plates == ("gene",)}
        return GeneDraws(centre(structure, local, drawn, shared, block), scales, drawn[leaves[0].name])

    def leaf_of(self, number: int) -> torch.Tensor:
        """Return the draws of the gene x line table's deviations of a block, [B, C, N]."""
        (location,) = self.structure.table(("gene", "line"))
        parts = [self.drawn.get(number, slot, [location.name])[location.name] for slot in self.slots]
        return torch.cat(parts, -1)[..., : self.n_draws]

    def draw_locals(self, batch: Batch, global_draws: object) -> dict[str, torch.Tensor]:
        """Refuse: draws are had by the blocks that they were made by."""
        raise NotImplementedError


def effective_sizes(states: list[Theta]) -> tuple[float, float]:
    """Smallest and median effective sample size of log-scales that differ, from the states of chains in their order."""
    flat = [torch.cat([value.reshape(-1, value.shape[-1]) for value in state.values()]) for state in states]
    draws = torch.stack(flat).double().permute(2, 0, 1).cpu().numpy()  # [chain, draw, element]
    if len(states) < 4:
        return float("nan"), float("nan")
    found = ess_bulk(draws)
    return float(np.nanmin(found)), float(np.nanmedian(found))


def shared_as_drawn(structure: Structure, theta: Theta, shared: Theta, block: Block, random: torch.Generator) -> Theta:
    """Split what rows do not tell apart among the shared locations anew, given their scales as they are now."""
    found = dict(shared)
    for plates in SHARED:
        locations = structure.table(plates)
        if len(locations) > 1:
            total = sum(location.reach * shared[location.name] for location in locations)
            assert isinstance(total, torch.Tensor)
            found |= split_table(structure, plates, theta, block, total, random)
    return found
