"""Rows predicted by a program: from its priors, or from a posterior; gene block by gene block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks
from vihier.inference.device import run_on, seeded
from vihier.inference.draws import Draws, draw_by_draw
from vihier.inference.sites import FILE_DIMS, Site, Sites, read_sites
from vihier.models.batch import Batch
from vihier.models.program import Program, load_program
from vihier.posterior.layout import ordered_dims
from vihier.posterior.reader import Posterior
from vihier.screen import Screen

# Predicted rows held at a time: 64 MB in float64.
ELEMENTS_AT_ONCE = 8_000_000

Model = str | Callable[[Batch], Any] | Program


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
        Log2 fold change, float32, dims (chain, draw, row); coordinates `sgrna`, `hugo_symbol`, `depmap_id` of rows,
        which are in the order of the screen.

    Raises
    ------
    VihierError
        If the program or a prior is refused.
    """
    program = load_program(model, priors)
    blocks, sites = _prepared(program, screen, draws)
    shared: Draws = {}

    def of_block(batch: Batch) -> Draws:
        nonlocal shared
        if not shared:
            names = [site.name for site in sites.shared]
            shared = _sampled(program, batch, {}, names, draws, seed) if names else {}
        return shared

    return _stacked(screen, _predicted(program, sites, blocks, of_block, draws, seed), draws)


def posterior_predictive(
    posterior: Posterior,
    screen: Screen,
    *,
    draws: int | None = None,
    seed: int = 0,
    model: Model | None = None,
) -> xr.DataArray:
    """Draw replicate rows of a screen from a posterior.

    Parameters
    ----------
    posterior
        Of a fit to this screen, or to one that has its sgRNAs, genes and lines.
    screen
        Says which rows; its `lfc` is not looked at.
    draws
        How many of the posterior's draws to use, the first ones; None is all.
    seed
        Of the noise of rows.
    model
        The program, for a fit of one's own; the posterior's model by default.

    Returns
    -------
    DataArray
        As from `prior_predictive`.

    Raises
    ------
    VihierError
        If a label of the screen is not in the posterior, or the posterior lacks a site of the model.
    """
    program = load_program(posterior.model if model is None else model, posterior.priors)
    n_draws = posterior.n_draws * posterior.n_chains
    wanted = n_draws if draws is None else draws
    if not 1 <= wanted <= n_draws:
        raise VihierError(f"draws {wanted}: the posterior has {n_draws}; give 1 to {n_draws}")
    blocks, sites = _prepared(program, screen, wanted)

    def of_block(batch: Batch) -> Draws:
        return {site.name: _read(posterior, site, screen, batch)[:wanted] for site in sites.latent}

    return _stacked(screen, _predicted(program, sites, blocks, of_block, wanted, seed), wanted)


def _prepared(program: Program, screen: Screen, draws: int) -> tuple[GeneBlocks, Sites]:
    if draws < 1:
        raise VihierError(f"draws {draws}: give 1 or more")
    rows_of_gene = int(np.diff(screen.gene_starts).max())
    blocks = GeneBlocks(screen, max(1, ELEMENTS_AT_ONCE // (draws * rows_of_gene)))
    with run_on(torch.device("cpu"), torch.float64, validate=True):
        sites = read_sites(program.model, blocks[0])
    if len(sites.observed) != 1:
        raise VihierError(f"the program observes {', '.join(sites.observed)}: one observed site is wanted")
    return blocks, sites


def _predicted(
    program: Program,
    sites: Sites,
    blocks: GeneBlocks,
    known: Callable[[Batch], Draws],
    draws: int,
    seed: int,
) -> Iterator[np.ndarray]:
    """Yield the rows of each block, [draws, rows]."""
    for batch in blocks:
        yield _sampled(program, batch, known(batch), sites.observed, draws, seed)[sites.observed[0]].numpy()


def _sampled(program: Program, batch: Batch, known: Draws, names: Sequence[str], draws: int, seed: int) -> Draws:
    """Run a program forward, some sites given: the sites named, [draws, *shape]."""
    empty = replace(batch, lfc=None)

    def once(draw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        draw.pop("")
        nodes = pyro.poutine.trace(pyro.condition(program.model, data=draw)).get_trace(empty).nodes
        values = {name: nodes[name]["value"] for name in names}
        return {name: value for name, value in values.items() if value is not None}

    with (
        run_on(torch.device("cpu"), torch.float64),
        seeded(torch.device("cpu"), seed, names[0], int(batch.gene_idx[0])),
        torch.no_grad(),
    ):
        return draw_by_draw(once, {**known, "": torch.arange(draws)})


def _read(posterior: Posterior, site: Site, screen: Screen, batch: Batch) -> torch.Tensor:
    dims = [dim for dim in site.axis_dims() if dim is not None]
    if posterior.variables.get(site.name) != tuple(ordered_dims(dims)):
        raise VihierError(f"{posterior.path}: has no {site.name!r} over {', '.join(dims) or 'no dims'}; wrong model?")
    index = screen.index
    labels = {"sgrna": index.sgrnas, "hugo_symbol": index.genes, "depmap_id": index.lines, "lineage": index.lineages}
    wanted: dict[str, list[str]] = {}
    for dim in dims:
        of_dim = labels.get(dim)
        if of_dim is None:
            continue
        local = site.local_plate is not None and FILE_DIMS[site.local_plate] == dim
        wanted[dim] = of_dim[site.index_in(batch).numpy()].tolist() if local else of_dim.tolist()
    found = posterior.draws(site.name, **wanted).stack(sample=("chain", "draw")).transpose("sample", *dims)
    shape = list(site.shape)
    if site.local_plate is not None:
        shape[site.local_axis] = len(site.index_in(batch))
    return torch.as_tensor(found.to_numpy().reshape(-1, *shape), dtype=torch.float64)


def _stacked(screen: Screen, blocks: Iterator[np.ndarray], draws: int) -> xr.DataArray:
    values = np.empty((1, draws, screen.n_rows), dtype=np.float32)
    start = 0
    for block in blocks:
        values[0, :, start : start + block.shape[1]] = block
        start += block.shape[1]
    index = screen.index
    coords = {
        "chain": [0],
        "draw": np.arange(draws),
        "sgrna": ("row", index.sgrnas[screen.sgrna]),
        "hugo_symbol": ("row", index.genes[screen.gene]),
        "depmap_id": ("row", index.lines[screen.line]),
    }
    return xr.DataArray(values, dims=("chain", "draw", "row"), coords=coords, name="lfc")
