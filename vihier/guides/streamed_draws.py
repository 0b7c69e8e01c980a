"""A fit of a whole screen by streamed chains: draws of what genes share, and of a block's genes when it is at hand."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vihier.errors import VihierError
from vihier.guides.block import Block, Theta, make_block, variances
from vihier.guides.deviations import shared_columns, split_genes
from vihier.guides.draw_groups import groups_of
from vihier.guides.given_shared import draw_tables
from vihier.guides.own_scales import OwnScales, draw_own
from vihier.guides.streamed_globals import evenly_spread
from vihier.guides.streamed_leaf import cells_of, dims_in_file, places_of, regeneration_of
from vihier.guides.structure import Structure
from vihier.guides.values import centre, locations_of, to_sites, unpad
from vihier.inference.device import generator
from vihier.inference.threads import one_thread
from vihier.models.batch import Batch


@dataclass(frozen=True)
class GeneDraws:
    """Draws of a block's genes: values of all locations but the gene x line table, and scales; draws last.

    `leaf` are that table's own deviations where these were drawn too, [B, C, N].
    """

    values: Theta
    scales: Theta
    leaf: Tensor | None = None


@dataclass(kw_only=True)
class StreamedGlobals:
    """What any fit knows whose genes were streamed.

    `theta` are draws of the shared log-scales and `shared` of the shared locations' deviations, draws last. `rhat` and
    `drift` are of the shared log-scales: over the chains, and between the kept states' first half and their second.
    """

    structure: Structure
    seed: int
    history: dict[str, np.ndarray]
    converged: bool
    reason: str
    theta: Theta
    shared: Theta
    first: Block
    passes: int
    rhat: float
    drift: float
    dtype: torch.dtype
    not_identified: dict[str, str] = field(default_factory=dict)

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return next(iter(self.theta.values())).shape[-1]

    @property
    def sample_stats(self) -> Mapping[str, np.ndarray]:
        """Nothing: the draws are those of exact chains, which have no density of their own."""
        return {}

    @property
    def diagnostics(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """How far the chains were."""
        return {
            "passes": ((), np.asarray(self.passes)),
            "rhat_globals": ((), np.asarray(self.rhat)),
            "sweep_drift": ((), np.asarray(self.drift)),
        }

    def draw_globals(self, n_draws: int) -> dict[str, Tensor]:
        """Return the draws of the sites shared by genes: site -> [n_draws, *its shape]."""
        assert n_draws == self.n_draws
        return to_sites(self.structure, {name: value.to(self.dtype) for name, value in self.shared_values.items()})

    @property
    def shared_values(self) -> Theta:
        """Values of the shared scales and locations, draws last."""
        scales = {name: value.exp() for name, value in self.theta.items()}
        return scales | centre(self.structure, locations_of(self.structure, True), self.shared, {}, self.first)


@dataclass(kw_only=True)
class StreamedFit(StreamedGlobals):
    """A structured fit whose genes were streamed; `own` is where each gene's own scales are."""

    own: OwnScales

    def __post_init__(self) -> None:
        column = shared_columns(self.structure, self.shared, self.first)
        self.column = None if column is None else column.to(self.own.centre)
        self._theta = {name: value.to(self.own.centre) for name, value in self.theta.items()}

    def draw_locals(self, batch: Batch, global_draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the sites of a batch's genes from their exact conditional: site -> [n_draws, *its shape there]."""
        with one_thread():
            block = make_block(self.structure, batch)
            drawn = self.draw_genes(block)
            values = drawn.values | self._leaf(block, drawn) | drawn.scales
        return to_sites(self.structure, values)

    def _leaf(self, block: Block, drawn: GeneDraws) -> Theta:
        """Draw the gene x line table: with the noise that regenerated draws have, where it is of one location."""
        if not self.structure.table(("gene", "line")):
            return {}
        regeneration = regeneration_of(self.structure, {}, self.seed)
        if regeneration is None:
            name = self.structure.table(("gene", "line"))[0].name
            raise VihierError(f"site {name!r}: such a table over genes and lines is not drawn in a large screen")
        known = {
            name: (dims_in_file(self.structure, name), np.ascontiguousarray(value.cpu().numpy(), dtype=np.float32))
            for name, value in (self.shared_values | drawn.values | drawn.scales).items()
        }
        cells, places = cells_of(block), places_of(block.batch)
        values = regeneration.draws_of_leaf(cells, known, places)
        return {regeneration.leaf: torch.as_tensor(values).to(self.own.centre)}

    def draw_genes(self, block: Block) -> GeneDraws:
        """Draw all of a block's genes that is not over genes and lines, from the exact conditional."""
        number = int(block.batch.gene_idx[0])
        device = block.slot.device
        random = generator(device, self.seed, "own", number)
        own = draw_own(self.structure, block, self.own, self._theta, random)
        theta = self._theta | own
        local = [x for x in locations_of(self.structure, False) if x.plates != ("gene", "line")]
        shared = {name: value.to(self.own.centre) for name, value in self.shared_values.items()}
        parts: list[Theta] = []
        for at in groups_of(self.n_draws):
            keyed = generator(device, self.seed, "genes", number, at.start)
            some = {name: value[..., at] for name, value in theta.items()}
            spread = variances(self.structure, some, block)
            column = None if self.column is None else self.column[:, at]
            dense = draw_tables(block.data, spread, column, keyed)
            none = dense.new_zeros(())
            deviations = split_genes(
                self.structure, some, block, dense.transpose(1, 2), none, functools.partial(evenly_spread, random=keyed)
            )
            unpadded = {
                x.name: unpad(deviations[x.name], block) if x.plates == ("sgrna",) else deviations[x.name]
                for x in local
            }
            known = {name: value[..., at] for name, value in shared.items()}
            parts.append(centre(self.structure, local, unpadded, known, block))
        values = {x.name: torch.cat([part[x.name] for part in parts], -1) for x in local}
        return GeneDraws(values, {name: value.exp() for name, value in own.items()})
