"""`vihier.fit`: a screen and a program go in, a posterior file comes out."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vihier.errors import FitWarning
from vihier.guides.structured_draws import StructuredFit
from vihier.inference.batches import GeneBlocks, RowParts, genes_in_block
from vihier.inference.checkpoint import Checkpoint
from vihier.inference.columns import columns_read
from vihier.inference.config import fingerprint, open_if_same, to_toml
from vihier.inference.covariates import (
    chosen_covariates,
    fit_covariates,
    without_indicators,
    write_covariates,
)
from vihier.inference.device import resolve_device, resolve_dtype, run_on, seed_of
from vihier.inference.draws import DrawPlan, genes_at_once, write_draws, write_groups
from vihier.inference.earlier_fit import EarlierFit
from vihier.inference.fitted import Fitted
from vihier.inference.likelihoods import chosen_likelihood
from vihier.inference.mean_field_fit import fit_mean_field
from vihier.inference.open_screen import is_streamed, open_screen
from vihier.inference.progress import Progress, open_progress
from vihier.inference.request import CHECKPOINT_MINUTES, DRAWS_DISK_GB, FitRequest, Guide
from vihier.inference.sharing import check_workers, open_by_all
from vihier.inference.sites import Sites, read_sites
from vihier.inference.user_fit import fit_user_guide
from vihier.inference.workers import ALONE, Workers, joined
from vihier.models.batch import Batch
from vihier.models.priors import check_prior_names
from vihier.models.program import Program, load_program
from vihier.posterior.reader import Posterior
from vihier.posterior.writer import PosteriorWriter
from vihier.screen import Screen
from vihier.screen.counts import check_counts
from vihier.screen.prepared import PreparedCovariate, prepared_screen

if TYPE_CHECKING:
    import pandas as pd

    from vihier.store.store import ScreenStore

# Rows of a part when batch="rows": large enough for its noise to be small beside that of the guide's draws.
ROWS_IN_PART = 10_000


def fit(
    screen: Screen | ScreenStore | str | os.PathLike[str] | pd.DataFrame,
    model: str | Callable[[Batch], Any] | Program = "additive",
    *,
    guide: Guide = "structured",
    draws: int = 1000,
    seed: int = 0,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    out: str | os.PathLike[str] | None = None,
    priors: Mapping[str, Any] | None = None,
    likelihood: str = "auto",
    noise: str = "auto",
    nu: str | float = "auto",
    dispersion: str = "auto",
    covariates: Mapping[str, str | None] | None = None,
    batch: str = "genes",
    batch_size: int | None = None,
    init: str | os.PathLike[str] | Posterior | None = None,
    max_steps: int | None = None,
    draws_disk_gb: float = DRAWS_DISK_GB,
    no_cache: bool = False,
    checkpoint_every: float | None = CHECKPOINT_MINUTES,
    resume: bool = False,
    quiet: bool = False,
    force: bool = False,
) -> Posterior:
    """Fit a model to a screen and write its posterior to a file.

    Parameters
    ----------
    screen
        A screen, a table that `vihier.read_screen` reads, or a store that `vihier pack` wrote (open, or its path). A
        table of more than some million rows is packed into a store first, which is kept for the next fit.
    model
        Name of a model (`gene_lineage`, `additive`, `crossed`), or a Pyro program `def model(batch)` of one's own.
    guide
        `structured` (locations exact given the scales), `mean_field` (all independent), or a Pyro guide
        `def guide(batch)` of one's own, trained by SVI.
    draws
        Posterior draws to write.
    seed
        The same seed gives the same file, bit by bit, on one machine with one number of threads.
    device
        `cpu`, `cuda` or `auto`.
    dtype
        `float32` or `float64`; None is the guide's own choice.
    out
        Posterior file to write. A fit that is there already, of the same screen, model, priors and configuration, is
        opened and not repeated. None: a temporary file that lives as long as what is returned.
    priors
        Site -> prior in the place of the model's own: `{"mu_gamma": "Normal(0, 2)"}`, or a Pyro distribution.
    likelihood
        How the rows of one of vihier's models scatter: `normal`, `student_t`, or `auto`: `student_t` with noise by
        replicate for whole screens, of 200 genes or more, `normal` with one noise scale for small ones. Or
        `negative_binomial`: rows are the read counts `counts_final`, and effects relative to `counts_expected`.
    noise
        What has a noise scale of its own: `global`, `screen`, `line`, `replicate`, or `auto`.
    nu
        Degrees of freedom of `student_t`: learned, one for all (`global`) or one a `screen` (`auto`: where there are
        several); or a number.
    dispersion
        What the noise of counts has beside `noise`: `global` (nothing), or, joined by `_`, a factor for each `sgrna` or
        `gene`, a power of the `abundance` (the expected reads), and some rows that are noisier (`row`); `auto`:
        `sgrna_abundance_row` for whole screens, nothing for small ones.
    covariates
        Column -> how it is prepared before the model sees it, such as `"zscore(0.1) | clip(-3, 3)"`, or `"off"` to
        leave a term of the model out; see `vihier.screen.prepared`. What the screen teaches is stored with the fit.
    batch
        What a minibatch holds: all rows of some `genes`, or `rows` at random (not with `structured`).
    batch_size
        Genes, or rows, in a minibatch.
    init
        An earlier fit to start from. Labels are matched by name; new ones start from the prior.
    max_steps
        Largest number of optimisation steps. A fit that is cut short says that it did not converge.
    draws_disk_gb
        Draws of variables over genes and lines are stored where they take no more than so many GB (10^9 bytes). Else
        their moments are stored, and their draws made again from the others when asked for.
    no_cache
        Pack a large table into a temporary store instead of one that is kept.
    checkpoint_every
        Minutes between checkpoints of a fit of a large screen, in `OUT.checkpoint`; None for none. SIGTERM and SIGUSR1
        also have one written, and then end the fit.
    resume
        Go on from the checkpoint of the same fit, where there is one; the result is the same, bit by bit.
    quiet
        No progress on standard error.
    force
        Replace what is at `out`.

    Returns
    -------
    Posterior
        `posterior.converged` says whether the stated rule of convergence was met.

    Raises
    ------
    VihierError
        One line: what was refused, where, and the cure.
    FitError
        If the fit broke down; it says at which step and what to try.
    vihier.inference.stopping.Stopped
        If a signal asked the fit of a large screen to stop.

    Examples
    --------
    >>> import pandas as pd, vihier
    >>> table = pd.DataFrame({"sgrna": list("abcd") * 2, "hugo_symbol": list("AABB") * 2, "lineage": "skin",
    ...     "depmap_id": ["ACH-1"] * 4 + ["ACH-2"] * 4, "lfc": [0.1, 0.2, -1.0, -1.1, 0.0, 0.1, -0.8, -1.2]})
    >>> posterior = vihier.fit(table, "gene_lineage", draws=200, quiet=True)
    >>> posterior.summary("effect", hugo_symbol="B")["mean"].between(-1.5, -0.5).all()
    np.True_
    """
    request = FitRequest(
        model=model,
        guide=guide,
        draws=draws,
        seed=seed,
        device=device,
        dtype=dtype,
        out=None if out is None else Path(out),
        priors=priors,
        likelihood=likelihood,
        noise=noise,
        nu=nu,
        dispersion=dispersion,
        covariates=covariates,
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
        request.check()
        return open_screen(screen, no_cache=no_cache, quiet=quiet)

    with joined() as workers:
        return fit_as_asked(open_by_all(workers, opened), request, workers)


def fit_as_asked(screen: Screen | ScreenStore, request: FitRequest, workers: Workers = ALONE) -> Posterior:
    """Do what `fit` does, its arguments in one object that was checked before the screen was read."""
    run = workers.in_turn(lambda: _Run.of(request, screen, workers))
    if request.out is None:
        folder = Path(tempfile.mkdtemp(prefix="vihier-"))
        try:
            run.write(folder / "fit.h5")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Posterior(folder / "fit.h5", owned_tempdir=folder)
    out, force = request.out, request.force
    there = workers.in_turn(lambda: None if force else open_if_same(out, run.screen_hash, run.config))
    if there is not None:
        if workers.is_first:
            Checkpoint(out, run.screen_hash, run.config).remove_if_same()
        return there
    run.write(request.out)
    return Posterior(request.out)


@dataclass(frozen=True)
class _Run:
    """Everything settled: what will run, on what, and how it is described."""

    asked: FitRequest
    program: Program
    screen: Screen | ScreenStore
    covariates: Mapping[str, PreparedCovariate]
    device: torch.device
    dtype: torch.dtype
    init: EarlierFit | None
    batch_size: int | None
    sites: Sites
    streamed: bool
    screen_hash: str
    config: str
    workers: Workers

    @classmethod
    def of(cls, asked: FitRequest, screen: Screen | ScreenStore, workers: Workers) -> _Run:
        covariates = chosen_covariates(asked.model, asked.covariates, screen.covariates)
        program = load_program(asked.model, asked.priors, chosen_likelihood(asked, screen), covariates)
        streamed = is_streamed(screen, asked, program)
        if workers.count > 1:
            check_workers(workers, screen, asked.batch_size, streamed, asked.out, program.likelihood.is_plain)
        if not isinstance(screen, Screen) and not streamed:
            screen = screen.to_screen()
        if program.likelihood.is_of_counts:
            assert isinstance(screen, Screen)
            check_counts(screen)
        given, prepared = screen, {}
        if isinstance(screen, Screen):
            prepared = fit_covariates(program, screen)
            screen = prepared_screen(screen, prepared)
        device = workers.device(resolve_device(asked.device))
        wide = asked.guide == "structured" and not streamed
        chosen = resolve_dtype(asked.dtype, torch.float64 if wide else torch.float32)
        with run_on(device, chosen, validate=True):
            # A few genes, and not all of them: mistakes in plates do not show on a whole screen.
            first = GeneBlocks(screen, max(1, min(8, screen.n_genes // 2)), device, chosen)[0]
            read = columns_read(program.model, first)
            sites = read_sites(program.model, first)
            check_prior_names(program.priors, sites.names)
        if workers.is_first:
            _warn_of_small(screen)
        earlier = None if asked.init is None else EarlierFit(asked.init, screen)
        size = asked.batch_size
        if size is None and asked.guide != "structured":
            size = min(ROWS_IN_PART, screen.n_rows) if asked.batch == "rows" else genes_in_block(screen)
        found = _hash(given, without_indicators(program, read))
        run = cls(asked, program, screen, prepared, device, chosen, earlier, size, sites, streamed, found, "", workers)
        return replace(run, config=to_toml(run._settings()))

    def _settings(self) -> dict[str, Any]:
        asked = self.asked
        settings: dict[str, Any] = {"model": self.program.name}
        if not isinstance(asked.model, str):
            settings["model_code"] = fingerprint(self.program.model)
        else:
            settings |= self.program.likelihood.settings
        settings["guide"] = asked.guide_name
        if callable(asked.guide):
            settings["guide_code"] = fingerprint(asked.guide)
        settings |= {"draws": asked.draws, "seed": asked.seed, "device": self.device.type}
        settings |= {"dtype": str(self.dtype).removeprefix("torch."), "batch": asked.batch}
        settings |= {"batch_size": self.batch_size, "max_steps": asked.max_steps}
        if self.streamed:
            settings["draws_disk_gb"] = float(asked.draws_disk_gb)
        if self.init is not None:
            settings |= {"init": str(self.init.posterior.path), "init_created_at": self.init.created_at}
        if self.covariates:
            settings["covariates"] = {name: str(each.preparation) for name, each in self.covariates.items()}
        return settings | ({"priors": dict(self.program.priors)} if self.program.priors else {})

    def write(self, path: Path) -> None:
        """Fit, and write the file."""
        asked, program = self.asked, self.program
        if self.streamed:
            self._write_streamed(path)
            return
        assert isinstance(self.screen, Screen)
        with open_progress(asked.quiet) as progress:
            fitted = self._fit(progress)
            blocks = GeneBlocks(self.screen, genes_at_once(self.screen, asked.draws), self.device, self.dtype)
            with run_on(self.device, self.dtype):
                plan = DrawPlan.of(program, self.sites, self.screen, blocks[0])
                attrs = {**self._attrs(), "reason": fitted.reason}
                with PosteriorWriter(path, labels=plan.labels, n_draws=asked.draws, attrs=attrs) as writer:
                    stats = write_draws(writer, plan, fitted, blocks, asked.draws, progress)
                    write_groups(writer, self.screen, fitted, stats)
                    write_covariates(writer, self.covariates)
                    writer.finish(
                        converged=fitted.converged,
                        not_identified={**program.not_identified, **fitted.not_identified},
                    )
        doubts = fitted.doubts(self.screen.index.genes) if isinstance(fitted, StructuredFit) else None
        if doubts is not None:
            warnings.warn(doubts, FitWarning, stacklevel=4)
        if not fitted.converged:
            warnings.warn(f"the fit did not converge: {fitted.reason}", FitWarning, stacklevel=4)

    def _attrs(self) -> dict[str, Any]:
        return {
            "model": self.program.name,
            "guide": self.asked.guide_name,
            "seed": self.asked.seed,
            "priors": dict(self.program.priors),
            "config": self.config,
            "screen_hash": self.screen_hash,
            "screen_source": self.screen.report.source if isinstance(self.screen, Screen) else str(self.screen.path),
        }

    def _write_streamed(self, path: Path) -> None:
        from vihier.inference.streamed_run import StreamedRun

        asked = self.asked
        run = StreamedRun(
            program=self.program,
            screen=self.screen,
            sites=self.sites,
            draws=asked.draws,
            seed=asked.seed,
            device=self.device,
            dtype=self.dtype,
            batch_size=asked.batch_size,
            max_steps=asked.max_steps,
            init=self._log_scales(),
            draws_disk_gb=asked.draws_disk_gb,
            attrs=self._attrs(),
            checkpoint_every=None if asked.out is None else asked.checkpoint_every,
            resume=asked.resume,
            force=asked.force,
            workers=self.workers,
        )
        with open_progress(asked.quiet or not self.workers.is_first) as progress:
            fitted = run.write(path, progress)
        if not fitted.converged and self.workers.is_first:
            warnings.warn(f"the fit did not converge: {fitted.reason}", FitWarning, stacklevel=5)

    def _log_scales(self) -> dict[str, torch.Tensor] | None:
        """Return the log-scales of the earlier fit to start from."""
        if self.init is None:
            return None
        with run_on(self.device, self.dtype):
            self.init.check(self.sites.latent)
            return self.init.log_scales(self.sites)

    def _fit(self, progress: Progress) -> Fitted:
        asked = self.asked
        assert isinstance(self.screen, Screen)
        if asked.guide == "structured":
            return self._fit_structured(progress)
        assert self.batch_size is not None
        batches: GeneBlocks | RowParts
        if asked.batch == "genes":
            batches = GeneBlocks(self.screen, self.batch_size, self.device, self.dtype)
        else:
            parts_seed = seed_of(asked.seed, "parts")
            batches = RowParts(self.screen, self.batch_size, parts_seed, self.device, self.dtype)
        fitter = fit_mean_field if isinstance(asked.guide, str) else fit_user_guide(asked.guide, self.sites)
        return fitter(
            self.program,
            self.screen,
            batches=batches,
            seed=asked.seed,
            device=self.device,
            dtype=self.dtype,
            progress=progress,
            max_steps=asked.max_steps,
            init=self.init,
        )

    def _fit_structured(self, progress: Progress) -> Fitted:
        from vihier.guides.structured_fit import fit_structured

        assert isinstance(self.screen, Screen)
        return fit_structured(
            self.program,
            self.screen,
            draws=self.asked.draws,
            seed=self.asked.seed,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            max_steps=self.asked.max_steps,
            init=self._log_scales(),
            progress=progress,
        )


def _hash(screen: Screen | ScreenStore, read: tuple[str, ...]) -> str:
    """SHA-256 of what a model reads of a screen; a store was hashed when it was packed."""
    if not isinstance(screen, Screen):
        lineage = () if screen.index.lineages is None else ("lineage",)
        if set(read) == {*lineage, *screen.covariates}:
            return screen.hash
    return screen.content_hash(read)


def _warn_of_small(screen: Screen | ScreenStore) -> None:
    for count, what in ((screen.n_genes, "gene"), (screen.n_lines, "cell line")):
        if count == 1:
            warnings.warn(
                f"the screen has one {what}: what is learned from the spread between {what}s (hyper-scales) rests on "
                "the prior",
                FitWarning,
                stacklevel=5,
            )
