"""What a fit takes of a screen that is held in memory, from some sweeps over some of its genes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from vihier.guides.design_fit import design_fitter
from vihier.guides.structure import Structure, read_structure
from vihier.guides.structured_fit import THIN, Settings
from vihier.guides.swept_fit import PART_CELLS, SETTLE, Schedule, check_held, settling_chains, swept_fitter
from vihier.inference.batches import GeneBlocks
from vihier.inference.covariates import chosen_covariates, fit_covariates
from vihier.inference.device import generator, run_on
from vihier.inference.draws import DrawPlan
from vihier.inference.likelihoods import chosen_likelihood
from vihier.inference.plan import GB, WRITE_BYTES_PER_SECOND, FitPlan, disk_gb, parameters
from vihier.inference.progress import Silent
from vihier.inference.request import FitRequest
from vihier.inference.sites import FILE_DIMS, read_sites
from vihier.inference.threads import one_thread
from vihier.models.program import load_program
from vihier.screen import Screen
from vihier.screen.counts import check_counts
from vihier.screen.prepared import prepared_screen
from vihier.screen.subset import take_rows

# Of Normal rows of one noise scale: steps until the rule of convergence is met, what a step costs in sweeps of one
# chain. Of all: what reading and the file take at least. As measured on Avana and KY (51,000 pairs).
STEPS, STEP_SWEEPS, FILE_SECONDS = 60, 20, 5.0
# Memory at least; of Normal rows by pair of a gene and a line; of others by row, by row and chain that is swept at
# once (more where rows have a design), and by pair and draw.
LEAST_GB, BYTES_A_PAIR = 0.9, 12_000
BYTES_A_ROW, BYTES_A_ROW_AND_CHAIN, BYTES_A_PAIR_AND_DRAW = 770, {False: 26, True: 38}, 16
TIMED = 2


def plan_held_fit(screen: Screen, request: FitRequest) -> FitPlan:
    """Say what a fit takes that holds its screen in memory.

    Parameters
    ----------
    screen : Screen
        The whole: a block of its genes is swept, with the fit's own model and rows, and what that takes scaled up.
    request : FitRequest
        Checked.

    Raises
    ------
    VihierError
        As the fit itself: for a program outside the family of the guide, a column that is not there, draws that would
        not fit in memory.
    """
    covariates = chosen_covariates(request.model, request.covariates, screen.covariates)
    program = load_program(request.model, request.priors, chosen_likelihood(request, screen), covariates)
    if program.likelihood.is_of_counts:
        check_counts(screen)
    screen = prepared_screen(screen, fit_covariates(program, screen))
    draws, cells, threads = request.draws, screen.n_genes * screen.n_lines, torch.get_num_threads()
    few = GeneBlocks(screen, 2, "cpu", torch.float64)[0]
    with run_on(torch.device("cpu"), torch.float64):
        structure, sites = read_structure(program.model, few), read_sites(program.model, few)
        plan = DrawPlan.of(program, sites, screen, few)
    lengths = {dim: len(labels) for dim, labels in plan.labels.items()}
    of_plates = {plate: lengths[FILE_DIMS.get(plate, plate)] for site in sites.latent for plate in site.plates}
    disk, _ = disk_gb(plan, lengths, draws, True)
    seconds: dict[str, float] = {"write": disk * GB / WRITE_BYTES_PER_SECOND + FILE_SECONDS}
    memory, probe = {"least": LEAST_GB * GB}, _Probe(structure, screen)
    if structure.is_plain and structure.design is None:
        settings = Settings()
        chains = settings.start_chains
        sweep = probe.seconds(chains) / chains
        of_chain = settings.burn_in + THIN * settings.kept
        chain_sweeps = chains * settings.start_sweeps + -(-draws // settings.kept) * of_chain
        seconds |= {"start and sweeps": chain_sweeps * sweep / threads, "steps": STEPS * sweep * STEP_SWEEPS}
        memory["pairs"] = float(BYTES_A_PAIR * cells)
    else:
        check_held(cells, draws, "plan", "all of which such a fit holds")
        schedule, settling = Schedule.of(draws, screen, structure), settling_chains(cells)
        of_chunk = probe.seconds(schedule.chunks[0])
        seconds |= {
            "settle": SETTLE * probe.seconds(settling) / threads,
            "draw": len(schedule.chunks) * schedule.sweeps * of_chunk / min(threads, len(schedule.chunks)),
        }
        at_once = settling + min(threads, len(schedule.chunks)) * schedule.chunks[0]
        of_chains = 0 if structure.is_plain else BYTES_A_ROW_AND_CHAIN[structure.design is not None] * at_once
        memory["rows"] = float(screen.n_rows * (BYTES_A_ROW + of_chains))
        memory["draws"] = float(BYTES_A_PAIR_AND_DRAW * cells * draws)
    return FitPlan(
        rows=screen.n_rows,
        parameters=parameters(sites, of_plates),
        blocks=-(-cells // PART_CELLS),
        pairs_stored=True,
        memory_gb=round(sum(memory.values()) / GB, 2),
        disk_gb=round(disk, 2),
        scratch_gb=0.0,
        seconds=round(sum(seconds.values()), 1),
        likelihood=program.likelihood.family,
        noise=program.likelihood.noise,
        stages={name: round(value, 1) for name, value in seconds.items()},
        memory={name: round(value / GB, 3) for name, value in memory.items()},
    )


@dataclass(frozen=True)
class _Probe:
    """Sweeps over some of a screen's genes, as a fit does them."""

    structure: Structure
    screen: Screen

    def seconds(self, chains: int) -> float:
        """Seconds that one thread takes for one sweep of so many chains over the whole screen.

        What a sweep takes whatever the genes, for what they share, shows in the difference between two parts.
        """
        n_genes = self.screen.n_genes
        most = max(1, min(n_genes, PART_CELLS // self.screen.n_lines))
        whole = self._of_genes(most, chains)
        half = self._of_genes(max(1, most // 2), chains) if most > 1 else whole
        by_gene = max(0.0, whole - half) / max(1, most - most // 2)
        return whole + (n_genes - most) * (by_gene or whole / most)

    def _of_genes(self, n: int, chains: int) -> float:
        screen = self.screen
        genes = np.unique(np.linspace(0, screen.n_genes - 1, n).round().astype(np.int64))
        part = take_rows(screen, np.isin(screen.gene, genes))
        with one_thread(), torch.no_grad():
            make_fitter = swept_fitter if self.structure.design is None else design_fitter
            fitter = make_fitter(self.structure, part, torch.device("cpu"), torch.float64, 0, Silent())
            sweeper = fitter.make_sweeper(lambda *keys: generator(torch.device("cpu"), 0, *keys))
            theta = sweeper.sweep(fitter.start(chains, None))
            times = []
            for _ in range(TIMED):
                start = time.perf_counter()
                theta = sweeper.sweep(theta)
                if sweeper.rows is not None:
                    sweeper.log_joint(theta)
                times.append(time.perf_counter() - start)
        return min(times)
