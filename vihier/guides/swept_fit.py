"""Fit the structured guide to rows that are Student-t or of several noise scales, by sweeps alone.

Given a weight for each row all locations are Gaussian, and sweeps draw the weights with everything else. So the ELBO is
not needed: chains settle, the guide over the scales takes their moments, and many chains that start from its draws make
a few sweeps each. Locations come from the last of these: their weights cannot be had without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vihier.errors import FitError, VihierError
from vihier.guides.block import Block, Theta, in_single, make_block, split_by_sgrnas
from vihier.guides.interweave import PLACED_AT, Sweeper
from vihier.guides.mixed_model import Structure, is_shared
from vihier.guides.scales import ScaleGuide
from vihier.guides.streamed_start import FREEDOM_START
from vihier.guides.trust import sweep_drift
from vihier.guides.values import centre, locations_of, to_sites, unpad
from vihier.inference.batches import full_batch
from vihier.inference.device import generator
from vihier.inference.progress import Progress
from vihier.inference.threads import in_threads, one_thread
from vihier.kernels.correlated import factor_of
from vihier.models.batch import Batch
from vihier.screen import Screen

# Draws of gene x line tables that are held in memory, in float32: 4 GB. And the largest screen that is, in pairs of a
# gene and a line: of 180,000, with eight rows each, chains that settle and those that draw took 5 GB.
MOST_HELD, HELD_UP_TO = 1_000_000_000, 100_000
PART_CELLS = 13_000
# Pairs of a gene and a line times chains, in the chains that settle and in those that draw, and fewest chains of each.
SETTLING, SETTLING_CHAINS = 200_000, (4, 16)
DRAWING, DRAWING_CHAINS = 200_000, 16
# Sweeps of the first kind, of which the last count, and of the second: before the first draw, and between draws. Chains
# give up to so many draws, and are so many, where draws are many, that it shows whether they have settled.
SETTLE, COUNTED = 100, 20
BURN_IN, THIN = 10, 1
# Where counts are few their noise takes longer to forget the guide.
FEW_COUNTS, BURN_IN_OF_FEW = 20_000, 30
MOST_KEPT, FEWEST_CHAINS = 16, 32


@dataclass
class SweptFit:
    """Draws of every scale and location.

    `theta` are log-scales of the whole screen, `shared` and `local` deviations of the locations; draws last. `drift` is
    how far the means of the shared log-scales moved from the chains' first draw to their last, in sds; a chain makes
    `n_sweeps` sweeps.
    """

    structure: Structure
    history: dict[str, np.ndarray]
    converged: bool
    reason: str
    theta: Theta
    shared: Theta
    local: Theta
    log_p: Tensor
    first: Block
    drift: float
    n_sweeps: int

    @property
    def sample_stats(self) -> dict[str, np.ndarray]:
        """Log density of rows, scales and locations together at each draw; weights of rows are integrated out."""
        return {"log_p": self.log_p.cpu().numpy()}

    @property
    def not_identified(self) -> Mapping[str, str]:
        """Nothing beyond what the program says."""
        return {}

    @property
    def diagnostics(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Sweeps of each chain, and how far chains still moved."""
        return {"sweeps": ((), np.asarray(self.n_sweeps)), "sweep_drift": ((), np.asarray(self.drift))}

    def draw_globals(self, n_draws: int) -> dict[str, Tensor]:
        """Return the draws of the sites shared by genes: site -> [n_draws, *its shape]."""
        assert n_draws == self.log_p.shape[0]
        scales = {
            scale.name: self.theta[scale.name].exp() for scale in self.structure.scales if is_shared(scale.plates)
        }
        factors = {x.name: factor_of(self.theta[x.name]) for x in self.structure.correlations}
        return to_sites(self.structure, scales | self._shared_values()) | factors

    def _shared_values(self) -> Theta:
        return centre(self.structure, locations_of(self.structure, True), self.shared, {}, self.first)

    def draw_locals(self, batch: Batch, global_draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the draws of the sites of a batch's genes: site -> [n_draws, *its shape there]."""
        structure, block = self.structure, make_block(self.structure, batch)
        found = {}
        for name, local in self.local.items():
            sgrnas = structure.site(name).plates == ("sgrna",)
            found[name] = local[batch.sgrna_idx if sgrnas else batch.gene_idx].to(self.log_p)
        values = centre(structure, locations_of(structure, False), found, self._shared_values(), block)
        for scale in structure.scales:
            if not is_shared(scale.plates):
                own = batch.sgrna_idx if scale.plates == ("sgrna",) else batch.gene_idx
                values[scale.name] = self.theta[scale.name][own].exp()
        return to_sites(structure, values)


def fit_swept(
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
        Of a program whose rows are not Normal with one noise scale.
    max_sweeps : int or None
        Of the chains that settle, at most; None for the default. A fit with fewer has not converged.
    init : dict or None
        Log-scales to start from, by site.

    Raises
    ------
    VihierError
        If the draws of a gene x line table would not fit in memory.
    FitError
        If the chains' density is not a number.
    """
    check_held(
        screen.n_genes * screen.n_lines,
        draws,
        "likelihood",
        "for rows that are not Normal with one noise scale",
        ", or --likelihood normal --noise global",
    )
    with one_thread():
        fitter = swept_fitter(structure, screen, device, dtype, seed, progress)
        return fitter.fit(draws, max_sweeps or SETTLE, init)


def swept_fitter(
    structure: Structure, screen: Screen, device: torch.device, dtype: torch.dtype, seed: int, progress: Progress
) -> SweptFitter:
    """Sum a screen's rows into blocks, and return what sweeps them."""
    whole = make_block(structure, full_batch(screen, device, dtype))
    # Sweeps take the sums of the rows in single precision, and what genes share in double.
    blocks = [in_single(block) for block in split_by_sgrnas(whole, PART_CELLS)]

    def make_sweeper(random: Callable[..., torch.Generator]) -> Sweeper:
        return Sweeper(structure, blocks, random)

    return SweptFitter(structure, blocks, make_sweeper, screen, dtype, seed, progress)


def check_held(cells: int, draws: int, what: str, why: str, or_else: str = "") -> None:
    """Refuse draws of gene x line tables, of so many cells, that would not fit in memory; `why` they are held."""
    if cells * draws > MOST_HELD:
        most = max(1, MOST_HELD // cells)
        size = f"{draws} draws x {cells} gene-line pairs, {cells * draws * 4 / 1e9:.0f} GB in memory"
        raise VihierError(f"{what}: {size}, {why}; give --draws {most} or fewer{or_else}")


def settling_chains(cells: int) -> int:
    """How many chains settle, side by side, of a screen of so many pairs of a gene and a line."""
    fewest, most = SETTLING_CHAINS
    return max(fewest, min(most, SETTLING // cells))


@dataclass(frozen=True)
class Schedule:
    """How draws are made: chains in each chunk that is worked on at once, how many draws each gives, and after what."""

    chunks: tuple[int, ...]
    kept: int
    burn_in: int

    @property
    def sweeps(self) -> int:
        """Sweeps of each chain."""
        return self.burn_in + THIN * self.kept

    @classmethod
    def of(cls, draws: int, screen: Screen, structure: Structure) -> Schedule:
        """Plan draws of a screen."""
        cells = screen.n_genes * screen.n_lines
        few_counts = structure.counts is not None and screen.n_rows < FEW_COUNTS
        kept = max(2, min(MOST_KEPT, draws // FEWEST_CHAINS))
        n_chains = -(-draws // kept)
        at_once = max(DRAWING_CHAINS, DRAWING // cells)
        at_once = -(-n_chains // -(-n_chains // at_once))  # as many in one chunk as in another
        chunks = tuple(min(at_once, n_chains - first) for first in range(0, n_chains, at_once))
        return cls(chunks, kept, BURN_IN_OF_FEW if few_counts else BURN_IN)


class SweptFitter:
    """One fit: the blocks, what sweeps them (`make_sweeper(random)`; see `Sweeper`), and the random streams."""

    def __init__(
        self,
        structure: Structure,
        blocks: Sequence[Block],
        make_sweeper: Callable[[Callable[..., torch.Generator]], Sweeper],
        screen: Screen,
        dtype: torch.dtype,
        seed: int,
        progress: Progress,
    ) -> None:
        self.structure, self.blocks, self.seed, self.progress = structure, blocks, seed, progress
        self.make_sweeper = make_sweeper
        plates = {plate for scale in structure.scales for plate in scale.plates} | {"gene"}
        known = {"gene": screen.n_genes, "sgrna": screen.n_sgrnas}
        self.sizes = {p: known[p] if p in known else blocks[0].batch.size_of(p) for p in plates}
        self.screen, self.n_sgrnas, self.n_rows = screen, screen.n_sgrnas, screen.n_rows
        self.cells = screen.n_genes * screen.n_lines
        self.like = blocks[0].data.square.to(dtype)

    def _random(self, *keys: int | str) -> torch.Generator:
        return generator(self.like.device, self.seed, *keys)

    def _normal(self, *shape: int, random: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=random, dtype=self.like.dtype, device=self.like.device)

    def fit(self, draws: int, n_sweeps: int, init: Theta | None) -> SweptFit:
        """Settle, draw, and judge."""
        guide, weights, history = self._settle(n_sweeps, init)
        schedule = Schedule.of(draws, self.screen, self.structure)
        kept_of_each, chunks = schedule.kept, list(enumerate(schedule.chunks))
        self.progress.start("draw", len(chunks))
        kept: list[_Kept] = []
        drawn = in_threads(lambda chunk: self._draw_chunk(*chunk, schedule, guide, weights), chunks, self.like.device)
        for done, of_chunk in enumerate(drawn):
            kept += of_chunk
            self.progress.update(done + 1)
        flat = [self._shared_scales(x.theta) for x in kept]
        drift, limit = sweep_drift(torch.cat(flat[::kept_of_each]), torch.cat(flat[kept_of_each - 1 :: kept_of_each]))
        converged = drift <= limit and n_sweeps >= SETTLE
        reason = (
            f"no shared log-scale's mean moved by more than {drift:.2f} sds from the chains' first draw to their last"
        )
        if drift > limit:
            reason = f"its chains were still moving: {drift:.2f} sds from first draw to last"
        elif not converged:
            reason = f"its chains were stopped after {n_sweeps} sweeps, of {SETTLE} in which they settle"
        return SweptFit(
            structure=self.structure,
            history=history,
            converged=converged,
            reason=reason,
            theta=_joined([x.theta for x in kept], draws),
            shared=_joined([x.shared for x in kept], draws),
            local=_joined([x.local for x in kept], draws),
            log_p=torch.cat([x.log_p for x in kept])[:draws],
            first=self.blocks[0],
            drift=drift,
            n_sweeps=schedule.sweeps,
        )

    def _shared_scales(self, theta: Theta) -> Tensor:
        """Log-scales shared by genes, [N, E]."""
        found = [theta[scale.name] for scale in self.structure.scales if is_shared(scale.plates)]
        return torch.cat([x if x.dim() > 1 else x[None] for x in found]).T

    def start(self, chains: int, init: Theta | None) -> Theta:
        """Return log-scales to start chains from."""
        random = self._random("start")
        freedom = None if self.structure.freedom is None else self.structure.freedom.source
        factor = None if self.structure.counts is None else self.structure.counts.factor.source
        theta = {}
        for scale in self.structure.scales:
            at = {freedom: FREEDOM_START, factor: 0.0}.get(scale.name, -1.0)
            shape = [self.sizes[plate] for plate in scale.plates]
            theta[scale.name] = self._normal(*shape, chains, random=random) * 0.3 + at
        for correlation in self.structure.correlations:
            theta[correlation.name] = self._normal(correlation.n_pairs, chains, random=random) * 0.3
        for name, value in (init or {}).items():
            if name in theta:
                theta[name] = torch.where(value[..., None].isfinite(), value[..., None].to(self.like), theta[name])
        return theta

    def _settle(
        self, n_sweeps: int, init: Theta | None
    ) -> tuple[ScaleGuide, list[Tensor | None], dict[str, np.ndarray]]:
        """Sweep a few chains; return the guide that has their moments, the weights of their rows, and how it went."""
        theta = self.start(settling_chains(self.cells), init)
        sweeper = self.make_sweeper(lambda *keys: self._random("start", *keys))
        sweeper.settle_spread(PLACED_AT[-1])  # placed once: such chains make many sweeps
        counted, densities = [], []
        self.progress.start("settle", n_sweeps)
        for sweep in range(n_sweeps):
            theta = sweeper.sweep(theta)
            density = float(sweeper.log_joint(theta).mean()) / self.n_rows
            if not np.isfinite(density):
                raise FitError(
                    f"sweep {sweep + 1}: the log density is {density}; look for extreme lfc values (vihier validate), "
                    "or give tighter priors with --prior"
                )
            densities.append(density)
            if sweep >= n_sweeps - COUNTED:
                counted.append(theta)
            self.progress.update(sweep + 1, {"log_density_per_row": density})
        pooled = {name: torch.cat([x[name] for x in counted], -1) for name in theta}
        guide = ScaleGuide(self.structure, self.sizes, {name: value.mean(-1) for name, value in pooled.items()})
        guide.match(pooled, correlated=False)
        for parameter in guide.parameters():
            parameter.requires_grad_(False)
        history = {"step": np.arange(1, n_sweeps + 1), "log_density_per_row": np.array(densities)}
        return guide, [] if sweeper.rows is None else sweeper.rows.weights, history

    def _draw_chunk(
        self, number: int, n: int, schedule: Schedule, guide: ScaleGuide, weights: Sequence[Tensor | None]
    ) -> list[_Kept]:
        """Start n chains from the guide's draws of the scales and the settled chains' weights; keep draws of each."""
        random = self._random("draws", number)
        theta, _, standard = guide.sample_globals(self._normal(n, len(guide.origin), random=random))
        noise = self._normal(self.sizes["gene"], len(guide.gene_sites), n, random=random)
        theta = (
            theta | guide.sample_genes(noise, standard, torch.arange(self.sizes["gene"], device=self.like.device))[0]
        )
        sweeper = self.make_sweeper(lambda *keys: self._random("draws", number, *keys))
        if sweeper.rows is not None:
            chains = [torch.arange(n, device=self.like.device) % x.shape[1] if x is not None else None for x in weights]
            sweeper.rows.start_from([x if x is None else x[:, at] for x, at in zip(weights, chains, strict=True)])
        for _ in range(schedule.burn_in):
            theta = sweeper.sweep(theta)
        kept = []
        for _ in range(schedule.kept):
            for _ in range(THIN):
                theta = sweeper.sweep(theta)
            kept.append(_Kept(theta, sweeper.shared, self._local(sweeper), sweeper.log_joint(theta)))
        return kept

    def _local(self, sweeper: Sweeper) -> Theta:
        """Deviations of the genes' locations over the whole screen, float32."""
        tables: Theta = {}
        for location in locations_of(self.structure, False):
            sgrnas = location.plates == ("sgrna",)
            for part in sweeper.parts:
                values = part.deviations[location.name]
                values = (unpad(values, part.block) if sgrnas else values).float()
                if location.name not in tables:
                    rows = self.n_sgrnas if sgrnas else self.sizes["gene"]
                    tables[location.name] = values.new_empty(rows, *values.shape[1:])
                batch = part.block.batch
                tables[location.name][batch.sgrna_idx if sgrnas else batch.gene_idx] = values
        return tables


@dataclass(frozen=True)
class _Kept:
    """One draw of each chain of a chunk."""

    theta: Theta
    shared: Theta
    local: Theta
    log_p: Tensor


def _joined(parts: Sequence[Theta], draws: int) -> Theta:
    return {name: torch.cat([part[name] for part in parts], -1)[..., :draws] for name in parts[0]}
