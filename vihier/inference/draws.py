"""Draws of a fitted guide, gene block by gene block, with everything that follows from them, into a posterior file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch

from vihier.inference.batches import GeneBlocks
from vihier.inference.fitted import Fitted, TrainedBySVI
from vihier.inference.progress import Progress
from vihier.inference.sites import Sites
from vihier.inference.variables import (
    EffectParts,
    Variable,
    labels_of,
    variables_of_derived,
    variables_of_sites,
)
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.posterior.writer import PosteriorWriter
from vihier.screen import Screen

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore

# Draws of one gene x line variable held at a time: 16 MB in float32, some hundred with all that is made of them.
ELEMENTS_AT_ONCE = 4_000_000

Draws = Mapping[str, torch.Tensor]


OneDraw = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def over_draws(function: OneDraw, draws: Draws) -> Draws:
    """Apply a function of one draw to all draws at once: site -> [n, ...] in, name -> [n, ...] out.

    What cannot be vectorised (a program that looks at its values) is applied draw by draw.
    """
    try:
        return torch.vmap(function)(dict(draws))
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
    return draw_by_draw(function, draws)


def draw_by_draw(function: OneDraw, draws: Draws) -> Draws:
    """Apply a function of one draw to each in turn: for programs that sample, which torch's vmap does not take.

    Pyro's distributions fill a tensor in place, and in-place random numbers have no batching rule.
    """
    n_draws = len(next(iter(draws.values())))
    each = [function({name: values[i] for name, values in draws.items()}) for i in range(n_draws)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def computed(program: Program, batch: Batch, names: Sequence[str], draws: Draws) -> dict[str, torch.Tensor]:
    """Return deterministic sites and derived variables of draws: name -> [n, *shape in the batch].

    Parameters
    ----------
    program
        The program.
    batch
        The genes that the draws of local sites are of.
    names
        Deterministic sites wanted.
    draws
        Every latent site: [n, *shape in the batch].
    """
    short = batch.with_one_row()

    def of_one(draw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        if names:
            nodes = pyro.poutine.trace(pyro.condition(program.model, data=draw)).get_trace(short).nodes
            values = {name: nodes[name]["value"] for name in names}
            found = {name: value for name, value in values.items() if value is not None}
        if program.derived is not None:
            found |= program.derived(draw, short)
        return found

    return dict(over_draws(of_one, draws)) if names or program.derived is not None else {}


def log_joint(program: Program, batch: Batch, names: Sequence[str], draws: Draws) -> np.ndarray:
    """Return the log density of some sites at each draw, unscaled, float64 [n].

    Parameters
    ----------
    program
        The program.
    batch
        The genes that the draws of local sites are of; the rows are its own.
    names
        Sites whose log densities are summed, observed ones too.
    draws
        Every latent site: [n, *shape in the batch].
    """
    unscaled = replace(batch, local_scale=1.0, row_scale=1.0)

    def of_one(draw: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        trace = pyro.poutine.trace(pyro.condition(program.model, data=draw)).get_trace(unscaled)
        trace.compute_log_prob(lambda name, site: name in names)
        return {"": torch.stack([trace.nodes[name]["log_prob"].sum(dtype=torch.float64) for name in names]).sum()}

    n_draws = len(next(iter(draws.values())))
    # Some ten arrays of rows x draws live at once.
    at_once = max(1, ELEMENTS_AT_ONCE // (10 * len(batch.gene)))
    parts = [
        over_draws(of_one, {name: values[start : start + at_once] for name, values in draws.items()})[""]
        for start in range(0, n_draws, at_once)
    ]
    return torch.cat(parts).cpu().numpy()


@dataclass(frozen=True)
class DrawPlan:
    """What is drawn and written.

    Attributes
    ----------
    program, sites
        The program and what it samples.
    variables
        Every variable of the file.
    labels
        Labels of their dims.
    effect
        How `effect` is split, where the program has one.
    """

    program: Program
    sites: Sites
    variables: tuple[Variable, ...]
    labels: Mapping[str, Any]
    effect: EffectParts | None

    @classmethod
    def of(cls, program: Program, sites: Sites, screen: Screen | ScreenStore, batch: Batch) -> DrawPlan:
        """Plan the file of a program; `batch` is one that it can be run on."""
        variables = variables_of_sites((*sites.latent, *sites.deterministic))
        variables += variables_of_derived(program, sites, batch)
        effect = EffectParts.of(variables)
        variables += effect.variables if effect is not None else ()
        return cls(program, sites, tuple(variables), labels_of(screen, sites, program.labels), effect)


def genes_at_once(screen: Screen | ScreenStore, n_draws: int) -> int:
    """Return how many genes' draws are held in memory at a time."""
    return max(1, min(screen.n_genes, ELEMENTS_AT_ONCE // (n_draws * max(screen.n_lines, 1))))


def write_draws(
    writer: PosteriorWriter, plan: DrawPlan, fitted: Fitted, blocks: GeneBlocks, n_draws: int, progress: Progress
) -> dict[str, np.ndarray]:
    """Draw from a fitted guide and write every variable.

    Parameters
    ----------
    writer
        An open file, with the labels of the plan.
    plan
        What to write.
    fitted
        The guide.
    blocks
        The screen in blocks of `genes_at_once` genes.
    n_draws
        Draws.
    progress
        Is told of each block.

    Returns
    -------
    dict
        `log_p`, the log joint density of each draw, where the guide does not know it itself.
    """
    for variable in plan.variables:
        writer.add(variable.name, variable.dims)
    deterministic = [site.name for site in plan.sites.deterministic]
    names = {True: plan.sites.names, False: [site.name for site in plan.sites.local]}
    log_p = np.zeros(n_draws)
    progress.start("drawing", len(blocks))
    with torch.no_grad():
        shared = fitted.draw_globals(n_draws)
        for number, batch in enumerate(blocks):
            draws = {**shared, **fitted.draw_locals(batch, shared)}
            if isinstance(fitted, TrainedBySVI):
                log_p += log_joint(plan.program, batch, [*names[number == 0], *plan.sites.observed], draws)
            values = {**draws, **computed(plan.program, batch, deterministic, draws)}
            if plan.effect is not None:
                values |= plan.effect.values(values["effect"])
            for variable in plan.variables:
                if variable.is_local or number == 0:
                    writer.write(variable.name, variable.to_file(values[variable.name]), at=variable.positions(batch))
            progress.update(number + 1)
    return {"log_p": log_p} if isinstance(fitted, TrainedBySVI) else {}


def write_groups(
    writer: PosteriorWriter, screen: Screen | ScreenStore, fitted: Fitted, sample_stats: Mapping[str, np.ndarray]
) -> None:
    """Write how the fit went, statistics of its draws (those given, and the guide's own), and the screen's maps."""
    history = dict(fitted.history)
    length = len(history["step"]) if "step" in history else -1
    dims = {name: ("record",) if len(values) == length else ("window",) for name, values in history.items()}
    writer.write_group("vi_history", history, dims)
    stats = {name: np.asarray(values) for name, values in {**sample_stats, **fitted.sample_stats}.items()}
    if stats:
        writer.write_group("sample_stats", stats, dict.fromkeys(stats, ("chain", "draw")))
    diagnostics = getattr(fitted, "diagnostics", {})
    if diagnostics:
        values = {name: value for name, (_, value) in diagnostics.items()}
        writer.write_group("diagnostics", values, {name: dims for name, (dims, _) in diagnostics.items()})
    maps = {"gene_of_sgrna": screen.index.gene_of_sgrna}
    map_dims: dict[str, tuple[str, ...]] = {"gene_of_sgrna": ("sgrna",)}
    if screen.index.lineage_of_line is not None:
        maps["lineage_of_line"], map_dims["lineage_of_line"] = screen.index.lineage_of_line, ("depmap_id",)
    writer.write_group("index", maps, map_dims)
