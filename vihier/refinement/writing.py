"""NUTS draws into the posterior file, with how the chains fared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vihier.inference.draws import DrawPlan, computed
from vihier.inference.progress import Progress
from vihier.inference.variables import Variable
from vihier.models.batch import Batch
from vihier.posterior.adding import GroupAdder
from vihier.refinement.chain import ChainDraws
from vihier.refinement.fit_to_refine import FitToRefine
from vihier.refinement.location_draws import DrawnLocations, LocationDraws, subset_block
from vihier.refinement.verdict import Limits, Verdict, judge, tree_depth

_STATS = ("energy", "n_steps", "lp", "diverging")
NUTS, NUTS_STATS, NUTS_DIAGNOSTICS = "nuts", "nuts_sample_stats", "nuts_diagnostics"
# Attribute of the group, where what genes share is not sampled but that of the fit.
GIVEN_SHARED = "given_shared"


def write_refined(
    target: Path,
    fit: FitToRefine,
    genes: np.ndarray,
    locations: LocationDraws | DrawnLocations,
    chains: Sequence[ChainDraws],
    about: Mapping[str, Any],
    progress: Progress,
) -> Verdict:
    """Draw the locations, judge the chains, and write a copy of the fit with both.

    Parameters
    ----------
    target
        The file to be.
    genes
        Codes of the genes that are written, ascending.
    locations
        Draws of those genes.
    about
        Attributes of the group.
    """
    index = fit.screen.index
    sgrnas = np.flatnonzero(np.isin(index.gene_of_sgrna, genes))
    probe = subset_block(fit.structure, fit.screen, genes[:1]).batch
    plan = DrawPlan.of(fit.program, fit.sites, fit.screen, probe)
    labels = {**plan.labels, "hugo_symbol": index.genes[genes], "sgrna": index.sgrnas[sgrnas]}
    shape = (len(chains), len(chains[0].lp))
    with GroupAdder(
        target,
        fit.post.path,
        NUTS,
        (NUTS, NUTS_STATS, NUTS_DIAGNOSTICS),
        labels=labels,
        n_draws=shape[1],
        n_chains=shape[0],
    ) as writer:
        for variable in plan.variables:
            writer.add(variable.name, variable.dims)
        pieces: dict[str, list[Limits]] = {variable.name: [] for variable in plan.variables}
        order: dict[str, list[np.ndarray]] = {variable.name: [] for variable in plan.variables}
        progress.start("locations", len(genes))
        done = 0
        for variable, batch, draws in _values(plan, locations):
            draws = draws.reshape(*shape, *draws.shape[1:])
            at = _places(variable, batch, genes, sgrnas)
            writer.write(variable.name, draws, at=at)
            pieces[variable.name].append(Limits.of(draws))
            order[variable.name] += [] if at is None else [at]
            if variable is plan.variables[-1]:
                done += len(batch.gene_idx)
                progress.update(done)
        limits = {name: _joined(pieces[name], order[name]) for name in pieces}
        sampled = [scale.name for scale in fit.structure.scales]
        verdict = judge(chains, sampled, limits, list(fit.post.not_identified), shape[1])
        _write_stats(writer, chains)
        dims = {variable.name: variable.dims for variable in plan.variables}
        figures = {name: values for name, found in limits.items() for name, values in found.named(name).items()}
        of_figures = {name: dims[variable] for variable, found in limits.items() for name in found.named(variable)}
        writer.write_group(NUTS_DIAGNOSTICS, figures, of_figures, attrs=verdict.figures)
        writer.finish_group(
            attrs={**about, "passed": verdict.passed, "failures": list(verdict.failures), "figures": verdict.figures}
        )
    return verdict


def _values(plan: DrawPlan, locations: LocationDraws | DrawnLocations) -> Iterator[tuple[Variable, Batch, np.ndarray]]:
    """Yield draws [N, ...] of every variable, some genes at a time; of those shared by genes, once."""
    deterministic = [site.name for site in plan.sites.deterministic]
    for number, (batch, draws) in enumerate(locations.blocks()):
        with torch.no_grad():
            values = {**draws, **computed(plan.program, batch, deterministic, draws)}
        if plan.effect is not None:
            values |= plan.effect.values(values["effect"])
        for variable in plan.variables:
            if variable.is_local or number == 0:
                yield variable, batch, variable.to_file(values[variable.name])


def _places(variable: Variable, batch: Batch, genes: np.ndarray, sgrnas: np.ndarray) -> np.ndarray | None:
    """Places of a batch's part of a variable among the genes, or sgRNAs, that are written."""
    positions = variable.positions(batch)
    return None if positions is None else np.searchsorted(sgrnas if "sgrna" in variable.axes else genes, positions)


def _joined(pieces: Sequence[Limits], places: Sequence[np.ndarray]) -> Limits:
    """Put limits of parts of a variable together, in the order of its first dim."""
    if not places:
        return pieces[0]
    order = np.argsort(np.concatenate(places))
    kinds = {kind: np.concatenate([getattr(piece, kind) for piece in pieces])[order] for kind in vars(pieces[0])}
    return Limits(**kinds)


def _write_stats(writer: GroupAdder, chains: Sequence[ChainDraws]) -> None:
    stats = {name: np.stack([getattr(chain, name) for chain in chains]) for name in _STATS}
    stats["tree_depth"] = tree_depth(stats["n_steps"])
    stats["step_size"] = np.array([chain.step_size for chain in chains])
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(stats, ("chain", "draw"))
    writer.write_group(NUTS_STATS, stats, {**dims, "step_size": ("chain",)})
