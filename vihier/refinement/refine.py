"""`vihier.refine`: NUTS over the scales of chosen genes, beside the fit that it starts from, in the fit's file.

What is sampled. All locations are integrated out in closed form, so that NUTS walks over log-scales alone: those of the
genes asked for and all that are shared. The other genes are not held at a plug-in value. What they say of the shared
scales and locations, their own scales integrated out, is summed up once about the guide's centre (see
`vihier.refinement.sum_up_others`) and stands in the density that NUTS walks on. So the globals are sampled along with
the subset and their uncertainty stays in. The other way, a short chain for each of many draws of the guide, was not
taken: it would repeat what the guide says of the globals instead of checking it, and cost a warm-up for every draw.
Where few genes are left out, all are sampled instead.

Rows that are Student-t, or of several noise scales, leave no closed form for what other genes say. There NUTS walks
over the genes' own scales given a weight for each row, and what genes share is pooled over the fit's draws of it, which
come from exact sweeps over all genes (see `vihier.refinement.given_shared`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vihier.errors import VihierError
from vihier.guides.block import Block, Theta
from vihier.inference.device import generator, run_on, seed_of
from vihier.inference.progress import Progress, open_progress
from vihier.models.batch import Batch
from vihier.posterior.reader import Posterior, open_posterior
from vihier.refinement.chain import ChainPlan
from vihier.refinement.fit_to_refine import CPU, FitToRefine, screen_of
from vihier.refinement.given_shared import GivenShared
from vihier.refinement.location_draws import DrawnLocations, LocationDraws, subset_block
from vihier.refinement.log_posterior import LogPosterior
from vihier.refinement.log_scales import LogScales
from vihier.refinement.other_genes import OtherGenes
from vihier.refinement.processes import run_chains
from vihier.refinement.subset import genes_to_refine
from vihier.refinement.sum_up_others import Centre, sum_up_others
from vihier.refinement.writing import GIVEN_SHARED, NUTS, write_refined

if TYPE_CHECKING:
    import pandas as pd

    from vihier.screen import Screen

# Sampled whole: a Gaussian for what so few genes say of the hyper-scales would be a poor one.
FEWEST_OTHERS = 20
MOST_SCALES = 1_000


@dataclass(frozen=True)
class Settings:
    """How the chains are run."""

    chains: int = 4
    warmup: int = 500
    draws: int = 1000
    seed: int = 0
    target_accept: float = 0.8
    processes: int | None = None

    def check(self) -> None:
        """Refuse numbers that cannot be meant.

        Raises
        ------
        VihierError
            Naming the argument.
        """
        for name, least in (("chains", 2), ("warmup", 50), ("draws", 100), ("seed", 0), ("processes", 1)):
            value = getattr(self, name)
            if value is None and name == "processes":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise VihierError(f"{name} {value!r}: give a whole number, {least} or more")
        if not 0.5 <= self.target_accept < 1:
            raise VihierError(f"target_accept {self.target_accept!r}: give a number from 0.5 to 1, such as 0.9")

    @property
    def n_processes(self) -> int:
        """Processes to run: as asked, or one for each core, and no more than there are chains."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(self.processes or cores, self.chains)


def refine(
    post: Posterior | str | os.PathLike[str],
    screen: Screen | str | os.PathLike[str] | pd.DataFrame | None = None,
    *,
    genes: Sequence[str] | str | None = None,
    worst: int | None = None,
    lineage: Sequence[str] | str | None = None,
    full: bool = False,
    model: Callable[[Batch], Any] | None = None,
    chains: int = 4,
    warmup: int = 500,
    draws: int = 1000,
    seed: int = 0,
    target_accept: float = 0.8,
    processes: int | None = None,
    out: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    force: bool = False,
) -> Posterior:
    """Sample some genes of a fit by NUTS and write the draws to group `nuts` of its file.

    Parameters
    ----------
    post
        A fit.
    screen
        The screen that it was fitted to, or a larger one that holds it; None reads the table that the fit names.
    genes, worst, lineage, full
        Which genes; one of these. Genes by name, so many with the largest k-hat, the 20 most selective ones of each
        lineage, or all.
    model
        The program, where the fit is of one of your own.
    chains, warmup, draws
        Chains, and iterations of each before and after its step size is settled.
    seed
        The result depends on it and on nothing else, however many processes there are.
    target_accept
        Mean acceptance that the step size is tuned to; closer to 1 means smaller steps.
    processes
        Chains at once, each in a process of one thread; None for as many as there are cores.
    out
        File to write; None for the fit's own. The groups `nuts`, `nuts_sample_stats` and `nuts_diagnostics` are added.
    quiet
        No progress on standard error.
    force
        Replace the NUTS draws of an earlier refinement.

    Returns
    -------
    Posterior
        Its groups `nuts` hold the draws and how the chains fared; attribute `passed` of `nuts` says whether every
        limit was met, `failures` what was not and what to do.

    Raises
    ------
    VihierError
        Another screen, a program whose locations cannot be integrated out, genes that are not there, NUTS draws there
        already.

    Examples
    --------
    >>> import pandas as pd, vihier
    >>> table = pd.DataFrame({"sgrna": list("abcd") * 2, "hugo_symbol": list("AABB") * 2, "lineage": "skin",
    ...     "depmap_id": ["ACH-1"] * 4 + ["ACH-2"] * 4, "lfc": [0.1, 0.2, -1.0, -1.1, 0.0, 0.1, -0.8, -1.2]})
    >>> fit = vihier.fit(table, "gene_lineage", draws=200, quiet=True)
    >>> refined = vihier.refine(fit, table, full=True, warmup=100, draws=100, processes=1, quiet=True)
    >>> refined.group("nuts")["effect"].sizes["chain"]
    4
    """
    settings = Settings(chains, warmup, draws, seed, target_accept, processes)
    settings.check()
    opened = post if isinstance(post, Posterior) else open_posterior(post)
    target = opened.path if out is None else Path(out)
    _check_free(opened, target, force)
    fit = FitToRefine.of(opened, screen_of(opened, screen), model)
    chosen = genes_to_refine(opened, genes, worst, lineage, full)
    kind = _Refinement if fit.structure.is_plain else _RefinementGivenShared
    with open_progress(quiet) as progress, run_on(CPU, torch.float64):
        kind.of(fit, chosen, settings, progress).write(target)
    return Posterior(target, origin=opened)


