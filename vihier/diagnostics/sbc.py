"""Simulation-based calibration on the design of a screen: truth is drawn, its rows replaced, refitted, ranked.

From the prior (Talts et al. 2018, arXiv 1804.06788): every site is drawn by running the program forward on the
screen's own sgRNAs, lines and replicates. From a fit (posterior calibration, Saeilynoja et al. 2025, arXiv 2502.03279):
the truth is a draw of the fit, and the refit sees the screen's own rows beside the new ones, which is what makes ranks
uniform.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

from vihier.diagnostics.calibration import judge, rank_statistics, ranked
from vihier.diagnostics.replicates import Record, Told, run_replicates
from vihier.errors import FitError, FitWarning, VihierError
from vihier.inference.batches import GeneBlocks, full_batch
from vihier.inference.covariates import chosen_covariates, fit_covariates, read_covariates
from vihier.inference.device import run_on, seed_of, seeded
from vihier.inference.draws import DrawPlan, computed
from vihier.inference.fit import fit
from vihier.inference.known_sites import KnownSites
from vihier.inference.predict import program_of
from vihier.inference.screen_of_fit import fitted_part
from vihier.inference.sites import read_sites
from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood
from vihier.models.program import Program, load_program
from vihier.models.trace import trace_program
from vihier.posterior.reader import Posterior, open_posterior
from vihier.screen import Screen
from vihier.screen.assemble import assemble
from vihier.screen.prepared import prepared_screen
from vihier.screen.simulate_design import LFC_LIMIT
from vihier.screen.simulate_model import SIMULATION_PRIORS

CPU = torch.device("cpu")
FACTOR = "1.0"
AS_IT_IS = "asis"


@dataclass(frozen=True)
class SbcStudy:
    """What is simulated and refitted.

    Attributes
    ----------
    screen
        Whose sgRNAs, lines and replicates are simulated.
    model
        Name of the model.
    priors
        Site -> prior, in simulation and refit alike.
    likelihood
        How rows scatter.
    covariates
        Of the model, by column; those of `screen` are prepared already, and are taken as they are.
    source
        A posterior file to draw the truth from; None for the prior.
    guide, draws, seed
        Of each refit; the seed also of what is simulated.
    """

    screen: Screen
    model: str
    priors: Mapping[str, str]
    likelihood: Likelihood
    covariates: Mapping[str, str] | None
    source: Path | None
    guide: str
    draws: int
    seed: int

    @classmethod
    def of(
        cls,
        screen: Screen,
        model: str | None = None,
        *,
        priors: Mapping[str, str] | None = None,
        likelihood: Likelihood = NORMAL,
        source: Path | None = None,
        guide: str = "structured",
        draws: int = 400,
        seed: int = 0,
    ) -> SbcStudy:
        """Settle a study: hyper-priors that make screens look like screens, unless others are given; those of a fit.

        Raises
        ------
        VihierError
            An unknown model or prior, or a fit that is of another model, screen or of a program of one's own.
        """
        if source is None:
            name = model or "additive"
            chosen = chosen_covariates(name, None, screen.covariates)
            program = load_program(name, covariates=chosen)
            screen = prepared_screen(screen, fit_covariates(program, screen))
            with run_on(CPU, torch.float64):
                sites = read_sites(program.model, GeneBlocks(screen, max(1, screen.n_genes // 2))[0]).names
            tight = {site: prior for site, prior in SIMULATION_PRIORS.get(name, {}).items() if site in sites}
            program = load_program(name, {**tight, **(priors or {})}, covariates=chosen)
            terms = None if chosen is None else dict.fromkeys(chosen, AS_IT_IS)
            return cls(screen, name, dict(program.priors), likelihood, terms, None, guide, draws, seed)
        with open_posterior(source) as post:
            if priors:
                raise VihierError(f"--prior: {source} has its own priors; leave it out")
            if model not in (None, post.model):
                raise VihierError(f"--model {model}: {source} is a fit of {post.model}; leave it out")
            program = program_of(post)
            if program.likelihood.is_of_counts:
                raise VihierError(f"--from {source}: is a fit of counts, and sbc simulates fold changes; give another")
            screen = prepared_screen(fitted_part(post, program, screen), read_covariates(post))
            terms = dict.fromkeys(program.covariates, AS_IT_IS) or None
            priors, likelihood = dict(program.priors), program.likelihood
            return cls(screen, post.model, priors, likelihood, terms, Path(source).resolve(), guide, draws, seed)

    @property
    def program(self) -> Program:
        """The program, its priors in place."""
        return load_program(self.model, self.priors, self.likelihood, self.covariates)

    @property
    def settings(self) -> dict[str, Any]:
        """What the records depend on, as JSON gives it back."""
        created = None
        if self.source is not None:
            with open_posterior(self.source) as post:
                created = post.attrs["created_at"]
        about = {
            "model": self.model,
            "priors": dict(self.priors),
            **self.likelihood.settings,
            "screen": self.screen.hash,
            "truth_from": created or "prior",
            "guide": self.guide,
            "draws": self.draws,
            "seed": self.seed,
        }
        return json.loads(json.dumps(about))


@dataclass(frozen=True)
class Truth:
    """A draw of everything, variable -> values over its dims, and the rows that follow from it, [rows]."""

    variables: dict[str, np.ndarray]
    lfc: np.ndarray


def draw_truth(study: SbcStudy, number: int) -> Truth:
    """Draw every site, from the prior or the fit, and new rows in the places of the screen's."""
    program, screen = study.program, study.screen
    with run_on(CPU, torch.float64):
        batch = replace(full_batch(screen), lfc=None)
        probe = GeneBlocks(screen, max(1, screen.n_genes // 2))[0]
        sites = read_sites(program.model, probe)
        known: dict[str, torch.Tensor] = {}
        if study.source is not None:
            with open_posterior(study.source) as post:
                known = _draw_of(post, KnownSites(post, sites, screen), batch, sites.names, number)
        with torch.no_grad(), seeded(CPU, study.seed, "truth", number):
            nodes = trace_program(pyro.condition(program.model, data=known), batch).nodes
        sampled = {name: torch.as_tensor(nodes[name]["value"]) for name in (*sites.names, *sites.observed)}
        draws = {name: sampled[name][None] for name in sites.names}
        plan = DrawPlan.of(program, sites, screen, probe)
        values = {**draws, **computed(program, full_batch(screen), [s.name for s in sites.deterministic], draws)}
        if plan.effect is not None:
            values |= plan.effect.values(values["effect"])
        variables = {each.name: each.to_file(values[each.name])[0] for each in plan.variables}
        return Truth(variables, sampled[sites.observed[0]].numpy())


def _draw_of(
    post: Posterior, known: KnownSites, batch: Batch, names: list[str], number: int
) -> dict[str, torch.Tensor]:
    """One draw of a fit's sites; successive replicates take draws that are far apart."""
    drawn, _ = known.read(batch, names)
    at = (number * 389) % (post.n_draws * post.n_chains)  # 389 is prime: no draw comes again before all have
    return {name: values[at] for name, values in drawn.items()}


def replicated(screen: Screen, lfc: np.ndarray, beside: bool) -> Screen:
    """Return the screen with other values in its rows, in their place or beside them.

    Raises
    ------
    VihierError
        A value beyond what a screen may hold.
    """
    if not np.abs(lfc).max() <= LFC_LIMIT:
        raise VihierError(f"a row was drawn as {lfc[np.abs(lfc).argmax()]:.4g}; give tighter priors with --prior")
    times = 2 if beside else 1
    values = np.concatenate([screen.lfc, lfc]) if beside else lfc
    sgrna, line, replicate = (np.tile(codes, times) for codes in (screen.sgrna, screen.line, screen.replicate))
    covariates = {name: np.tile(column, times) for name, column in screen.covariates.items()}
    return assemble(screen.index, sgrna, line, replicate, values, covariates, screen.report)


def one_replicate(study: SbcStudy, number: int) -> Record:
    """Draw a truth, refit, and rank it; on one thread, for processes side by side."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    record: Record = {"number": number}
    truth = draw_truth(study, number)
    try:
        screen = replicated(study.screen, truth.lfc, study.source is not None)
    except VihierError as error:
        # Which screens are refused depends on their rows alone, so those that are left stay calibrated.
        return record | {"refused": str(error)}
    with tempfile.TemporaryDirectory(prefix="vihier-") as folder, warnings.catch_warnings():
        # A fit that says it did not converge is counted, not hidden: the record has `converged`.
        warnings.simplefilter("ignore", FitWarning)
        try:
            post = fit(
                screen,
                study.model,
                guide=study.guide,
                draws=study.draws,
                seed=seed_of(study.seed, "fit", number),
                priors=dict(study.priors),
                likelihood=study.likelihood.family,
                noise=study.likelihood.noise,
                nu=study.likelihood.nu,
                covariates=study.covariates,
                device="cpu",
                out=Path(folder) / "fit.h5",
                quiet=True,
            )
        except FitError as error:
            return record | {"broke_down": str(error)}
        with post:
            record |= {"converged": bool(post.converged), "ranks": _ranks(post, truth, study, number)}
    return record | {"seconds": round(time.perf_counter() - start, 2)}


def _ranks(post: Posterior, truth: Truth, study: SbcStudy, number: int) -> dict[str, dict[str, list[float]]]:
    """Return `rank_statistics` of each identified variable: variable -> factor -> statistics.

    Elements that are constants, such as a correlation of a thing with itself, have no rank.
    """
    found = {}
    for code, name in enumerate(sorted(set(post.variables) - set(post.not_identified))):
        true = truth.variables[name]
        draws = post.draws(name).to_numpy().reshape(-1, true.size).astype(np.float64)
        varies = np.ptp(draws, axis=0) > 1e-6 * np.abs(draws).max(axis=0)
        key = (study.seed, number, code)
        found[name] = {FACTOR: rank_statistics(draws[:, varies], true.ravel()[varies], 1.0, key)}
    return found


def run_sbc(study: SbcStudy, n: int, path: Path, *, processes: int = 1, told: Told | None = None) -> list[Record]:
    """Run replicates 0 to n - 1 that `path` does not have, and return all of them.

    Raises
    ------
    VihierError
        `path` holds replicates of other settings.
    """
    return run_replicates(one_replicate, study, study.settings, n, path, processes, told or _quiet)


def _quiet(done: int, record: Record) -> None:
    """Say nothing."""


def verdict_of(records: list[Record]) -> dict[str, Any]:
    """Judge a study: what was run, `calibrated`, and coverage and ranks of each variable.

    Raises
    ------
    VihierError
        Fewer than two replicates were fitted.
    """
    fitted = ranked(records)
    if len(fitted) < 2:
        raise VihierError(f"{len(fitted)} replicate(s) fitted: two or more are needed to judge; run more with --n")
    about: dict[str, Any] = {
        "replicates": len(records),
        "refused": sum("refused" in record for record in records),
        "broke_down": sum("broke_down" in record for record in records),
        "not_converged": sum(not record["converged"] for record in records if "ranks" in record),
        "seconds": round(float(np.median([record["seconds"] for record in records if "ranks" in record])), 2),
    }
    found = judge(records, 1.0)
    found["calibrated"] = bool(found["calibrated"] and not about["broke_down"])
    return about | found
