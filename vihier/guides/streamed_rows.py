"""Passes over rows that are Student-t or of several noise scales: what of each block outlives a pass, and its visits.

Weights are not kept from one pass to the next: they are drawn anew from what the locations leave of the rows, so that
between passes only what is predicted of each gene, line and sgRNA is there, in a file. Then all of a block's locations
are drawn given the weights, and its genes' own scales. A pass leaves behind what the shared locations are drawn from,
with the weights held and the gene x line table integrated out; or what noise scales and degrees of freedom are drawn
from, with the weights integrated out (`vihier.guides.pass_rows`), and all other shared scales given the deviations.

Where shared locations have moved since, the gene x line table moves against them by what its conditional mean does.

Passes after the burn-in also give the draws: what the visits draw of genes is put into a file with records for as many
passes as make the draws, the last of which stay there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vihier.guides.block import Block, Theta
from vihier.guides.block_file import BlockFile, Field
from vihier.guides.cell_file import CellFile
from vihier.guides.deviations import normal_like
from vihier.guides.freedom_points import FreedomPoints, freedom_points
from vihier.guides.gene_chains import GeneChains, Said
from vihier.guides.leaf_again import leaf_given_rest, leaf_of, take_leaf
from vihier.guides.pass_sums import Visit
from vihier.guides.row_chains import RowChains
from vihier.guides.row_sums import sums_of
from vihier.guides.sgrna_spread import sums_to_leave
from vihier.guides.streamed_chains import ChainState, Random, said_of, squares_by_scale
from vihier.guides.structure import Location, Scale, Structure
from vihier.guides.values import locations_of, unpad

SINGLE, HALF = np.dtype("f4"), np.dtype("f2")
DRAWS, PLACES = "draws", "places"
FIRST_VISITS = 4
"""How often weights and locations are drawn in the first pass, which starts from weights of one."""


@dataclass(frozen=True)
class PassPlan:
    """Which passes give draws: after `burn_in` of them each `stride`-th, of which the last `n_slots` are kept."""

    n_chains: int
    burn_in: int
    stride: int
    n_slots: int

    def slot(self, passes: int) -> int | None:
        """Return where what a pass draws is put; None for one that gives no draws."""
        after = passes - self.burn_in
        return None if after < 0 or after % self.stride else after // self.stride % self.n_slots


class StreamedRows:
    """What passes over such rows know of each other.

    Parameters
    ----------
    structure, cells
        What is swept.
    folder : Path
        Where the files are; those of an earlier process are gone on with.
    plan : PassPlan
    random : callable
        `random(*keys)` makes a generator keyed to a purpose.

    Attributes
    ----------
    draws : BlockFile
        What the passes drew of genes.
    saved : int or None
        After how many passes a checkpoint was written, whose files have to stay.
    """

    def __init__(self, structure: Structure, cells: CellFile, folder: Path, plan: PassPlan, random: Random) -> None:
        self.structure, self.cells, self.folder, self.plan, self.random = structure, cells, folder, plan, random
        folder.mkdir(parents=True, exist_ok=True)
        self.n_lineages = cells.skeleton(cells.mine[0]).data.lineage.shape[1]
        self.draws = BlockFile(folder / DRAWS, [self._drawn_of(*sizes) for sizes in cells.sizes], plan.n_slots)
        self.saved: int | None = None
        self._places: dict[int, BlockFile] = {}
        n_draws = plan.n_slots * plan.n_chains
        self._quantiles = torch.special.ndtri((torch.arange(n_draws, dtype=torch.float64) + 0.5) / n_draws).float()
        self._units = torch.tensor([i for i in range(1, n_draws + 1) if math.gcd(i, n_draws) == 1])
        self._pass: _Pass

    def _drawn_of(self, n_genes: int, _: int, n_sgrnas: int) -> dict[str, Field]:
        """Tables of what is drawn of a block: deviations of its locations, and its genes' own log-scales."""
        lengths = {"gene": n_genes, "sgrna": n_sgrnas, "line": self.cells.n_lines, "lineage": self.n_lineages}
        own = [scale for scale in self.structure.scales if scale.plates == ("gene",)]
        sites: list[Location | Scale] = [*locations_of(self.structure, False), *own]
        return {
            site.name: (
                (*(lengths[plate] for plate in site.plates), self.plan.n_chains),
                HALF if site.plates == ("gene", "line") else SINGLE,
            )
            for site in sites
        }

    def _predicted_of(self, n_genes: int, n_slots: int, _: int) -> dict[str, Field]:
        """Tables of what is predicted of a block's rows, and of how much of a change of the rest is left of it."""
        pairs = (n_genes, self.cells.n_lines, self.plan.n_chains)
        return {
            "columns": (pairs, SINGLE),
            "slots": ((n_genes, n_slots, self.plan.n_chains), SINGLE),
            "left": (pairs, HALF),
        }

    def _places_after(self, passes: int) -> BlockFile:
        if passes not in self._places:
            fields = [self._predicted_of(*sizes) for sizes in self.cells.sizes]
            self._places[passes] = BlockFile(self.folder / f"{PLACES}.{passes}", fields)
        return self._places[passes]

    def begin(self, state: ChainState, settles: bool, random: torch.Generator) -> None:
        """Begin a pass; `settles` where shared locations are drawn after it."""
        points = None
        if not settles:
            turn = state.passes // 2
            points = freedom_points(self.structure, state.theta, self.cells.n_rows, turn, random)
        before = after = None
        if self.structure.freedom is not None:
            before = self._places_after(state.passes) if state.passes else None
            after = self._places_after(state.passes + 1)
        self._pass = _Pass(state.passes, settles, self.plan.slot(state.passes), state.moved, points, before, after)

    @property
    def points(self) -> FreedomPoints | None:
        """Points of the degrees of freedom in this pass."""
        return self._pass.points

    def end(self) -> None:
        """End a pass that all workers have made: what only it needed goes, but for what a checkpoint goes on from."""
        self._keep_places(self._pass.passes + 1, self.saved)

    def finish(self) -> None:
        """End the passes: only the draws are needed from here on."""
        self._keep_places()

    def _keep_places(self, *after: int | None) -> None:
        for passes in [passes for passes in self._places if passes not in after]:
            self._places.pop(passes).close()
        for path in self.folder.glob(f"{PLACES}.*") if self.cells.workers.is_first else ():
            if int(path.suffix[1:]) not in after:
                path.unlink(missing_ok=True)

    def keep(self) -> None:
        """Have the disk hold what a checkpoint of the last pass goes on from, until there is another one."""
        self.draws.sync()
        self.saved = self._pass.passes + 1
        if self.structure.freedom is not None:
            self._places_after(self.saved).sync()

    def visit(self, number: int, block: Block, theta: Theta, column: Tensor | None, random: torch.Generator) -> Visit:
        """Draw a block's weights and locations, move its genes' own scales, and sum; see `streamed_chains.visit`."""
        now = self._pass
        chains = GeneChains(self.structure, block, random)
        rows = chains.rows
        assert isinstance(rows, RowChains)
        if now.before is not None:
            there = {name: value.to(block.slot.device) for name, value in now.before.get(number, 0).items()}
            columns = there["columns"]
            if now.moved is not None:
                columns = torch.addcmul(columns, there["left"], now.moved.to(columns))
            _draw_weights(rows, theta, columns, there["slots"])
        for again in range(1 if now.passes or self.structure.freedom is None else FIRST_VISITS):
            if again:
                _draw_weights(rows, theta, chains.columns, chains.slots)
            chains.weigh_rows(theta)
            theta = chains.move_tree_scales(theta, column) if chains.tree_scales else theta
            chains.draw_dense(theta, column)
            chains.draw_leaf(theta, column, None)
            theta = chains.move_scales(theta)
        self._finish(number, chains, theta)
        own = {scale.name: theta[scale.name] for scale in chains.own_scales}
        nothing = block.data.square.new_zeros(next(iter(theta.values())).shape[-1], dtype=torch.float64)
        if now.settles:
            return Visit(own, said_of(chains, theta, column).double(), nothing, {}, {})
        rows.take_residuals(chains.columns, chains.slots)
        rows.take_squares(theta)
        sums = sums_of(rows, self.structure, theta, now.points)
        nobody = Said(*[nothing[None]] * 2, *[nothing] * 2)
        sgrnas = sums_to_leave(self.structure, chains)
        return Visit(own, nobody, nothing, squares_by_scale(chains, theta), {}, of_rows=sums, sgrnas=sgrnas)

    def _finish(self, number: int, chains: GeneChains, theta: Theta) -> None:
        """Draw the gene x line table anew, which the scales have moved with, and keep what is to be kept."""
        now, block = self._pass, chains.block
        location = leaf_of(chains)
        mean, sd, left = leaf_given_rest(chains, theta)
        if now.slot is not None:
            found = {name: unpad(x, block) if self._is_of_sgrnas(name) else x for name, x in chains.deviations.items()}
            found[location.name] = (mean + sd * self._even_noise(number, sd.shape).to(sd)) / location.reach
            self.draws.put(number, now.slot, found | {scale.name: theta[scale.name] for scale in chains.own_scales})
        take_leaf(chains, mean + sd * normal_like(sd, chains.generator))
        if now.after is not None:
            now.after.put(number, 0, {"columns": chains.columns, "slots": chains.slots, "left": left})

    def _is_of_sgrnas(self, name: str) -> bool:
        return self.structure.site(name).plates == ("sgrna",)

    def _even_noise(self, number: int, shape: torch.Size) -> Tensor:
        """Noise of an element's draws in this pass, [B, C, N]: over all that are kept, each even quantile once.

        Which one draw r has is (a r + b) modulo the number of draws, with a and b of the element's own.
        """
        n, slot = self.plan.n_chains, self._pass.slot
        assert slot is not None
        random = self.random("even", number)
        a, b = (torch.randint(m, (*shape[:2], 1), generator=random, device=random.device) for m in self._choices)
        draw = torch.arange(slot * n, (slot + 1) * n, device=random.device)
        return self._quantiles.to(random.device)[(self._units.to(random.device)[a] * draw + b) % len(self._quantiles)]

    @property
    def _choices(self) -> tuple[int, int]:
        return len(self._units), len(self._quantiles)


@dataclass(frozen=True)
class _Pass:
    """What visits of a pass know: where shared locations have moved since the last; the files before it and after."""

    passes: int
    settles: bool
    slot: int | None
    moved: Tensor | None
    points: FreedomPoints | None
    before: BlockFile | None
    after: BlockFile | None


def _draw_weights(rows: RowChains, theta: Theta, columns: Tensor, slots: Tensor) -> None:
    rows.take_residuals(columns, slots)
    rows.take_squares(theta)
    rows.draw_weights(theta)
