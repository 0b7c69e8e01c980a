"""Where the chains over a whole screen start: chains that were swept on some of its genes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from vihier.guides.block import SHARED, Block, Theta
from vihier.guides.cell_file import CellFile
from vihier.guides.interweave import Sweeper
from vihier.guides.streamed_chains import NOISE_WIDTHS, ChainState, Random
from vihier.guides.structure import Structure

START_GENES = 160
START_SWEEPS = 20


def start_on_some_genes(
    structure: Structure,
    cells: CellFile,
    n_chains: int,
    random: Random,
    done: Callable[[int], None] = lambda _: None,
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
    theta = dispersed(structure, blocks[0], n_genes, n_chains, keyed)
    sweeper = Sweeper(structure, blocks, lambda *keys: random("start", *keys))
    # From zero, and not from their conditional given scales that are far off: it costs more than many sweeps.
    sizes = {"line": cells.n_lines, "lineage": blocks[0].data.lineage.shape[1]}
    like = blocks[0].data.square.double()
    sweeper.shared = {
        x.name: like.new_zeros(*(sizes[plate] for plate in x.plates), n_chains)
        for x in structure.locations
        if x.plates in SHARED
    }
    for sweep in range(START_SWEEPS):
        sweeper.noise_width = NOISE_WIDTHS[sweep % len(NOISE_WIDTHS)]
        theta = sweeper.sweep(theta)
        done(sweep + 1)
    twin = torch.randint(n_genes, (cells.n_genes,), generator=keyed, device=keyed.device)
    places = torch.cat([cells.skeleton(number).batch.gene_idx for number in chosen])
    twin[places] = torch.arange(n_genes, device=twin.device)
    own = {scale.name for scale in structure.scales if scale.plates == ("gene",)}
    dtype = blocks[0].data.square.dtype
    theta = {name: (value[twin] if name in own else value).to(dtype) for name, value in theta.items()}
    for name, value in (init or {}).items():
        if name in theta:
            known = value[..., None].to(theta[name])
            theta[name] = torch.where(known.isfinite(), known, theta[name])
    return ChainState(theta, {name: value.to(dtype) for name, value in sweeper.shared.items()})


def dispersed(structure: Structure, block: Block, n_genes: int, n_chains: int, random: torch.Generator) -> Theta:
    """Draw log-scales about -1 for a screen of so many genes."""
    like, lineage = block.data.square, block.data.lineage
    sizes = {"gene": n_genes, "line": lineage.shape[0], "lineage": lineage.shape[1]}
    return {
        scale.name: torch.randn(
            *(sizes[plate] for plate in scale.plates), n_chains, generator=random, dtype=like.dtype, device=like.device
        )
        * 0.3
        - 1
        for scale in structure.scales
    }
