"""Locations drawn from their exact conditional at each NUTS draw of the scales, into the program's sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vihier.guides.block import Block, Theta, make_block, shared_design, take_genes
from vihier.guides.deviations import draw_shared_deviations
from vihier.guides.evidence import collapse
from vihier.guides.structure import Structure
from vihier.guides.structured_draws import draw_block
from vihier.guides.values import centre, locations_of, to_sites, unpad
from vihier.inference.batches import genes_batch
from vihier.inference.device import generator
from vihier.kernels.elimination import NaturalParameters
from vihier.models.batch import Batch
from vihier.screen import Screen

# Elements of arrays [draws, lines, lines] and [genes, lines, draws].
ELEMENTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class LocationDraws:
    """NUTS draws of a subset's log-scales, from which everything else is drawn exactly.

    Attributes
    ----------
    structure, screen
    block : Block
        The genes whose scales were sampled.
    places : ndarray
        Which of them are wanted, ascending.
    theta : dict
        Log-scales, draws last, those of genes for the block's genes.
    others : NaturalParameters or None
        What all other genes say of the shared locations.
    seed : int
    """

    structure: Structure
    screen: Screen
    block: Block
    places: np.ndarray
    theta: Theta
    others: NaturalParameters | None
    seed: int

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return next(iter(self.theta.values())).shape[-1]

    def shared(self) -> tuple[Theta, Tensor | None]:
        """Draw the deviations of the shared locations, and return the shared part of each line's mean, [C, N]."""
        if shared_design(self.structure, self.block) is None:
            return {}, None
        random = generator(torch.device("cpu"), self.seed, "shared")
        size = max(1, ELEMENTS_AT_ONCE // self.block.batch.n_lines**2)
        drawn: list[Theta] = []
        columns: list[Tensor] = []
        for first in range(0, self.n_draws, size):
            theta = {name: value[..., first : first + size] for name, value in self.theta.items()}
            natural = collapse(self.structure, theta, self.block).natural
            assert natural is not None
            total = natural if self.others is None else natural + self.others
            deviations, column, _ = draw_shared_deviations(self.structure, theta, self.block, total, random)
            drawn.append(deviations)
            columns.append(column)
        return {name: torch.cat([each[name] for each in drawn], -1) for name in drawn[0]}, torch.cat(columns, -1)

    def blocks(self) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Yield some of the genes wanted at a time: their batch, and site -> draws [N, *its shape there]."""
        structure = self.structure
        shared, column = self.shared()
        shared_values = centre(structure, locations_of(structure, True), shared, {}, self.block)
        scales = {name: value.exp() for name, value in self.theta.items()}
        codes = self.block.batch.gene_idx.numpy()
        size = max(1, ELEMENTS_AT_ONCE // (self.n_draws * self.block.batch.n_lines))
        for first in range(0, len(self.places), size):
            places = self.places[first : first + size]
            block = take_genes(self.block, torch.as_tensor(places))
            theta = _of_places(structure, self.theta, places)
            random = generator(torch.device("cpu"), self.seed, "genes", first)
            deviations, _ = draw_block(structure, theta, block, column, random)
            values = _with_genes(structure, deviations, shared_values, block)
            values |= _of_places(structure, scales, places)
            yield genes_batch(self.screen, codes[places]), to_sites(structure, values)


@dataclass(frozen=True)
class DrawnLocations:
    """Draws of a subset in which the chains have drawn the locations too.

    Attributes
    ----------
    structure, screen
    block : Block
        The genes, all of which are wanted.
    theta : dict
        Log-scales, draws last, those of genes for the block's genes.
    shared, local : dict
        Deviations of the locations that genes share and of the genes' own, draws last, sgRNAs padded.
    """

    structure: Structure
    screen: Screen
    block: Block
    theta: Theta
    shared: Theta
    local: Theta

    def blocks(self) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Yield the genes: their batch, and site -> draws [N, *its shape there]."""
        structure, block = self.structure, self.block
        shared_values = centre(structure, locations_of(structure, True), self.shared, {}, block)
        values = _with_genes(structure, self.local, shared_values, block)
        values |= {name: value.exp() for name, value in self.theta.items()}
        yield block.batch, to_sites(structure, values)


def _with_genes(structure: Structure, deviations: Theta, shared_values: Theta, block: Block) -> Theta:
    """Return values of all locations, from those that genes share and the genes' own deviations, sgRNAs padded."""
    own = locations_of(structure, False)
    of_sgrnas = {x.name: unpad(deviations[x.name], block) for x in own if x.plates == ("sgrna",)}
    return shared_values | centre(structure, own, deviations | of_sgrnas, shared_values, block)


def _of_places(structure: Structure, theta: Theta, places: np.ndarray) -> Theta:
    own = {scale.name for scale in structure.scales if scale.plates == ("gene",)}
    return {name: value[places] if name in own else value for name, value in theta.items()}


def subset_block(structure: Structure, screen: Screen, genes: np.ndarray) -> Block:
    """Return some genes of a screen, by code, as one block."""
    return make_block(structure, genes_batch(screen, genes))