def _check_free(post: Posterior, target: Path, force: bool) -> None:
    from vihier.atomic import check_writable

    check_writable(target)
    if target != post.path and target.exists() and not force:
        raise VihierError(f"{target}: is there already; give another --out, or --force to replace it")
    if target == post.path and post.has_group(NUTS) and not force:
        raise VihierError(f"{target}: holds NUTS draws already; give --out, or --force to replace them")


@dataclass(frozen=True)
class _Refinement:
    """Genes to refine, what the others say, and how NUTS starts."""

    fit: FitToRefine
    stored: np.ndarray
    block: Block
    others: OtherGenes | None
    start: Tensor
    settings: Settings
    progress: Progress

    @classmethod
    def of(cls, fit: FitToRefine, chosen: Sequence[str], settings: Settings, progress: Progress) -> _Refinement:
        all_genes = fit.screen.index.genes
        stored = np.flatnonzero(np.isin(all_genes.astype(str), np.array(chosen)))
        few_left = len(all_genes) - len(stored) < FEWEST_OTHERS
        sampled = np.arange(len(all_genes)) if few_left else stored
        block = subset_block(fit.structure, fit.screen, sampled)
        layout = LogPosterior(fit.structure, block, None).layout
        if layout.size > MOST_SCALES:
            raise VihierError(
                f"{layout.size:,} log-scales are too many for NUTS here (at most {MOST_SCALES:,}); choose fewer genes "
                "with --genes or --worst"
            )
        theta = fit.log_scales(sampled)
        others = None
        if not few_left:
            progress.start("other genes", 1)
            others = _others(fit, layout, sampled, settings.seed)
        return cls(fit, stored, block, others, layout.join(theta), settings, progress)

    def write(self, target: Path) -> None:
        """Run the chains, draw the locations, judge, and write."""
        log_posterior = LogPosterior(self.fit.structure, self.block, self.others)
        chains = run_chains(self._plans(log_posterior), self.settings.n_processes, self.progress)
        theta = log_posterior.layout.split(torch.as_tensor(np.concatenate([chain.x for chain in chains])))
        locations = LocationDraws(
            structure=self.fit.structure,
            screen=self.fit.screen,
            block=self.block,
            places=np.flatnonzero(np.isin(self.block.batch.gene_idx.numpy(), self.stored)),
            theta=theta,
            others=None if self.others is None else self.others.natural,
            seed=seed_of(self.settings.seed, "locations"),
        )
        sampler = "NUTS (Pyro) over log-scales, locations integrated out and drawn exactly"
        about = _about(self.fit, self.block, self.settings, sampler, log_posterior.layout.size)
        write_refined(target, self.fit, self.stored, locations, chains, about, self.progress)

    def _plans(self, log_posterior: LogPosterior) -> list[ChainPlan]:
        return _plans(self.fit, self.start, [log_posterior] * self.settings.chains, self.settings)


