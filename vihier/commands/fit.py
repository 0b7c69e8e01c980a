"""`vihier fit`: a screen goes in, a posterior file comes out."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from vihier.commands import fit_options as options
from vihier.commands.arguments import (
    AsJson,
    Columns,
    OnConflict,
    Priors,
    ScreenPath,
    SingleLineage,
    labels,
    number_or_text,
    pairs,
)
from vihier.commands.messages import say
from vihier.errors import FitWarning, ScreenWarning, VihierError

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.report import ReadReport
    from vihier.screen.screen import Screen
    from vihier.store.store import ScreenStore

NOT_CONVERGED = 3


def fit(
    screen: ScreenPath,
    out: options.Out,
    column: Columns = None,
    single_lineage: SingleLineage = False,
    on_conflict: OnConflict = "error",
    model: options.Model = "additive",
    guide: options.Guide = "structured",
    prior: Priors = None,
    likelihood: options.Likelihood = "auto",
    noise: options.Noise = "auto",
    nu: options.Nu = "auto",
    dispersion: options.Dispersion = "auto",
    covariate: options.Covariates = None,
    genes: options.Genes = None,
    lines: options.Lines = None,
    lineages: options.Lineages = None,
    n_genes: options.NGenes = None,
    n_lineages: options.NLineages = None,
    where: options.Where = None,
    subset_seed: options.SubsetSeed = 0,
    draws: options.Draws = 1000,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch: options.Batch = "genes",
    batch_size: options.BatchSize = None,
    init: options.Init = None,
    max_steps: options.MaxSteps = None,
    draws_disk_gb: options.DrawsDisk = options.DRAWS_DISK_GB,
    no_cache: options.NoCache = False,
    checkpoint_every: options.CheckpointEvery = options.CHECKPOINT_MINUTES,
    resume: options.Resume = False,
    quiet: options.Quiet = False,
    force: options.Force = False,
    strict: options.Strict = False,
    as_json: AsJson = False,
    config: options.Config = None,
) -> None:
    """Fit a model to a screen and write its posterior.

    A table of more than some million rows is packed into a store first (see vihier pack), which is kept for the next
    fit of the same table. The fit of a large screen writes checkpoints to FIT.h5.checkpoint, the last one on SIGTERM or
    SIGUSR1, from which --resume goes on to the same result.

    xarray, ArviZ and any HDF5 reader open the file. A fit that is there already is opened, not repeated; one of
    another screen, model or configuration is refused without --force.

    [b]Examples[/b]

    vihier fit screen.parquet --out fit.h5
    vihier fit screen.parquet --out skin.h5 --lineages skin,eye --where screen=broad
    vihier fit screen.csv --out fit.h5 --model gene_lineage --prior 'mu_mu_mu_gamma=Normal(3,1)'
    vihier fit screen.parquet --out cn.h5 --model covariate --covariate is_mutated=off
    vihier fit store.h5 --out fit.h5 --draws-disk-gb 20
    vihier fit --config run.toml --seed 2 --out second.h5
    torchrun --nproc-per-node 2 -m vihier fit store.h5 --out fit.h5
    """
    priors = pairs(prior, "--prior", "'mu_gamma=Normal(0,2)'")
    part = Part.of(genes, lines, lineages, n_genes, n_lineages, where, subset_seed)
    from vihier.inference.fit import fit_as_asked
    from vihier.inference.open_screen import open_screen
    from vihier.inference.request import FitRequest
    from vihier.inference.sharing import open_by_all
    from vihier.inference.workers import joined
    from vihier.screen import Screen

    request = FitRequest(
        model=model,
        guide=guide,
        draws=draws,
        seed=seed,
        device=device,
        dtype=dtype,
        out=out,
        priors=priors or None,
        likelihood=likelihood,
        noise=noise,
        nu=number_or_text(nu),
        dispersion=dispersion,
        covariates=pairs(covariate, "--covariate", "'copy_number=centre'") or None,
        batch=batch,
        batch_size=batch_size,
        init=init,
        max_steps=max_steps,
        draws_disk_gb=draws_disk_gb,
        no_cache=no_cache,
        checkpoint_every=checkpoint_every,
        resume=resume,
        quiet=quiet,
        force=force,
    )

    def opened() -> Screen | ScreenStore:
        request.check()  # before a large table is read for nothing
        if out.exists() and screen.exists() and out.samefile(screen):
            raise VihierError(f"--out {out}: is the screen itself; give another name")
        with warnings.catch_warnings():
            # The report, shown below, says the same.
            warnings.simplefilter("ignore", ScreenWarning)
            table = open_screen(
                screen,
                columns=pairs(column, "--column", "lfc=LFC"),
                single_lineage=single_lineage,
                on_conflict=on_conflict,
                no_cache=no_cache,
                quiet=quiet,
            )
            if not part.is_whole:
                table = part.cut(table if isinstance(table, Screen) else table.to_screen())
        return table

    with joined() as workers:
        table = open_by_all(workers, opened)
        # Said below of every fit that did not converge, also of one that was there already.
        warnings.filterwarnings("ignore", message="the fit did not converge", category=FitWarning)
        is_there = out.exists() and not force
        posterior = fit_as_asked(table, request, workers)
    if workers.is_first:
        if is_there and not quiet:
            say(f"{out}: is there already and the same fit: opened, not repeated")
        _tell(table.report, quiet)
    _conclude(posterior, strict, as_json, workers.is_first)


@dataclass(frozen=True)
class Part:
    """The part of a screen that is fitted, as ``Screen.subset`` takes it."""

    genes: list[str] | None
    lines: list[str] | None
    lineages: list[str] | None
    n_genes: int | None
    n_lineages: int | None
    where: dict[str, list[str]]
    seed: int

    @classmethod
    def of(
        cls,
        genes: list[str] | None,
        lines: list[str] | None,
        lineages: list[str] | None,
        n_genes: int | None,
        n_lineages: int | None,
        where: list[str] | None,
        seed: int,
    ) -> Part:
        """Read the texts of the command line."""
        from vihier.screen.subset import parse_where

        return cls(
            labels(genes, "--genes"),
            labels(lines, "--lines"),
            labels(lineages, "--lineages"),
            n_genes,
            n_lineages,
            parse_where(where or ()),
            seed,
        )

    @property
    def is_whole(self) -> bool:
        """Whether no part was asked for."""
        choices = (self.genes, self.lines, self.lineages, self.n_genes, self.n_lineages)
        return not self.where and all(choice is None for choice in choices)

    def cut(self, screen: Screen) -> Screen:
        """Return the part of the screen; all of it where no part was asked for."""
        if self.is_whole:
            return screen
        return screen.subset(
            genes=self.genes,
            lines=self.lines,
            lineages=self.lineages,
            n_genes=self.n_genes,
            n_lineages=self.n_lineages,
            where=self.where,
            seed=self.seed,
        )


def _tell(report: ReadReport, quiet: bool) -> None:
    # After the fit, so that a refusal is one line whatever it is that is refused.
    for line in [f"warning: {text}" for text in report.warnings] if quiet else report.lines():
        say(line)


def _conclude(posterior: Posterior, strict: bool, as_json: bool, speaks: bool) -> None:
    if not speaks:
        pass
    elif as_json:
        names = ("model", "guide", "seed", "converged", "reason", "screen_hash")
        account = {name: posterior.attrs.get(name) for name in names}
        account = {"out": str(posterior.path), "n_draws": posterior.n_draws, **account}
        typer.echo(json.dumps(account, indent=2, ensure_ascii=False))
    else:
        typer.echo(posterior.path)
    if not posterior.converged:
        if speaks:
            say(f"{posterior.path}: the fit did not converge: {posterior.attrs['reason']}")
        if strict:
            raise typer.Exit(NOT_CONVERGED)
