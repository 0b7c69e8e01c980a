"""What a fit will take, before any work: parameters, blocks, memory, disk, and time on this machine from a short probe.

The probe fits a screen of as many blocks of genes as are worked on at once, as large as the fit's and of made-up rows,
and times what the fit does to each block and what it does once.
"""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from vihier.guides.cell_file import CellFile
from vihier.guides.draw_groups import FEWEST_CHAINS
from vihier.guides.pass_sums import PARTS
from vihier.guides.streamed_fit import PASSES_IN_ROUND, Running, StreamSettings, fit_streamed
from vihier.guides.streamed_start import START_GENES
from vihier.guides.structure import Structure, read_structure
from vihier.inference.device import run_on
from vihier.inference.draws import DrawPlan
from vihier.inference.progress import Silent
from vihier.inference.sites import FILE_DIMS, Sites, read_sites
from vihier.inference.sizes import Sizes
from vihier.inference.streamed_run import BLOCK_PAIRS, ROW_BLOCK_PAIRS
from vihier.inference.streamed_write import ELEMENTS_AT_ONCE, FinalPass, Recipe, bytes_of_kept, bytes_of_pairs
from vihier.inference.threads import AHEAD
from vihier.inference.variables import GENE_LINE
from vihier.models.batch import Batch
from vihier.models.made_up import with_made_up_columns
from vihier.models.program import Program
from vihier.posterior.moments import STATISTICS
from vihier.screen.screen import ScreenIndex

PROBE_PASSES, READ_AGAIN = 4, 8
# Rows of a store are also decoded, beside being summed; what is written is written twice.
READ_FACTOR, WRITE_BYTES_PER_SECOND = 1.5, 200e6
GB = 1e9
# Of a streamed fit: bytes of the tables that passes keep by gene, for each of its own scales and each chain; what a
# dataset of the file that is being filled has of it in memory at most; seconds of a pass for each gene and what is
# shared.
GENE_BYTES, DATASET_BYTES, SHARED_SECONDS = 320, 16 << 20, 3e-5
# Of rows that are not Normal with one noise scale: rounds beyond the fewest; bytes of what is predicted of a pair's
# rows in a chain, of which a pass has what the last one left and what it leaves, and a checkpoint more; of a row; of a
# pair in a chain where the chains start, which are more genes than the probe's.
MORE_ROUNDS, PLACE_BYTES, PLACES_HELD, ROW_BYTES, START_BYTES = 3, 6, 3, 6, 300


@dataclass(frozen=True)
class FitPlan:
    """What a fit will take.

    Attributes
    ----------
    rows, parameters, blocks : int
        Parameters are the elements of all latent sites.
    pairs_stored : bool
        Whether draws over genes and lines are stored.
    likelihood, noise : str
        How rows scatter.
    memory_gb, disk_gb, scratch_gb, seconds : float
        Peak memory; the output; what is there beside it while the fit runs; wall time.
    stages, memory : dict
        Seconds of each stage; what makes up the peak memory, in GB.
    """

    rows: int
    parameters: int
    blocks: int
    pairs_stored: bool
    memory_gb: float
    disk_gb: float
    scratch_gb: float
    seconds: float
    likelihood: str = "normal"
    noise: str = "global"
    stages: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


class _Screen:
    """Sizes, where a screen is asked for them, and no labels."""

    def __init__(self, sizes: Sizes, genes: int) -> None:
        self.n_genes, self.n_lines, self.n_lineages = genes, sizes.lines, sizes.lineages
        self.n_sgrnas = genes * _sgrnas_per_gene(sizes)
        self.n_rows = _rows_of(sizes, genes)
        none, codes = np.empty(0, dtype=object), np.empty(0, dtype=np.int64)
        self.index = ScreenIndex(none, none, none, none, none, codes, codes, codes)


class _Blocks(list[Batch]):
    """Made-up blocks with the sizes of their screen."""

    def __init__(self, screen: _Screen, batches: list[Batch]) -> None:
        super().__init__(batches)
        self.screen = screen

    def forget(self) -> None:
        """Keep them: they are few."""


def _sgrnas_per_gene(sizes: Sizes) -> int:
    return max(1, round(sizes.sgrnas / sizes.genes))


def _per_cell(sizes: Sizes) -> int:
    return max(1, round(sizes.rows / (sizes.sgrnas * sizes.lines)))


