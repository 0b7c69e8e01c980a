"""Rows predicted by a program: from its priors, or from a posterior, also of elements that the posterior never saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import torch
import xarray as xr

from vihier.atomic import renamed_when_whole
from vihier.inference.device import seeded
from vihier.inference.predictor import CPU, Predictor
from vihier.models.batch import Batch
from vihier.models.likelihood import Likelihood
from vihier.models.program import Program, load_program
from vihier.posterior import layout
from vihier.posterior.reader import Posterior
from vihier.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

Model = str | Callable[[Batch], Any] | Program
Group = Literal["posterior_predictive", "prior_predictive"]


def prior_predictive(
    screen: Screen,
    model: Model = "additive",
    *,
    draws: int = 500,
    seed: int = 0,
    priors: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Draw rows of a screen's shape from a program's priors.

    Parameters
    ----------
    screen
        Says which sgRNAs, lines and replicates there are; its `lfc` is not looked at.
    model
        Name of a model, or a Pyro program.
    draws
        Number of draws.
    seed
        The same seed gives the same rows.
    priors
        Site -> prior in the place of the program's own.

    Returns
    -------
    DataArray
        Log2 fold change, or counts of reads, float32, dims (chain, draw, row); coordinates `sgrna`, `hugo_symbol`,
        `depmap_id` of rows, which are in the order of the screen.

    Raises
    ------
    VihierError
        If the program or a prior is refused.
    """
    return _stacked(Predictor.of(None, screen, load_program(model, priors), draws=draws, seed=seed))


def posterior_predictive(
    posterior: Posterior,
    screen: Screen,
    *,
    draws: int | None = None,
    seed: int = 0,
    model: Model | None = None,
) -> xr.DataArray:
    """Draw rows of a screen from a posterior.

    What the posterior does not know of the screen (a new sgRNA, gene, line, lineage, replicate) is drawn from its prior
    given the posterior's draws of what it belongs to.

    Parameters
    ----------
    posterior
        A fit.
    screen
        Says which rows; its `lfc` is not looked at. A part of the fit's screen, or another one.
    draws
        How many of the posterior's draws to use, evenly spaced; None is all.
    seed
        Of the noise of rows and of what is new.
    model
        The program, for a fit of one's own; the posterior's model by default.

    Returns
    -------
    DataArray
        As from `prior_predictive`.

    Raises
    ------
    VihierError
        If the posterior lacks a site of the model, or an sgRNA is of another gene, a line of another lineage, there.
    """
    return _stacked(Predictor.of(posterior, screen, program_of(posterior, model), draws=draws, seed=seed))


def program_of(posterior: Posterior, model: Model | None = None) -> Program:
    """Return the program that a posterior is of: `model` where it is given, which a fit of one's own needs."""
    if model is not None:
        return load_program(model, posterior.priors, covariates=posterior.config.get("covariates"))
    settings = posterior.config
    return load_program(posterior.model, posterior.priors, Likelihood.of_settings(settings), settings.get("covariates"))


def predicted_rows(predictor: Predictor) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows drawn, block by block: where they are in the screen, and their draws, float32 [N, rows]."""
    for block in predictor.blocks():
        values = np.empty((predictor.n_draws, len(block.batch.gene)), dtype=np.float32)
        for at, run in block.runs():
            values[at] = draw_rows(run.rows, predictor.seed, int(block.batch.gene_idx[0]), at.start)[0]
        yield block.rows, values


def draw_rows(rows: torch.distributions.Distribution, seed: int, gene: int, start: int, repeats: int = 1) -> np.ndarray:
    """Draw rows from their distributions, [repeats, N, rows], from random numbers keyed to a block and first draw."""
    with seeded(CPU, seed, "noise", gene, start):
        return rows.sample((repeats,)).numpy()


def write_predictive(predictor: Predictor, path: Path, group: Group) -> int:
    """Write drawn rows to a group of a new HDF5 file, (chain, draw, row), block by block; return the number of rows.

    xarray and ArviZ open it beside the posterior file.

    Raises
    ------
    VihierError
        A path that cannot be written.
    """
    index, screen = predictor.screen.index, predictor.screen
    labels = {"sgrna": index.sgrnas[screen.sgrna], "hugo_symbol": index.genes[screen.gene]}
    labels |= {"depmap_id": index.lines[screen.line], "replicate": index.replicates[screen.replicate]}
    sizes = {"chain": 1, "draw": predictor.n_draws, "row": screen.n_rows}
    with renamed_when_whole(path) as partial, h5py.File(partial, "w", libver=layout.LIBVER) as file:
        node = file.create_group(group)
        for dim, size in sizes.items():
            layout.make_scale(node, dim, np.arange(size))
        for name, values in labels.items():
            layout.make_variable(node, name, ("row",), layout.LABEL_TYPE)[...] = values
        variable = layout.make_variable(node, _name_of(predictor), tuple(sizes), np.float32)
        variable.attrs["coordinates"] = " ".join(labels)
        for rows, values in predicted_rows(predictor):
            variable[0, :, rows] = values
    return screen.n_rows


def _stacked(predictor: Predictor) -> xr.DataArray:
    screen, index = predictor.screen, predictor.screen.index
    values = np.empty((1, predictor.n_draws, screen.n_rows), dtype=np.float32)
    for rows, drawn in predicted_rows(predictor):
        values[0, :, rows] = drawn
    coords: dict[str, Sequence[int] | np.ndarray | tuple[str, np.ndarray]] = {
        "chain": [0],
        "draw": np.arange(predictor.n_draws),
        "sgrna": ("row", index.sgrnas[screen.sgrna]),
        "hugo_symbol": ("row", index.genes[screen.gene]),
        "depmap_id": ("row", index.lines[screen.line]),
    }
    return xr.DataArray(values, dims=("chain", "draw", "row"), coords=coords, name=_name_of(predictor))


def _name_of(predictor: Predictor) -> str:
    return "counts" if predictor.program.likelihood.is_of_counts else "lfc"
