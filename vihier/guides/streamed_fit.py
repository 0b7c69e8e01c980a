"""Fit the structured guide's model to a screen of any size, streamed block by block from a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vihier.errors import FitError
from vihier.guides.block import Theta
from vihier.guides.cell_file import CellFile
from vihier.guides.deviations import shared_columns
from vihier.guides.gene_chains import Said
from vihier.guides.kept_draws import KeptFit, effective_sizes, shared_as_drawn
from vihier.guides.own_scales import OwnScales
from vihier.guides.streamed_chains import ChainState, Random, StreamedChains
from vihier.guides.streamed_draws import StreamedFit
from vihier.guides.streamed_globals import Kept, draw_globals
from vihier.guides.streamed_rows import PassPlan, StreamedRows
from vihier.guides.streamed_start import start_on_some_genes
from vihier.guides.structure import Structure
from vihier.inference.device import generator
from vihier.inference.progress import Progress
from vihier.inference.threads import keep_freed_memory, one_thread

PASSES_IN_ROUND = 2
FEWEST_COMPARED = 4
"""Kept rounds from which chains are compared."""
ROW_CHAINS, FEWEST_ROW_CHAINS = 8, 4
DECIMALS = 4
"""Of R-hat: processors that round differently stop after the same pass."""


@dataclass(frozen=True)
class StreamSettings:
    """How long the chains are.

    A round is two passes over the screen: one draws the shared locations, one the other shared scales. `burn_in` rounds
    are thrown away. The fit ends after `rounds` more, where the chains agree, or with `most_rounds`.
    """

    chains: int = 16
    burn_in: int = 4
    rounds: int = 8
    most_rounds: int = 40
    rhat_limit: float = 1.2

    @staticmethod
    def of_rows(draws: int) -> StreamSettings:
        """Return those for rows that are not Normal with one noise scale: the passes themselves give the draws."""
        chains = min(ROW_CHAINS, max(FEWEST_ROW_CHAINS, draws))
        rounds = max(12, -(-draws // (PASSES_IN_ROUND * chains)))
        # Of thousands of scales the largest R-hat of so few states is that of chance.
        return StreamSettings(chains, burn_in=6, rounds=rounds, most_rounds=max(40, 2 * rounds), rhat_limit=1.4)

    @property
    def states(self) -> int:
        """How many states of the chains the rounds give where each pass gives one."""
        return PASSES_IN_ROUND * self.rounds

    def passes(self, draws: int, most: int) -> PassPlan:
        """Say which passes give so many draws, where there are `most` passes at most."""
        n_slots = -(-draws // self.chains)
        burn_in = min(PASSES_IN_ROUND * self.burn_in, most // 2)
        return PassPlan(self.chains, burn_in, max(1, self.states // n_slots), n_slots)

    def most_passes(self, asked: int | None) -> int:
        """Return how many passes there are at most."""
        most = PASSES_IN_ROUND * (self.burn_in + self.most_rounds)
        return most if asked is None else min(most, asked)


@dataclass
class Running:
    """Everything that a stopped fit needs to go on: the chains, what was kept of them, and sums over kept states.

    `kept_shared` are the shared locations of the last states whose genes' draws wait in a file. `keep` is called before
    all this is written down: it has the disk hold such files. `visiting` are the seconds of the last pass's visits.
    """

    state: ChainState
    said: Said | None = None
    kept_theta: list[Theta] = field(default_factory=list)
    kept_said: list[Said] = field(default_factory=list)
    kept_shared: list[Theta] = field(default_factory=list)
    own_sum: Theta = field(default_factory=dict)
    own_square: Theta = field(default_factory=dict)
    column_sum: Tensor | None = None
    n_own: int = 0
    trace: list[Tensor] = field(default_factory=list)
    rhats: list[float] = field(default_factory=list)
    finished: bool = False
    visiting: float = 0.0
    keep: Callable[[], None] = lambda: None


def fit_streamed(
    structure: Structure,
    cells: CellFile,
    *,
    draws: int,
    seed: int,
    max_steps: int | None,
    init: Theta | None,
    progress: Progress,
    settings: StreamSettings | None = None,
    running: Running | None = None,
    after_pass: Callable[[Running], None] = lambda _: None,
    folder: Path | None = None,
) -> StreamedFit | KeptFit:
    """Sweep chains over the whole screen and draw what genes share.

    Parameters
    ----------
    cells : CellFile
        The screen, or what this worker has of it.
    max_steps : int or None
        Passes over the screen at most; None for the settings' own.
    init : dict or None
        Log-scales to start from, by site.
    running : Running or None
        Where a stopped fit of the same screen goes on; it ends with the same numbers.
    after_pass : callable
        Called after each pass with all that is needed to go on from it.
    folder : Path or None
        Where files wait of rows that are not Normal with one noise scale; those of a stopped fit are there.

    Raises
    ------
    FitError
        If a shared scale is not a number after a pass.
    """
    settings = settings or (StreamSettings() if structure.is_plain else StreamSettings.of_rows(draws))
    keep_freed_memory()

    def random(*keys: int | str) -> torch.Generator:
        return generator(cells.skeleton(0).slot.device, seed, *keys)

    rows = None
    if not structure.is_plain:
        assert folder is not None
        rows = StreamedRows(structure, cells, folder, settings.passes(draws, settings.most_passes(max_steps)), random)

    with one_thread(), torch.no_grad():
        if rows is not None and running is not None:
            rows.saved = running.state.passes
        if running is None:
            state = start_on_some_genes(structure, cells, settings.chains, random, progress, init)
            running = Running(state)
        chains = StreamedChains(structure, cells, random, running.state, running.said, rows)
        if rows is not None:
            running.keep = rows.keep
        sweep_on(chains, running, max_steps, progress, settings, after_pass)
        if rows is not None:
            rows.finish()
            return _finish_rows(chains, rows, running, draws, seed, settings)
        return _finish(structure, cells, running, chains, draws, seed, settings, random)


def sweep_on(
    chains: StreamedChains,
    running: Running,
    max_steps: int | None,
    progress: Progress,
    settings: StreamSettings,
    after_pass: Callable[[Running], None],
) -> None:
    """Go on with chains until they agree, or have made as many passes as they may."""
    most = settings.most_passes(max_steps)
    progress.start("passes", most)
    while running.state.passes < most and not running.finished:
        chains.sweep()
        running.state, running.said, running.visiting = chains.state, chains.said, chains.visiting
        _keep(running, chains, settings)
        passes = running.state.passes
        n_kept = len(running.kept_theta)
        needed = settings.rounds if chains.rows is None else settings.states
        whole_round = passes % PASSES_IN_ROUND == 0
        rhat = math.inf
        if whole_round and n_kept >= FEWEST_COMPARED:
            rhat, _ = agreement(running.kept_theta[-max(needed, n_kept // 2) :])
            running.rhats.append(rhat)
        enough = n_kept >= needed and whole_round
        running.finished = chains.cells.workers.any(enough and rhat < settings.rhat_limit)
        progress.update(passes, {"rhat": running.rhats[-1]} if running.rhats else None)
        after_pass(running)
    if not running.kept_theta:
        _keep(running, chains, settings, always=True)


def _keep(running: Running, chains: StreamedChains, settings: StreamSettings, always: bool = False) -> None:
    """Keep what draws are made from, of passes after the burn-in."""
    state, passes = chains.state, chains.state.passes
    shared = {name: value for name, value in state.theta.items() if name not in chains.own}
    flat = torch.cat([value.reshape(-1, value.shape[-1]) for value in shared.values()]).double()
    if not bool(flat.isfinite().all()):
        raise FitError(
            f"pass {passes}: a shared scale is not a number; look for extreme lfc values (vihier validate), or give "
            "tighter priors with --prior"
        )
    running.trace.append(flat.mean(1))
    if chains.rows is not None:
        _keep_drawn(running, chains)
        return
    if passes <= PASSES_IN_ROUND * settings.burn_in and not always:
        return
    if passes % PASSES_IN_ROUND == 1 or always:
        if chains.said is not None:
            running.kept_said.append(chains.said)
        column = shared_columns(chains.structure, state.shared, chains.block) if chains.shares else None
        if column is not None:
            mean = column.double().mean(1, keepdim=True)
            running.column_sum = mean if running.column_sum is None else running.column_sum + mean
    if passes % PASSES_IN_ROUND == 0 or always:
        running.kept_theta.append(shared)
    for name in chains.own:
        value = state.theta[name].double()
        running.own_sum[name] = running.own_sum.get(name, 0) + value.sum(-1)
        running.own_square[name] = running.own_square.get(name, 0) + value.square().sum(-1)
    running.n_own += next(iter(state.theta.values())).shape[-1]


def _keep_drawn(running: Running, chains: StreamedChains) -> None:
    """Keep what genes shared when a pass drew them, where the draws of a pass are kept."""
    seen, rows = chains.seen, chains.rows
    assert rows is not None
    if seen.passes < rows.plan.burn_in:
        return
    shared = {name: value for name, value in seen.theta.items() if name not in chains.own}
    random = chains.random("pass", seen.passes, "split")
    running.kept_theta.append(shared)
    if rows.plan.slot(seen.passes) is None:
        return
    running.kept_shared.append(shared_as_drawn(chains.structure, shared, seen.shared, chains.block, random))
    running.kept_shared = running.kept_shared[-rows.plan.n_slots :]


def agreement(kept: Sequence[Theta]) -> tuple[float, float]:
    """Return the largest split R-hat of the shared log-scales, and how far means moved between the halves, in sds.

    Half chains are compared (Gelman et al. 2013, Bayesian Data Analysis, section 11.4).
    """
    values = torch.stack([torch.cat([v.reshape(-1, v.shape[-1]) for v in theta.values()]) for theta in kept]).double()
    half = len(values) // 2
    halves = torch.cat([values[-2 * half : -half], values[-half:]], -1)  # [draws, E, 2 N]
    n = halves.shape[0]
    within = halves.var(0).mean(-1).clamp_min(1e-30)
    between = n * halves.mean(0).var(-1)
    rhat = (((n - 1) / n * within + between / n) / within).sqrt()
    n_chains = values.shape[-1]
    first, last = halves[..., :n_chains].mean((0, 2)), halves[..., n_chains:].mean((0, 2))
    sd = values.std((0, 2)).clamp_min(1e-12)
    return round(float(rhat.max()), DECIMALS), round(float(((last - first).abs() / sd).max()), DECIMALS)


def _finish(
    structure: Structure,
    cells: CellFile,
    running: Running,
    chains: StreamedChains,
    draws: int,
    seed: int,
    settings: StreamSettings,
    random: Random,
) -> StreamedFit:
    kept = Kept(tuple(running.kept_theta), tuple(running.kept_said))
    theta, shared = draw_globals(structure, chains.block, kept, draws, random, cells.workers)
    of_leaf = {location.scale for location in structure.table(("gene", "line"))}
    own_sites = [scale for scale in structure.scales if scale.plates == ("gene",)]
    sites = tuple(sorted(own_sites, key=lambda scale: scale.name not in of_leaf))
    dtype = chains.cells.dtype
    n = running.n_own
    means = [running.own_sum[scale.name] / n for scale in sites]
    sds = [
        (running.own_square[scale.name] / n - mean.square()).clamp_min(1e-6).sqrt()
        for scale, mean in zip(sites, means, strict=True)
    ]
    empty = torch.zeros(cells.n_genes, 0, dtype=dtype, device=chains.block.slot.device)
    column = shared_columns(structure, shared, chains.block) if shared else None
    own = OwnScales(
        sites,
        torch.stack(means, -1).to(dtype) if means else empty,
        torch.stack(sds, -1).to(dtype) if sds else empty,
        {name: value.mean(-1, keepdim=True).to(dtype) for name, value in theta.items()},
        None if column is None else column.mean(1, keepdim=True).to(dtype),
    )
    return StreamedFit(
        **_outcome(running, settings, settings.rounds),
        structure=structure,
        seed=seed,
        theta=theta,
        shared=shared,
        own=own,
        first=chains.block,
        dtype=dtype,
    )


def _finish_rows(
    chains: StreamedChains, rows: StreamedRows, running: Running, draws: int, seed: int, settings: StreamSettings
) -> KeptFit:
    """Put the last states and the records of their genes together, in the order of the chains' passes."""
    given = running.kept_theta[:: rows.plan.stride]
    kept = given[-rows.plan.n_slots :]
    slots = [(len(given) - len(kept) + i) % rows.plan.n_slots for i in range(len(kept))]
    # A fit that was cut short has fewer than its draws need: some are there several times.
    order = [i % len(kept) for i in range(rows.plan.n_slots)]
    starts = np.cumsum([0, *(n_genes for n_genes, _, _ in chains.cells.sizes)]).tolist()
    return KeptFit(
        **_outcome(running, settings, settings.states),
        structure=chains.structure,
        seed=seed,
        theta={name: torch.cat([kept[i][name] for i in order], -1)[..., :draws] for name in kept[0]},
        shared={
            name: torch.cat([running.kept_shared[i][name] for i in order], -1)[..., :draws]
            for name in running.kept_shared[0]
        },
        first=chains.block,
        dtype=chains.cells.dtype,
        drawn=rows.draws,
        slots=tuple(slots[i] for i in order),
        number_of={start: number for number, start in enumerate(starts[:-1])},
        n_chains=settings.chains,
        ess=effective_sizes(kept),
    )


def _outcome(running: Running, settings: StreamSettings, rounds: int) -> dict[str, Any]:
    """Say how the chains went: over so many kept states, or half of them if that is more."""
    passes, n_kept = running.state.passes, len(running.kept_theta)
    rhat, drift = math.inf, math.inf
    if n_kept >= FEWEST_COMPARED:
        rhat, drift = agreement(running.kept_theta[-max(rounds, n_kept // 2) :])
    reason = f"it was stopped after {passes} passes, before its chains agreed"
    if running.finished:
        reason = f"R-hat of every shared log-scale was below {settings.rhat_limit} after {passes} passes"
    rhats = np.array(running.rhats)
    history: dict[str, np.ndarray] = {"step": np.arange(1, len(running.trace) + 1)}
    if len(rhats):
        # The last of these are of the passes by twos.
        last = passes // PASSES_IN_ROUND
        history |= {"r_hat": rhats, "window_step": PASSES_IN_ROUND * np.arange(last - len(rhats) + 1, last + 1)}
    return {
        "history": history,
        "converged": running.finished,
        "reason": reason,
        "passes": passes,
        "rhat": rhat,
        "drift": drift,
    }
