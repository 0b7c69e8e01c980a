"""Rows of a screen under a program, its sites from a posterior or from their priors, block by block."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks
from vihier.inference.columns import columns_read
from vihier.inference.covariates import fit_covariates, read_covariates
from vihier.inference.device import run_on, seeded
from vihier.inference.draws import Draws
from vihier.inference.known_sites import Known, KnownSites
from vihier.inference.row_distribution import Run, run_program
from vihier.inference.sites import Sites, read_sites
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.posterior.reader import Posterior
from vihier.screen import Screen
from vihier.screen.counts import check_counts
from vihier.screen.prepared import prepared_screen

# Rows x draws of a block (64 MB in float64), and of the arrays of one run, some ten at a time.
ELEMENTS_AT_ONCE = 8_000_000
ELEMENTS_IN_A_RUN = 1_500_000
CPU = torch.device("cpu")


@dataclass
class Predictor:
    """A program on a screen with draws of its sites.

    Attributes
    ----------
    program, sites, screen
        What is predicted; the screen with its covariates as the fit prepared its own.
    draws
        Which draws of the posterior; N of them.
    known
        The posterior's sites; None to draw everything from the priors.
    seed
        Of what is drawn.
    """

    program: Program
    sites: Sites
    screen: Screen
    draws: np.ndarray
    known: KnownSites | None
    seed: int = 0

    @classmethod
    def of(
        cls,
        posterior: Posterior | None,
        screen: Screen,
        program: Program,
        *,
        draws: int | None = None,
        seed: int = 0,
    ) -> Predictor:
        """Prepare a prediction: from a posterior (`draws` of its draws, evenly spaced; None is all) or from the priors.

        Raises
        ------
        VihierError
            What the program or the posterior refuses, or a number of draws that the posterior does not have.
        """
        n_there = None if posterior is None else posterior.n_draws * posterior.n_chains
        n_draws = draws if draws is not None else (n_there or 500)
        if n_draws < 1 or (n_there is not None and n_draws > n_there):
            there = "give 1 or more" if n_there is None else f"the posterior has {n_there}; give 1 to {n_there}"
            raise VihierError(f"draws {n_draws}: {there}")
        if program.likelihood.is_of_counts:
            check_counts(screen, with_counts=False)
        learned = fit_covariates(program, screen) if posterior is None else read_covariates(posterior)
        screen = prepared_screen(screen, learned)
        with run_on(CPU, torch.float64, validate=True):
            # A few genes, and not all of them: what is not taken by block shows only on a part.
            first = GeneBlocks(screen, max(1, min(8, screen.n_genes // 2)))[0]
            columns_read(program.model, first)
            sites = read_sites(program.model, first)
        if len(sites.observed) != 1:
            raise VihierError(f"the program observes {', '.join(sites.observed)}: one observed site is wanted")
        chosen = np.arange(n_draws) if n_there is None else np.arange(n_draws) * n_there // n_draws
        return cls(
            program, sites, screen, chosen, None if posterior is None else KnownSites(posterior, sites, screen), seed
        )

    @property
    def n_draws(self) -> int:
        """Number of draws, N."""
        return len(self.draws)

    def blocks(self) -> Iterator[RowBlock]:
        """Yield the screen's gene blocks in order, so small that the draws of a block's rows fit in memory."""
        screen = self.screen
        of_gene = max(int(np.diff(screen.gene_starts).max()), screen.n_lines)
        start = 0
        for batch in GeneBlocks(screen, max(1, ELEMENTS_AT_ONCE // (self.n_draws * of_gene))):
            rows = slice(start, start + len(batch.gene))
            start = rows.stop
            yield RowBlock(self, batch, rows)

    def values(self, batch: Batch) -> tuple[Draws, Known]:
        """Return draws of every site that is known, [N, *shape in the batch], and which of their elements are."""
        local, masks = self._read(batch, {site.name for site in self.sites.local})
        shared = self.shared
        known = {name: torch.ones(value.shape[1:], dtype=torch.bool) for name, value in shared.items()}
        return {**shared, **local}, {**masks, **known}

    @functools.cached_property
    def shared(self) -> Draws:
        """Draws of the sites that genes share, drawn once for all blocks where they are new."""
        names = {site.name for site in self.sites.shared}
        batch = GeneBlocks(self.screen, 1)[0].with_one_row()
        values, masks = self._read(batch, names)
        new = [name for name in names if (mask := masks[name]) is None or not bool(mask.all())]
        if new:
            masks |= dict.fromkeys(site.name for site in self.sites.local)
            values = {
                **values,
                **self.run(batch, values, masks, sorted(new), slice(0, self.n_draws), "shared").completed,
            }
        return values

    def _read(self, batch: Batch, names: set[str]) -> tuple[dict[str, torch.Tensor], Known]:
        if self.known is None:
            return {}, dict.fromkeys(names)
        values, masks = self.known.read(batch, names)
        return {name: value[self.draws] for name, value in values.items()}, masks

    def run(
        self, batch: Batch, values: Draws, masks: Known, completed: Collection[str], at: slice, purpose: str = "rows"
    ) -> Run:
        """Run the program on some draws of its sites; see `run_program`."""
        observed, n_draws = self.sites.observed[0], at.stop - at.start
        with run_on(CPU, torch.float64), seeded(CPU, self.seed, purpose, int(batch.gene_idx[0]), at.start):
            return run_program(self.program.model, batch, observed, values, masks, completed, n_draws)


@dataclass(frozen=True)
class RowBlock:
    """The rows of some genes: the batch, and where they are among the screen's rows."""

    predictor: Predictor
    batch: Batch
    rows: slice

    @functools.cached_property
    def known(self) -> tuple[Draws, Known]:
        """Draws of the block's sites; see `Predictor.values`."""
        return self.predictor.values(self.batch)

    def runs(self) -> Iterator[tuple[slice, Run]]:
        """Yield the program's runs, some draws at a time: which draws, and the distributions of the rows."""
        batch, n_draws = self.batch, self.predictor.n_draws
        step = max(1, ELEMENTS_IN_A_RUN // max(len(batch.gene), len(batch.gene_idx) * len(batch.line_idx)))
        values, masks = self.known
        for start in range(0, n_draws, step):
            at = slice(start, min(start + step, n_draws))
            part = {name: value[at] for name, value in values.items()}
            yield at, self.predictor.run(batch, part, masks, (), at)