@dataclass(frozen=True)
class _RefinementGivenShared:
    """Genes to refine whose rows are not Normal with one noise scale, and the fit's draws of what genes share."""

    fit: FitToRefine
    genes: np.ndarray
    block: Block
    start: Tensor
    scales: Theta
    shared: Theta
    settings: Settings
    progress: Progress

    @classmethod
    def of(
        cls, fit: FitToRefine, chosen: Sequence[str], settings: Settings, progress: Progress
    ) -> _RefinementGivenShared:
        genes = np.flatnonzero(np.isin(fit.screen.index.genes.astype(str), np.array(chosen)))
        likelihood = f"{fit.post.path}: its rows are {fit.program.likelihood.label}; with these"
        if fit.screen.n_genes - len(genes) < FEWEST_OTHERS:
            raise VihierError(
                f"{likelihood}, what genes share must come from {FEWEST_OTHERS} genes or more beside those refined; "
                "choose fewer, or fit with --likelihood normal --noise global"
            )
        block = subset_block(fit.structure, fit.screen, genes)
        layout = LogScales.of(fit.structure, block, own=True)
        if not 0 < layout.size <= MOST_SCALES:
            raise VihierError(
                f"{likelihood}, NUTS walks over the genes' own log-scales: {layout.size:,} here, and 1 to "
                f"{MOST_SCALES:,} will do"
            )
        theta = fit.log_scales(genes)
        start = layout.join(theta)
        shared = {name: value for name, value in theta.items() if name not in layout.names}
        return cls(fit, genes, block, start, shared, fit.shared_deviations(), settings, progress)

    def write(self, target: Path) -> None:
        """Run the chains, judge, and write."""
        settings, layout = self.settings, LogScales.of(self.fit.structure, self.block, own=True)
        orders = [self._order(chain) for chain in range(settings.chains)]
        seeds = [seed_of(settings.seed, "rows", chain) for chain in range(settings.chains)]
        moving = [
            GivenShared(self.fit.structure, self.block, layout, self.scales, self.shared, order, seed)
            for order, seed in zip(orders, seeds, strict=True)
        ]
        chains = run_chains(_plans(self.fit, self.start, moving, settings), settings.n_processes, self.progress)
        # Draw i of a chain was made with what the fit says of the globals at transition warmup + i.
        used = torch.cat([order[settings.warmup : settings.warmup + settings.draws] for order in orders])
        scales = {name: value[..., used] for name, value in self.scales.items()}
        locations = DrawnLocations(
            structure=self.fit.structure,
            screen=self.fit.screen,
            block=self.block,
            theta=scales | layout.split(torch.as_tensor(np.concatenate([chain.x for chain in chains]))),
            shared={name: value[..., used] for name, value in self.shared.items()},
            local=moving[0].split(torch.as_tensor(np.concatenate([chain.local for chain in chains]))),
        )
        sampler = (
            "NUTS (Pyro) over the genes' log-scales given the rows' weights; these and locations drawn in between, "
            "what genes share pooled over the fit's draws"
        )
        about = _about(self.fit, self.block, settings, sampler, layout.size) | {GIVEN_SHARED: True}
        write_refined(target, self.fit, self.genes, locations, chains, about, self.progress)

    def _order(self, chain: int) -> Tensor:
        """Which draw of the fit goes with each transition: all in turn, in another order each time."""
        random = generator(CPU, self.settings.seed, "globals", chain)
        n, transitions = len(self.start), self.settings.warmup + self.settings.draws
        return torch.cat([torch.randperm(n, generator=random) for _ in range(-(-transitions // n))])[:transitions]


def _about(fit: FitToRefine, block: Block, settings: Settings, sampler: str, n_log_scales: int) -> dict[str, Any]:
    """Return the attributes of the group of draws."""
    return {
        "sampler": sampler,
        "seed": settings.seed,
        "warmup": settings.warmup,
        "target_accept": settings.target_accept,
        "n_log_scales": n_log_scales,
        "other_genes": fit.screen.n_genes - len(block.batch.gene_idx),
    }


def _plans(
    fit: FitToRefine, draws: Tensor, targets: Sequence[LogPosterior | GivenShared], settings: Settings
) -> list[ChainPlan]:
    """Plan a chain for each target, started from some of the guide's draws, [n, D], in coordinates whitened by all."""
    centre, root = _whitening(draws)
    pick = generator(CPU, settings.seed, "starts")
    starts = draws[torch.randperm(len(draws), generator=pick)[: settings.chains]]
    if len(starts) < settings.chains:
        raise VihierError(f"{fit.post.path}: has {len(draws)} draws to start chains from; fit with more")
    seeds = [seed_of(settings.seed, "chain", i) for i in range(settings.chains)]
    return [
        ChainPlan(target, centre, root, start, settings.warmup, settings.draws, settings.target_accept, seed)
        for target, start, seed in zip(targets, starts, seeds, strict=True)
    ]


def _others(fit: FitToRefine, layout: LogScales, genes: np.ndarray, seed: int) -> OtherGenes | None:
    spread = fit.log_scales(np.arange(fit.screen.n_genes))
    own = {scale.name: spread.pop(scale.name) for scale in fit.structure.scales if scale.plates == ("gene",)}
    # The median of a scale is in the middle of its posterior also where that piles up at zero.
    scales: Theta = {name: value.median(-1, keepdim=True).values for name, value in spread.items()}
    centre = Centre(scales, spread, own, fit.shared_centre())
    return sum_up_others(
        fit.structure, layout, fit.other_blocks(genes), centre, lambda *keys: generator(CPU, seed, *keys)
    )


def _whitening(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor of draws [n, D], their correlations shrunk by what so few draws make up."""
    centre, sd = draws.mean(0), draws.std(0).clamp_min(1e-3)
    standard = (draws - centre) / sd
    n, size = draws.shape
    kept = n / (n + size)
    correlation = kept * (standard.T @ standard / n) + (1 - kept) * torch.eye(size, dtype=draws.dtype)
    return centre, sd[:, None] * torch.linalg.cholesky(correlation)
