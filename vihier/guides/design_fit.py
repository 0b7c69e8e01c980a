"""Fit the structured guide to a program whose rows have covariates, or tables by screen or batch, by sweeps alone.

Locations are drawn from their exact conditionals, as everywhere, and scales by the sweeps of
`vihier.guides.design_sweeps`; chains settle, and many that start from what they settled on give the draws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vihier.errors import FitError
from vihier.guides.block import Theta, make_block, split_by_sgrnas
from vihier.guides.design_block import SharedLayout, design_block
from vihier.guides.design_sweeps import DesignSweeper
from vihier.guides.mixed_model import Structure
from vihier.guides.swept_fit import PART_CELLS, SETTLE, SweptFit, SweptFitter, check_held
from vihier.inference.batches import full_batch, genes_batch
from vihier.inference.progress import Progress
from vihier.inference.threads import one_thread
from vihier.screen import Screen


def fit_design(
    structure: Structure,
    screen: Screen,
    *,
    draws: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    max_sweeps: int | None,
    init: Theta | None,
    progress: Progress,
) -> SweptFit:
    """Fit and draw.

    Parameters
    ----------
    structure : Structure
        With a row design.
    max_sweeps, init
        As for `vihier.guides.swept_fit.fit_swept`.

    Raises
    ------
    VihierError
        If the draws of a gene x line table would not fit in memory.
    FitError
        If the chains' density is not a number, or a covariate is so extreme that arithmetic fails.
    """
    check_held(
        screen.n_genes * screen.n_lines, draws, "model", "for rows with covariates, or tables by screen or batch"
    )
    with one_thread():
        fitter = design_fitter(structure, screen, device, dtype, seed, progress)
        try:
            return fitter.fit(draws, max_sweeps or SETTLE, init)
        except torch.linalg.LinAlgError as error:
            raise FitError(
                "a precision matrix is not positive definite; look for extreme values of lfc or a covariate "
                "(vihier validate), bound it (--covariate 'NAME=zscore(0.1) | clip(-3, 3)'), or give tighter priors "
                "with --prior"
            ) from error


def design_fitter(
    structure: Structure, screen: Screen, device: torch.device, dtype: torch.dtype, seed: int, progress: Progress
) -> SweptFitter:
    """Sum a screen's rows into blocks, and return what sweeps them."""
    whole = full_batch(screen, device, torch.float64)
    layout = SharedLayout.of(structure, whole)
    groups = [part.batch.gene_idx for part in split_by_sgrnas(make_block(structure, whole), PART_CELLS)]
    designs = [
        design_block(structure, genes_batch(screen, genes.cpu().numpy(), device, torch.float64), layout)
        for genes in groups
    ]
    if all(design.cells is not None and design.cells.by_line for design in designs):
        designs = [design.to(torch.float32) for design in designs]

    def make_sweeper(random: Callable[..., torch.Generator]) -> DesignSweeper:
        return DesignSweeper(structure, designs, layout, random)

    blocks = [design.block for design in designs]
    return SweptFitter(structure, blocks, make_sweeper, screen, dtype, seed, progress)
