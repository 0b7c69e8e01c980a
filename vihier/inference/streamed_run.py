"""Fit a screen too large for memory, or that comes from a store, and write its posterior."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vihier.errors import VihierError
from vihier.guides.block import Theta
from vihier.guides.cell_file import CellFile
from vihier.guides.streamed_draws import StreamedFit
from vihier.guides.streamed_fit import fit_streamed
from vihier.guides.structure import Structure, check_structure, read_structure, refusal
from vihier.inference.batches import GeneBlocks, genes_in_block
from vihier.inference.device import run_on
from vihier.inference.draws import DrawPlan, genes_at_once, write_draws, write_groups
from vihier.inference.progress import Progress
from vihier.inference.sites import Sites
from vihier.inference.streamed_write import Recipe, bytes_of_pairs, write_posterior
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.posterior.layout import REGENERATION
from vihier.posterior.writer import PosteriorWriter
from vihier.screen import Screen

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore

BLOCK_PAIRS = 64_000
GB = 1e9


def blocks_of(
    screen: Screen | ScreenStore, genes_per_block: int, device: torch.device, dtype: torch.dtype
) -> GeneBlocks:
    """Cut a screen into gene blocks; those of a store are read one ahead."""
    if isinstance(screen, Screen):
        return GeneBlocks(screen, genes_per_block, device, dtype)
    from vihier.store.blocks import StoreBlocks

    return StoreBlocks(screen, genes_per_block, device, dtype)


def genes_per_block(screen: Screen | ScreenStore, asked: int | None) -> int:
    """Return how many genes are worked on together."""
    return min(screen.n_genes, asked or max(1, BLOCK_PAIRS // screen.n_lines))


def write_streamed(
    path: Path,
    program: Program,
    screen: Screen | ScreenStore,
    sites: Sites,
    *,
    draws: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int | None,
    max_steps: int | None,
    init: Theta | None,
    draws_disk_gb: float,
    attrs: Mapping[str, Any],
    progress: Progress,
) -> StreamedFit:
    """Fit, and write the file.

    Parameters
    ----------
    attrs : mapping
        Root attributes; the reason for convergence is added.
    draws_disk_gb : float
        Draws of variables over genes and lines are stored where they take no more, else made again when asked for.

    Raises
    ------
    VihierError
        A program outside the family of the guide, or one whose draws would have to be stored and do not fit.
    """
    probe = GeneBlocks(screen, 2, "cpu", torch.float64)[0]
    with run_on(torch.device("cpu"), torch.float64):
        structure = read_structure(program.model, probe)
        if not structure.is_plain:
            raise refusal(structure.observed, "a screen this large needs Normal rows of one noise scale")
        plan = DrawPlan.of(program, sites, screen, probe)
    if not program.known:  # it may treat other genes than the two that were looked at in another way
        for batch in blocks_of(screen, genes_in_block(screen), torch.device("cpu"), torch.float64):
            check_structure(structure, program.model, batch)
    pairs_stored = bytes_of_pairs(plan, screen.n_genes, screen.n_lines, draws) <= draws_disk_gb * GB
    recipe = _recipe(plan, structure, seed, probe, pairs_stored)
    batches = blocks_of(screen, genes_per_block(screen, batch_size), device, torch.float64)
    progress.start("reading", len(batches))
    cells = CellFile(structure, batches, dtype, path.parent, progress.update)
    try:
        fitted = fit_streamed(
            structure, cells, draws=draws, seed=seed, max_steps=max_steps, init=init, progress=progress
        )
        about = {**attrs, "reason": fitted.reason}
        if recipe is not None and not pairs_stored:
            about[REGENERATION] = recipe.regeneration.to_json()
        with PosteriorWriter(path, labels=plan.labels, n_draws=draws, attrs=about) as writer:
            if recipe is not None:
                write_posterior(writer, plan, recipe, fitted, cells, progress, path.parent, pairs_stored=pairs_stored)
            else:  # a program that is more than sums
                with run_on(device, dtype):
                    blocks = blocks_of(screen, genes_at_once(screen, draws), device, dtype)
                    write_draws(writer, plan, fitted, blocks, draws, progress)
            write_groups(writer, screen, fitted, {})
            writer.finish(converged=fitted.converged, not_identified=dict(program.not_identified))
    finally:
        cells.close()
    return fitted


def _recipe(plan: DrawPlan, structure: Structure, seed: int, probe: Batch, pairs_stored: bool) -> Recipe | None:
    """Return how variables follow from each other; None where they do not, and all their draws can be stored."""
    try:
        with run_on(torch.device("cpu"), torch.float64):
            return Recipe.of(plan, structure, seed, probe)
    except VihierError:
        if pairs_stored:
            return None
        raise