def _rows_of(sizes: Sizes, genes: int) -> int:
    return genes * _sgrnas_per_gene(sizes) * sizes.lines * _per_cell(sizes)


def made_up_batch(sizes: Sizes, genes: int) -> Batch:
    """Return rows of some genes as dense as a screen's, values at random."""
    random = torch.Generator().manual_seed(0)
    slots = _sgrnas_per_gene(sizes)
    sgrnas = genes * slots
    rows = _rows_of(sizes, genes)
    sgrna = torch.arange(sgrnas).repeat_interleave(rows // sgrnas)
    line = torch.arange(rows // sgrnas).remainder(sizes.lines).repeat(sgrnas)
    copies = torch.arange(rows // sgrnas).div(sizes.lines, rounding_mode="floor").repeat(sgrnas)
    per_cell = _per_cell(sizes)
    lineages = torch.arange(sizes.lines).remainder(max(1, sizes.lineages)) if sizes.lineages else None
    shift = torch.randn(sgrnas, generator=random, dtype=torch.float64)[sgrna] * 0.5
    return Batch(
        n_genes=genes,
        n_sgrnas=sgrnas,
        n_lines=sizes.lines,
        n_rows=rows,
        gene_idx=torch.arange(genes),
        sgrna_idx=torch.arange(sgrnas),
        line_idx=torch.arange(sizes.lines),
        gene=sgrna // slots,
        sgrna=sgrna,
        line=line,
        lfc=shift + 0.4 * torch.randn(rows, generator=random, dtype=torch.float64),
        gene_of_sgrna=torch.arange(sgrnas) // slots,
        lineages=sizes.lineages,
        lineages_of_lines=lineages,
        replicate=line * per_cell + copies,
        line_screens_of_replicates=torch.arange(sizes.lines).repeat_interleave(per_cell),
        sizes={"replicate": sizes.lines * per_cell, "line_screen": sizes.lines},
    )


def has_made_up_design(program: Program, sizes: Sizes) -> bool:
    """Whether a program has covariates in its rows' means, or tables by screen or batch."""
    few = with_made_up_columns(made_up_batch(sizes, min(2, sizes.genes)), program.covariates)
    with run_on(torch.device("cpu"), torch.float64):
        return read_structure(program.model, few).design is not None


def plan_streamed_fit(
    program: Program, sizes: Sizes, *, draws: int, draws_disk_gb: float, batch_size: int | None, folder: Path
) -> FitPlan:
    """Say what a fit of a large screen will take.

    Parameters
    ----------
    folder : Path
        Where the output will be; the probe writes some megabytes there.

    Raises
    ------
    VihierError
        A program outside the family of the guide.
    """
    is_plain = program.likelihood.is_plain
    at_once = BLOCK_PAIRS if is_plain else ROW_BLOCK_PAIRS
    genes = min(sizes.genes, batch_size or max(1, at_once // sizes.lines))
    blocks = math.ceil(sizes.genes / genes)
    threads = torch.get_num_threads()
    few = made_up_batch(sizes, 2)
    with run_on(torch.device("cpu"), torch.float64):
        structure, sites = read_structure(program.model, few), read_sites(program.model, few)
        plan = DrawPlan.of(program, sites, _Screen(sizes, 2), few)  # type: ignore[arg-type]
        recipe = Recipe.of(plan, structure, 0, few)
    pairs_stored = bytes_of_pairs(plan, sizes.genes, sizes.lines, draws) <= draws_disk_gb * GB
    # As many blocks as are worked on at once, so that what they do to each other shows.
    batches = _made_up_blocks(sizes, genes, min(blocks, threads))
    before = _resident_gb()
    stages, waiting = _probe(structure, plan, recipe, sizes, batches, draws, folder)
    peak = max(before, _peak_gb())
    settings = StreamSettings() if is_plain else StreamSettings.of_rows(draws)
    passes = PASSES_IN_ROUND * (settings.burn_in + settings.rounds + (1 if is_plain else MORE_ROUNDS))
    disk, moments = disk_gb(plan, _lengths(sizes), draws, pairs_stored, is_plain)
    not_waiting = moments if pairs_stored else 0.0
    if not (is_plain or pairs_stored):  # what passes drew is written from where it is
        not_waiting = bytes_of_kept(sizes.genes, sizes.lines, draws) / GB
    shared = stages["shared"] + SHARED_SECONDS * sizes.genes / min(threads, 4)
    seconds = {
        "pack": 0.0 if sizes.is_packed else sizes.rows / 2.5e6,
        "read": READ_FACTOR * blocks * stages["read"],
        "start": stages["start"],
        "passes": passes * (blocks * stages["pass"] + shared),
        "globals": stages["globals"],
        "draw": blocks * stages["block"],
        "write": disk * GB / WRITE_BYTES_PER_SECOND,
    }
    own_scales = sum(scale.plates == ("gene",) for scale in structure.scales)
    memory = {
        "probe": peak * GB,
        # Results that wait for the one who writes them, beyond those of the probe.
        "waiting": waiting * max(0, min(blocks, (AHEAD + 1) * threads) - len(batches)),
        "genes": GENE_BYTES * sizes.genes * settings.chains * max(1, own_scales),
        "file": _file_bytes(plan, sizes, draws, pairs_stored),
        "pairs": (AHEAD + 2) * threads * _piece_bytes(plan, sizes, draws) if pairs_stored else 0.0,
    }
    if not is_plain:
        more = max(0, min(START_GENES, sizes.genes) - genes * len(batches))
        memory["start"] = START_BYTES * more * sizes.lines * min(settings.chains, FEWEST_CHAINS * threads)
        memory["sums"] = 8.0 * 3 * PARTS * _of_plates(sizes)["replicate"] * settings.chains
    return FitPlan(
        likelihood=program.likelihood.family,
        noise=program.likelihood.noise,
        rows=sizes.rows,
        parameters=parameters(sites, _of_plates(sizes)),
        blocks=blocks,
        pairs_stored=pairs_stored,
        memory_gb=round(sum(memory.values()) / GB, 2),
        disk_gb=round(disk, 2),
        scratch_gb=round(_scratch_gb(sizes, draws, settings) + disk - not_waiting, 2),
        seconds=round(sum(seconds.values()), 1),
        stages={name: round(value, 1) for name, value in seconds.items()},
        memory={name: round(value / GB, 3) for name, value in memory.items()},
    )


def _scratch_gb(sizes: Sizes, draws: int, settings: StreamSettings) -> float:
    """Size of what waits on disk beside the blocks of the last pass: cells; or rows, places and what passes drew."""
    if settings == StreamSettings():
        return sizes.sgrnas * sizes.lines * 5 / GB
    rows = ROW_BYTES * sizes.rows + sizes.sgrnas * sizes.lines
    places = PLACES_HELD * PLACE_BYTES * settings.chains * sizes.pairs
    drawn = bytes_of_kept(sizes.genes, sizes.lines, draws) + 4 * draws * (sizes.sgrnas + 3 * sizes.genes)
    return (rows + places + drawn) / GB


def _made_up_blocks(sizes: Sizes, genes: int, n_blocks: int) -> list[Batch]:
    """Return blocks that differ only in which genes they are of."""
    first = made_up_batch(sizes, genes)
    n_sgrnas = first.n_sgrnas
    return [
        replace(
            first,
            n_genes=genes * n_blocks,
            n_sgrnas=n_sgrnas * n_blocks,
            gene_idx=first.gene_idx + i * genes,
            sgrna_idx=first.sgrna_idx + i * n_sgrnas,
        )
        for i in range(n_blocks)
    ]


def _piece_bytes(plan: DrawPlan, sizes: Sizes, draws: int) -> float:
    """Size of the draws over genes and lines that are made and written at once."""
    n = sum(variable.dims == GENE_LINE for variable in plan.variables)
    return 4.0 * n * max(ELEMENTS_AT_ONCE, sizes.lines * draws)


def _file_bytes(plan: DrawPlan, sizes: Sizes, draws: int, pairs_stored: bool) -> float:
    """Size of what the library keeps of the datasets of draws that are being filled."""
    lengths = _lengths(sizes)
    of_each = (
        4.0 * draws * math.prod(lengths.get(dim, 1) for dim in variable.dims)
        for variable in plan.variables
        if pairs_stored or variable.dims != GENE_LINE
    )
    return sum(min(DATASET_BYTES, size) for size in of_each)


def _probe(
    structure: Structure,
    plan: DrawPlan,
    recipe: Recipe,
    sizes: Sizes,
    batches: list[Batch],
    draws: int,
    folder: Path,
) -> tuple[dict[str, float], float]:
    """Time the stages, in seconds of all threads for one block, and say how many bytes a block in waiting has."""
    found: dict[str, float] = {}
    screen, n_blocks = _Screen(sizes, batches[0].n_genes), len(batches)
    ends: list[float] = [time.perf_counter()]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".vihier-plan-") as scratch:
        for again in (READ_AGAIN, 1):  # between blocks memory is kept: the first ones take several times as long
            begin = time.perf_counter()
            blocks = _Blocks(screen, batches * again)
            cells = CellFile(structure, blocks, torch.float32, Path(scratch))  # type: ignore[arg-type]
            found.setdefault("read", (time.perf_counter() - begin) / again)
            if again > 1:
                cells.close()
        visits: list[float] = []

        def after_pass(running: Running) -> None:
            ends.append(time.perf_counter())
            visits.append(running.visiting)

        begin = time.perf_counter()
        fitted = fit_streamed(
            structure,
            cells,
            draws=draws,
            seed=0,
            max_steps=PROBE_PASSES,
            init=None,
            progress=Silent(),
            after_pass=after_pass,
            folder=Path(scratch) / "passes",
        )
        done = time.perf_counter()
        laps = [later - earlier for earlier, later in pairwise(ends[1:])]
        found["pass"], found["shared"], first = min(laps), max(laps) - min(laps), max(laps)
        if not structure.is_plain:  # every other pass sums over rows, and draws what these refer to
            found["pass"] = sum(visits[1:3]) / 2
            found["shared"], first = sum(laps[:2]) / 2 - found["pass"], visits[0] + max(laps) - min(visits[1:])
        of_start = max(2, math.ceil(START_GENES / len(batches[0].gene_idx)))
        found["start"] = max(0.0, ends[1] - begin - first) * of_start / n_blocks
        found["globals"] = done - ends[-1]
        last = FinalPass(plan, recipe, fitted, cells, Path(scratch) / "blocks", pairs_stored=False)
        with last.shelf:
            drawn = [time.perf_counter()]
            last.run(Silent(), lambda: drawn.append(time.perf_counter()))
            found["block"] = drawn[-1] - drawn[0]  # without the disk's catching up, which waits for others
            waiting = sum(table.row_bytes * table.n_rows for table in last.shelf.tables.values()) / n_blocks
        cells.close()
    return found | {name: found[name] / n_blocks for name in ("read", "pass", "block")}, float(waiting)


def _of_plates(sizes: Sizes) -> dict[str, int]:
    found = {"gene": sizes.genes, "sgrna": sizes.sgrnas, "line": sizes.lines, "lineage": sizes.lineages}
    return found | {"replicate": sizes.lines * _per_cell(sizes), "line_screen": sizes.lines}


def _lengths(sizes: Sizes) -> dict[str, int]:
    """Lengths of a file's dims."""
    return {FILE_DIMS.get(plate, plate): length for plate, length in _of_plates(sizes).items()}


def parameters(sites: Sites, of_plates: Mapping[str, int]) -> int:
    """Count the elements of all latent sites, from how many each plate has."""
    return sum(math.prod(of_plates.get(plate, 1) for plate in site.plates) for site in sites.latent)


def disk_gb(
    plan: DrawPlan, lengths: Mapping[str, int], draws: int, pairs_stored: bool, is_plain: bool = True
) -> tuple[float, float]:
    """Size of the output, and of the moments in it, from the lengths of the file's dims."""
    draws_bytes = moments = 0
    for variable in plan.variables:
        elements = math.prod(lengths.get(dim, 1) for dim in variable.dims)
        moments += 4 * len(STATISTICS) * elements
        if pairs_stored or variable.dims != GENE_LINE:
            draws_bytes += 4 * draws * elements
    genes, lines = lengths[FILE_DIMS["gene"]], lengths[FILE_DIMS["line"]]
    cells = (genes * 6 + lengths[FILE_DIMS["sgrna"]]) * lines
    if not is_plain:
        cells = bytes_of_kept(genes, lines, draws) + 4 * genes
    cells = 0 if pairs_stored else cells
    return (draws_bytes + moments + cells) / GB, moments / GB


def _peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB


def _resident_gb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * resource.getpagesize() / GB
