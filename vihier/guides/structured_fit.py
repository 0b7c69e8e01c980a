"""Fit the structured guide by stochastic variational inference on the closed-form evidence, and draw from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vihier.errors import FitError
from vihier.guides.block import Block, Theta, in_single, make_block, split_by_sgrnas
from vihier.guides.design_fit import fit_design
from vihier.guides.deviations import draw_shared_deviations
from vihier.guides.elbo import blocked_gradient, joint_gradient
from vihier.guides.evidence import (
    collapse,
    sum_natural,
)
from vihier.guides.interweave import NOISE_WIDTH, Sweeper
from vihier.guides.scales import ScaleGuide
from vihier.guides.structure import Structure, check_structure, read_structure
from vihier.guides.structured_draws import StructuredFit
from vihier.guides.swept_fit import SweptFit, fit_swept
from vihier.guides.trust import guide_trust, sweep_drift
from vihier.inference.batches import GeneBlocks, full_batch, genes_in_block
from vihier.inference.device import generator, run_on
from vihier.inference.progress import Progress
from vihier.inference.threads import in_threads, keep_freed_memory, one_thread
from vihier.kernels.elimination import NaturalParameters
from vihier.models.program import Program
from vihier.screen import Screen

# Sizes in elements of an array [genes, lines, draws], or [genes, sgRNAs, lines] for a block.
ELEMENTS_AT_ONCE = 400_000
BLOCK_ELEMENTS = 1_000_000
SWEEP_BUDGET = 1_000_000_000
START_BUDGET = 100_000
START_MEMORY = 40_000_000
PARTICLE_BUDGET = 12_000
# Pairs of a gene and a line: of a screen that is one block and one step, one that is swept, one that is read at once.
SMALL_SCREEN = 20_000
SWEPT_UP_TO = 100_000
WHOLE_UP_TO = 1_000_000
PART_CELLS = 13_000
# Chains side by side and draws a step at least, and sweeps between draws of a chain.
FEWEST_CHAINS = 16
FEW_PARTICLES = 4
THIN = 3
# Sweeps before the first draw where chains still moved after the usual number, and where they still did after these.
LONGER = (40, 150)
FIRST_NOISE_WIDTH = 5.0
# Steps between sums over all genes of what they say of the shared locations, and in a window of the convergence rule,
# also where draws are swept afterwards: no global log-scale's mean may move by more than DRIFT of its posterior sd from
# one window to the next, twice.
REFRESH = 10
WINDOW, SWEPT_WINDOW = 20, 7
DRIFT = 0.2
DECAY = 0.8


@dataclass
class Settings:
    """How the scales are fitted and drawn.

    `particles` draws of the scales at most make one step's estimate of the ELBO. Where the screen is small enough, the
    guide's draws are chains that are moved by `burn_in` interweaving sweeps and then give `kept` draws each, one
    every `THIN` sweeps.
    """

    max_steps: int = 400
    particles: int = 8
    learning_rate: float = 0.04
    burn_in: int = 6
    kept: int = 8
    start_chains: int = 16
    start_sweeps: int = 12
    start_draws: int = 32


def fit_structured(
    program: Program,
    screen: Screen,
    *,
    draws: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int | None,
    max_steps: int | None,
    init: Theta | None,
    progress: Progress,
) -> StructuredFit | SweptFit:
    """Fit `guide="structured"` and draw its scales and shared locations.

    Parameters
    ----------
    batch_size : int or None
        Genes in a block; None for all genes at once where they fit. The result does not depend on it beyond Monte Carlo
        error: every step sums over all blocks.
    init : dict or None
        Log-scales to start from, by site; None starts from short chains on the data.
    max_steps : int or None
        Steps at most; None for the default.

    Raises
    ------
    VihierError
        If the program is outside the family of the guide.
    FitError
        If the ELBO is not a number at some step.
    """
    settings = Settings() if max_steps is None else Settings(max_steps=max_steps)
    keep_freed_memory()
    probe = GeneBlocks(screen, 2, "cpu", torch.float64)[0]
    with run_on(torch.device("cpu"), torch.float64):
        structure = read_structure(program.model, probe)
    if not program.known:  # it may treat other genes than the two that were looked at in another way
        for batch in GeneBlocks(screen, genes_in_block(screen), "cpu", torch.float64):
            check_structure(structure, program.model, batch)
    if structure.design is not None or not structure.is_plain:
        fit_by_sweeps = fit_swept if structure.design is None else fit_design
        return fit_by_sweeps(
            structure,
            screen,
            draws=draws,
            seed=seed,
            device=device,
            dtype=dtype,
            max_sweeps=max_steps,
            init=init,
            progress=progress,
        )
    cells = screen.n_genes * screen.n_lines
    n_sweeps = settings.burn_in + THIN * settings.kept
    swept = cells <= SWEPT_UP_TO and cells * draws * n_sweeps // settings.kept <= SWEEP_BUDGET
    if batch_size is None and cells <= WHOLE_UP_TO:
        whole = make_block(structure, full_batch(screen, device, dtype))
        blocks = [whole] if cells <= SMALL_SCREEN else split_by_sgrnas(whole, PART_CELLS)
    else:
        # As many genes at once as keep the arrays of a step to some megabytes.
        size = min(batch_size or max(1, BLOCK_ELEMENTS // (8 * screen.n_lines)), screen.n_genes)
        blocks = [make_block(structure, batch) for batch in GeneBlocks(screen, size, device, dtype)]
    fitter = _Fitter(structure, blocks, swept, screen, seed, settings, progress)
    with one_thread():
        fitter.start(init)
        history, converged, reason = fitter.optimise()
        return fitter.draw(draws, history, converged, reason)


class _Fitter:
    """One fit: the guide over the scales, the blocks, and the random streams."""

    def __init__(
        self,
        structure: Structure,
        blocks: Sequence[Block],
        swept: bool,
        screen: Screen,
        seed: int,
        settings: Settings,
        progress: Progress,
    ) -> None:
        self.structure, self.blocks, self.settings, self.progress = structure, blocks, settings, progress
        self.seed = seed
        self.sizes = {"gene": screen.n_genes, "line": screen.n_lines, "lineage": screen.n_lineages}
        self.n_rows = screen.n_rows
        self.cells = screen.n_genes * screen.n_lines
        self.like = blocks[0].data.square
        self.guide: ScaleGuide
        self.frozen: NaturalParameters | None = None
        self.swept = swept
        self.window = SWEPT_WINDOW if swept else WINDOW
        # Sweeps take the sums of the rows in single precision, and what genes share in double.
        self.single = [in_single(block) for block in blocks]

    def _random(self, *keys: int | str) -> torch.Generator:
        return generator(self.like.device, self.seed, *keys)

    def _normal(self, *shape: int, random: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=random, dtype=self.like.dtype, device=self.like.device)

    def start(self, init: Theta | None) -> None:
        """Start the guide at log-scales given, or from the moments of a few short interweaving chains."""
        settings, structure = self.settings, self.structure
        chains = max(2, min(settings.start_chains, max(4, START_BUDGET // self.cells), START_MEMORY // self.cells))
        random = self._random("start")
        theta = {
            scale.name: self._normal(*(self.sizes[plate] for plate in scale.plates), chains, random=random) * 0.3 - 1
            for scale in structure.scales
        }
        if init is not None:
            for name, value in init.items():
                if name in theta:
                    theta[name] = torch.where(value[..., None].isfinite(), value[..., None].to(self.like), theta[name])
            self.guide = ScaleGuide(structure, self.sizes, {name: value.mean(-1) for name, value in theta.items()})
            return
        n_sweeps = max(settings.start_sweeps, 2 * settings.start_draws // chains)
        self.progress.start("start", n_sweeps)
        sweeper = Sweeper(structure, self.single, lambda *keys: self._random("start", *keys))
        sweeper.settle_spread()
        kept = []
        for sweep in range(n_sweeps):
            # Far from where it belongs the rows' scale takes long steps.
            sweeper.noise_width = FIRST_NOISE_WIDTH if sweep < n_sweeps // 2 else NOISE_WIDTH
            theta = sweeper.sweep(theta)
            if sweep >= n_sweeps // 2:
                kept.append(theta)
            self.progress.update(sweep + 1)
        pooled = {name: torch.cat([x[name] for x in kept], -1) for name in theta}
        self.guide = ScaleGuide(structure, self.sizes, {name: value.mean(-1) for name, value in pooled.items()})
        self.guide.match(pooled, correlated=False)

    def optimise(self) -> tuple[dict[str, np.ndarray], bool, str]:
        """Maximise the ELBO; stop when the global means stand still between windows."""
        settings, guide = self.settings, self.guide
        optimiser = torch.optim.Adam(guide.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95))
        elbos: list[float] = []
        means: list[Tensor] = []
        drifts: list[float] = []
        trace: list[Tensor] = []
        averaged: list[dict[str, Tensor]] = []
        self.progress.start("fit", settings.max_steps)
        converged, reason = False, f"it was stopped after {settings.max_steps} steps, before its means stood still"
        for step in range(settings.max_steps):
            optimiser.zero_grad(set_to_none=True)
            elbo = self._step(step)
            if not np.isfinite(elbo):
                raise FitError(
                    f"step {step + 1}: the ELBO is {elbo}; look for extreme lfc values (vihier validate), or give "
                    "tighter priors with --prior"
                )
            optimiser.step()
            elbos.append(elbo / self.n_rows)
            trace.append(guide.loc.detach().clone())
            averaged.append({name: value.detach().clone() for name, value in guide.state_dict().items()})
            averaged = averaged[-self.window :]
            self.progress.update(step + 1, {"elbo_per_row": elbos[-1]})
            if (step + 1) % self.window:
                continue
            means.append(torch.stack(trace[-self.window :]).mean(0))
            drift = np.inf
            if len(means) > 1:
                drift = float(((means[-1] - means[-2]).abs() / guide.sd()).max())
            drifts.append(drift)
            if len(drifts) > 2 and max(drifts[-2:]) < DRIFT:
                converged = True
                moved = f"moved by more than {DRIFT} posterior sds"
                reason = f"no global log-scale {moved} between windows of {self.window} steps"
                break
            for group in optimiser.param_groups:
                group["lr"] *= DECAY
        guide.load_state_dict({name: torch.stack([x[name] for x in averaged]).mean(0) for name in averaged[0]})
        for parameter in guide.parameters():
            parameter.requires_grad_(False)
        steps = np.arange(1, len(elbos) + 1)
        drift_of_step = np.full(len(elbos), np.nan)
        drift_of_step[self.window - 1 :: self.window] = drifts
        return {"step": steps, "elbo_per_row": np.array(elbos), "drift": drift_of_step}, converged, reason

    def _noise(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw standard normals for the globals, [N, E], and the genes' scales, [G, m, N]; antithetic from two on."""
        fewest = FEW_PARTICLES if self.cells <= SMALL_SCREEN else 2
        particles = max(fewest, min(self.settings.particles, PARTICLE_BUDGET // self.cells))
        half = max(1, particles // 2)
        e = self._normal(half, len(self.guide.loc), random=random)
        own = self._normal(self.sizes["gene"], len(self.guide.gene_sites), half, random=random)
        if particles < 2:
            return e, own
        return torch.cat([e, -e]), torch.cat([own, -own], -1)

    def _step(self, step: int) -> float:
        """Accumulate the gradient of the ELBO and return the ELBO."""
        random = self._random("step", step)
        noise = self._noise(random)
        if self.cells <= SMALL_SCREEN and len(self.blocks) == 1:
            return joint_gradient(self.structure, self.guide, self.blocks[0], noise, self.n_rows)
        if step % REFRESH == 0:
            with torch.no_grad():
                self.frozen = self._natural_at_centre()
        return blocked_gradient(self.structure, self.guide, self.blocks, self.frozen, noise, random, self.n_rows)

    def draw(self, draws: int, history: dict[str, np.ndarray], converged: bool, reason: str) -> StructuredFit:
        """Draw scales and shared locations; the scales are moved by interweaving sweeps where that is affordable."""
        settings = self.settings
        chains = -(-draws // settings.kept) if self.swept else draws
        size = max(FEWEST_CHAINS, ELEMENTS_AT_ONCE // self.cells) if self.swept else chains
        size = -(-chains // -(-chains // size))  # as many in one chunk as in another
        chunks = [(number, min(size, chains - first)) for number, first in enumerate(range(0, chains, size))]
        with torch.no_grad():
            frozen = self._natural_at_centre()
        drift, limit = np.nan, np.inf
        for burn_in in (settings.burn_in, *LONGER):
            kept = self._draw_chunks(chunks, frozen, burn_in)
            if not self.swept:
                break
            flat = [self.guide.flat(of_chunk) for of_chunk, _ in kept]
            drift, limit = sweep_drift(
                torch.cat(flat[:: settings.kept]), torch.cat(flat[settings.kept - 1 :: settings.kept])
            )
            if drift <= limit:
                break
        if drift > limit:
            converged, reason = False, f"its chains were still moving: {drift:.2f} sds from first draw to last"
        theta = _first([theta for theta, _ in kept], draws)
        with torch.no_grad():
            if self.swept:  # the draws are better than the guide that they were started from
                self.guide.match(theta)
                frozen = self._natural_at_centre()
            trust = guide_trust(self.structure, self.guide, self.single, frozen, self._random)
        return StructuredFit(
            structure=self.structure,
            guide=self.guide,
            seed=self.seed,
            history=history,
            converged=converged,
            reason=reason,
            theta=theta,
            shared=_first([shared for _, shared in kept], draws),
            frozen=frozen,
            first=self.blocks[0],
            trust=trust,
            sweep_drift=drift,
            swept=burn_in + THIN * settings.kept if self.swept else 0,
        )

    def _draw_chunks(
        self, chunks: Sequence[tuple[int, int]], frozen: NaturalParameters | None, burn_in: int
    ) -> list[tuple[Theta, Theta]]:
        self.progress.start("draw", len(chunks))
        kept: list[tuple[Theta, Theta]] = []
        drawn = in_threads(lambda x: self._draw_chunk(*x, frozen, burn_in), chunks, self.like.device)
        for done, of_chunk in enumerate(drawn):
            kept += of_chunk
            self.progress.update(done + 1)
        return kept

    def _draw_chunk(
        self, number: int, n: int, frozen: NaturalParameters | None, burn_in: int
    ) -> list[tuple[Theta, Theta]]:
        """Draw from the guide n times, and sweep: the scales and shared locations at every sweep that is kept."""
        random = self._random("draws", number)
        theta = self._guide_draws(n, random)
        if not self.swept:
            return [(theta, self._draw_shared(theta, random, frozen))]
        sweeper = Sweeper(self.structure, self.single, lambda *keys: self._random("draws", number, *keys))
        for _ in range(burn_in):
            theta = sweeper.sweep(theta)
        kept = []
        for _ in range(self.settings.kept):
            for _ in range(THIN):
                theta = sweeper.sweep(theta)
            kept.append((theta, sweeper.shared))
        return kept

    def _guide_draws(self, n: int, random: torch.Generator) -> Theta:
        guide = self.guide
        theta, _, standard = guide.sample_globals(self._normal(n, len(guide.origin), random=random))
        own_noise = self._normal(self.sizes["gene"], len(guide.gene_sites), n, random=random)
        genes = torch.arange(self.sizes["gene"], device=self.like.device)
        return theta | guide.sample_genes(own_noise, standard, genes)[0]

    def _natural_at_centre(self) -> NaturalParameters | None:
        """Sum what all genes say of the shared locations with the scales at the guide's centre."""
        parts = [
            collapse(self.structure, self.guide.centre(block.batch.gene_idx), block).natural for block in self.blocks
        ]
        return sum_natural(parts)

    def _draw_shared(self, theta: Theta, random: torch.Generator, frozen: NaturalParameters | None) -> Theta:
        """Draw the shared locations, what the genes say of them held at the guide's centre."""
        if frozen is None:
            return {}
        n_draws = next(iter(theta.values())).shape[-1]
        natural = NaturalParameters(frozen.precision.expand(n_draws, -1, -1), frozen.rhs.expand(n_draws, -1))
        return draw_shared_deviations(self.structure, theta, self.blocks[0], natural, random)[0]


def _first(parts: Sequence[Theta], draws: int) -> Theta:
    return {name: torch.cat([part[name] for part in parts], -1)[..., :draws] for name in parts[0]}
