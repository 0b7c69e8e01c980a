"""Where the chains over a whole screen start: chains that were swept on some of its genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from vihier.guides.block import Block, Theta
from vihier.guides.cell_file import CellFile
from vihier.guides.draw_groups import groups_of_chains
from vihier.guides.interweave import Sweeper
from vihier.guides.row_moves import RowMoves
from vihier.guides.streamed_chains import ChainState, Random, zero_shared
from vihier.guides.streamed_moves import NOISE_WIDTHS
from vihier.guides.structure import Structure
from vihier.inference.progress import Progress
from vihier.inference.threads import in_threads
from vihier.inference.workers import Workers

START_GENES = 160
START_SWEEPS, FAR_OFF = 20, 10
FREEDOM_START = 1.5


def start_on_some_genes(
    structure: Structure,
    cells: CellFile,
    n_chains: int,
    random: Random,
    progress: Progress,
    init: Theta | None = None,
) -> ChainState:
    """Sweep chains on blocks taken at random, and give every other gene the scales of one of theirs.

    So many genes bring the shared scales and locations within some of the whole screen's posterior sds of where they
    belong; the passes over all blocks do the rest.

    Parameters
    ----------
    n_chains : int
    random : callable
        `random(*keys)` makes a generator keyed to a purpose.
    init : dict, optional
        Log-scales to start from instead, by site, NaN where not known.
    """
    keyed = random("start")
    per_block = max(1, cells.n_genes // len(cells))
    n_blocks = min(len(cells), max(2, -(-START_GENES // per_block)))
    chosen = sorted(torch.randperm(len(cells), generator=keyed, device=keyed.device)[:n_blocks].tolist())
    blocks, n_genes = [], 0
    for number in chosen:
        block = cells[number]
        genes = torch.arange(n_genes, n_genes + len(block.batch.gene_idx), device=block.slot.device)
        blocks.append(replace(block, batch=replace(block.batch, gene_idx=genes)))
        n_genes += len(genes)
    swept, shared = _sweep(structure, blocks, n_genes, n_chains, random, cells.workers, progress)
    twin = torch.randint(n_genes, (cells.n_genes,), generator=keyed, device=keyed.device)
    places = torch.cat([cells.skeleton(number).batch.gene_idx for number in chosen])
    twin[places] = torch.arange(n_genes, device=twin.device)
    own = {scale.name for scale in structure.scales if scale.plates == ("gene",)}
    dtype = blocks[0].data.square.dtype
    theta = {name: (value[twin] if name in own else value).to(dtype) for name, value in swept.items()}
    for name, value in (init or {}).items():
        if name in theta:
            known = value[..., None].to(theta[name])
            theta[name] = torch.where(known.isfinite(), known, theta[name])
    return ChainState(theta, {name: value.to(dtype) for name, value in shared.items()})


def _sweep(
    structure: Structure,
    blocks: Sequence[Block],
    n_genes: int,
    n_chains: int,
    random: Random,
    workers: Workers,
    progress: Progress,
) -> tuple[Theta, Theta]:
    """Sweep chains on some blocks, a few side by side; each worker has some of them, and gets all."""

    def of_chains(at: slice) -> tuple[Theta, Theta]:
        n = at.stop - at.start
        theta = dispersed(structure, blocks[0], n_genes, n, random("start", "scales", at.start))
        sweeper = Sweeper(structure, blocks, lambda *keys: random("start", at.start, *keys))
        sweeper.settle_spread()
        # From zero, and not from their conditional given scales that are far off: it costs more than many sweeps.
        sweeper.shared = zero_shared(structure, blocks[0], n)
        for sweep in range(START_SWEEPS):
            sweeper.noise_width = NOISE_WIDTHS[sweep % len(NOISE_WIDTHS)]
            if isinstance(sweeper.rows, RowMoves):
                # Degrees of freedom wait for the noise scales, and then take long steps.
                sweeper.rows.long_every = START_SWEEPS if sweep < FAR_OFF else 1
            theta = sweeper.sweep(theta)
        return theta, sweeper.shared

    groups = groups_of_chains(n_chains, n_genes * blocks[0].data.count.shape[2])
    mine = [groups[i] for i in workers.share(len(groups))]
    progress.start("start", len(mine))
    whole = _zeros(structure, blocks[0], n_genes, n_chains), zero_shared(structure, blocks[0], n_chains)
    for number, (at, found) in enumerate(zip(mine, in_threads(of_chains, mine, blocks[0].slot.device), strict=True)):
        for tables, part in zip(whole, found, strict=True):
            for name, table in tables.items():
                table[..., at] = part[name]
        progress.update(number + 1)
    workers.add_up(*whole[0].values(), *whole[1].values())
    return whole


def _zeros(structure: Structure, block: Block, n_genes: int, n_chains: int) -> Theta:
    """Log-scales of zero for a screen of so many genes, float64."""
    like = block.data.square.double()
    return {
        scale.name: like.new_zeros(
            *(n_genes if plate == "gene" else block.batch.size_of(plate) for plate in scale.plates), n_chains
        )
        for scale in structure.scales
    }


def dispersed(structure: Structure, block: Block, n_genes: int, n_chains: int, random: torch.Generator) -> Theta:
    """Draw log-scales about -1 for a screen of so many genes, and degrees of freedom about 4."""
    freedom = None if structure.freedom is None else structure.freedom.source
    return {
        name: torch.randn(zero.shape, generator=random, dtype=block.data.square.dtype, device=zero.device) * 0.3
        + (FREEDOM_START if name == freedom else -1)
        for name, zero in _zeros(structure, block, n_genes, n_chains).items()
    }
