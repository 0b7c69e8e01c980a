"""A fit beside its screen: its program again, and its draws of the scales as the guide has them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vihier.errors import VihierError
from vihier.guides.block import Block, Theta, make_block, take_genes
from vihier.guides.structure import Structure, read_structure
from vihier.guides.values import centre, locations_of
from vihier.inference.batches import GeneBlocks, genes_in_block
from vihier.inference.config import fingerprint
from vihier.inference.device import run_on
from vihier.inference.predict import program_of
from vihier.inference.screen_of_fit import fitted_part
from vihier.inference.sites import Sites, read_sites
from vihier.models.batch import Batch
from vihier.models.program import Program, model_names
from vihier.posterior.reader import Posterior
from vihier.screen import Screen, read_screen
from vihier.store.store import is_hdf5, open_store

if TYPE_CHECKING:
    import pandas as pd

CPU = torch.device("cpu")
# Scales that float32 rounds to zero.
SMALLEST_SCALE = 1e-30


@dataclass(frozen=True)
class FitToRefine:
    """A fit with its screen and program, both checked to be those that it was made of.

    Attributes
    ----------
    post, screen, program, sites, structure
        `structure` is the program's, its locations integrated out in closed form.
    """

    post: Posterior
    screen: Screen
    program: Program
    sites: Sites
    structure: Structure

    @classmethod
    def of(cls, post: Posterior, screen: Screen, model: Callable[[Batch], Any] | None = None) -> FitToRefine:
        """Match a fit with its screen.

        Raises
        ------
        VihierError
            Another screen, another program, or one whose rows have covariates.
        """
        program = _program_of(post, model)
        with run_on(CPU, torch.float64):
            screen, probe = _screen_of(post, screen, program)
            structure = read_structure(program.model, probe)
            if structure.design is not None:
                raise VihierError(
                    f"{post.path}: model {program.name!r} has covariates, or tables by screen or batch, in the mean of "
                    "rows, which refine does not take; its draws come from exact sweeps, see 'vihier check'"
                )
            if structure.counts is not None:
                raise VihierError(
                    f"{post.path}: its rows are read counts, which refine does not take; its draws come from exact "
                    "sweeps, see 'vihier check'"
                )
            # A few genes, and not all of them, as in a fit: mistakes in plates do not show on a whole screen.
            sites = read_sites(program.model, probe)
        return cls(post, screen, program, sites, structure)

    def log_scales(self, genes: np.ndarray) -> Theta:
        """Log-scales of the fit's draws, those of genes for some genes: site -> [*plates, n]."""
        labels = self.screen.index.genes[genes]
        found = {}
        for scale in self.structure.scales:
            of_genes = {"hugo_symbol": labels.tolist()} if scale.plates == ("gene",) else {}
            draws = self._draws(scale.name, of_genes).clamp_min(SMALLEST_SCALE).log()
            found[scale.name] = draws
        return found

    def shared_centre(self) -> Theta:
        """Means of the deviations of the locations shared by genes, as one draw: site -> [*plates, 1]."""
        return {name: value.mean(-1, keepdim=True) for name, value in self.shared_deviations().items()}

    def shared_deviations(self) -> Theta:
        """Deviations of the locations shared by genes in the fit's draws: site -> [*plates, n]."""
        shared = locations_of(self.structure, True)
        values = {location.name: self._draws(location.name, {}) for location in shared}
        block = make_block(self.structure, GeneBlocks(self.screen, 1)[0])
        deviations = {}
        for location in shared:
            value = values[location.name]
            above = centre(self.structure, [location], {location.name: torch.zeros_like(value)}, values, block)
            deviations[location.name] = value - above[location.name]
        return deviations

    def _draws(self, name: str, labels: Mapping[str, list[str]]) -> Tensor:
        values = self.post.draws(name, **labels)
        flat = values.to_numpy().reshape(-1, *values.shape[2:]).astype(np.float64)
        return torch.as_tensor(flat).movedim(0, -1)

    def other_blocks(self, genes: np.ndarray) -> Iterator[Block]:
        """Yield all genes but some, in blocks."""
        for batch in GeneBlocks(self.screen, genes_in_block(self.screen)):
            left = ~np.isin(batch.gene_idx.numpy(), genes)
            if left.any():
                yield take_genes(make_block(self.structure, batch), torch.as_tensor(np.flatnonzero(left)))


def screen_of(post: Posterior, screen: Screen | str | os.PathLike[str] | pd.DataFrame | None) -> Screen:
    """Return the screen given, or read its table or store, or those that the fit was made of.

    Raises
    ------
    VihierError
        None is given, and the fit does not say, or its table is not there.
    """
    if isinstance(screen, Screen):
        return screen
    if screen is None:
        source = post.attrs.get("screen_source")
        if not source or source == "DataFrame":
            raise VihierError(f"{post.path}: does not say which table it was fitted to; give --screen (screen=...)")
        if not Path(source).is_file():
            raise VihierError(f"{source}: the table that {post.path} was fitted to is not there; give it with --screen")
        return screen_of(post, Path(source))
    if isinstance(screen, str | os.PathLike) and is_hdf5(Path(screen)):
        with open_store(screen) as store:
            return store.to_screen()
    return read_screen(screen)


def _program_of(post: Posterior, model: Callable[[Batch], Any] | None) -> Program:
    code = tomllib.loads(post.attrs["config"]).get("model_code")
    if model is None and (code is not None or post.model not in model_names()):
        raise VihierError(
            f"{post.path}: is a fit of your own program {post.model!r}; give it: vihier.refine(..., model=...)"
        )
    program = program_of(post, model)
    if model is not None and code not in (None, fingerprint(program.model), fingerprint(model)):
        raise VihierError(f"{post.path}: is a fit of another program than {program.name!r}; give the one it is of")
    return program


def _screen_of(post: Posterior, screen: Screen, program: Program) -> tuple[Screen, Batch]:
    """Return the screen that a fit is of, which may be a part of the one given, and a few of its genes."""
    part = fitted_part(post, program, screen)
    return part, GeneBlocks(part, max(1, min(2, part.n_genes // 2)), CPU, torch.float64)[0]
