"""`vihier plan`: what a fit will take, before it takes it."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vihier.commands import fit_options as options
from vihier.commands.arguments import AsJson, Columns, Priors, ScreenPath, number_or_text, pairs
from vihier.errors import ScreenWarning, VihierError

if TYPE_CHECKING:
    from vihier.inference.plan import FitPlan
    from vihier.inference.request import FitRequest
    from vihier.inference.sizes import Sizes


def plan(
    screen: ScreenPath,
    column: Columns = None,
    model: options.Model = "additive",
    prior: Priors = None,
    likelihood: options.Likelihood = "auto",
    noise: options.Noise = "auto",
    nu: options.Nu = "auto",
    dispersion: options.Dispersion = "auto",
    covariate: options.Covariates = None,
    draws: options.Draws = 1000,
    batch_size: options.BatchSize = None,
    draws_disk_gb: options.DrawsDisk = options.DRAWS_DISK_GB,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the posterior file will be: the disk that is asked for room.")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Say what a structured fit takes: memory, disk and time on this machine, from a probe of some seconds.

    Nothing is fitted. Of a screen that a fit would pass over only the labels are read, and rows are made up; one that
    it would hold in memory is read, and some of its genes are swept.

    [b]Examples[/b]

    vihier plan screen.h5
    vihier plan screen.parquet --model crossed --draws 500
    """
    mapping = pairs(column, "--column", "lfc=LFC")
    priors = pairs(prior, "--prior", "'mu_gamma=Normal(0,2)'")
    from vihier.inference.request import FitRequest
    from vihier.inference.sizes import sizes_of

    request = FitRequest(
        model=model,
        priors=priors or None,
        likelihood=likelihood,
        noise=noise,
        nu=number_or_text(nu),
        dispersion=dispersion,
        covariates=pairs(covariate, "--covariate", "'copy_number=centre | clip(-2,2)'") or None,
        draws=draws,
        batch_size=batch_size,
        draws_disk_gb=draws_disk_gb,
    )
    request.check()
    if not folder.is_dir():
        raise VihierError(f"--folder {folder}: no such folder; give one that is there")
    sizes = sizes_of(screen, mapping)
    found = _plan(screen, mapping, request, sizes, folder.resolve())
    problems = _problems(found, folder)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "screen": asdict(sizes),
                    **asdict(found),
                    "problems": problems,
                },
                indent=2,
            )
        )
        return
    for line in _lines(sizes, found, f"{model}, {found.likelihood} rows, noise {found.noise}"):
        typer.echo(line)
    for problem in problems:
        typer.echo(f"does not fit: {problem}")


def _plan(path: Path, columns: dict[str, str], request: FitRequest, sizes: Sizes, folder: Path) -> FitPlan:
    """Plan a fit that passes over its screen's genes, or that holds the screen, whichever it will be."""
    from vihier.guides.structured_fit import SWEPT_UP_TO
    from vihier.guides.swept_fit import check_held
    from vihier.inference.likelihoods import family_and_noise
    from vihier.inference.open_screen import is_passed_over
    from vihier.inference.plan import has_made_up_design, plan_streamed_fit
    from vihier.inference.plan_held import plan_held_fit
    from vihier.models.likelihood import Likelihood
    from vihier.models.program import load_program
    from vihier.screen import read_screen
    from vihier.store.store import is_hdf5, open_store

    rows = Likelihood(*family_and_noise(request, sizes.genes, sizes.lines))
    passed_over = is_passed_over(sizes.pairs, request.draws, rows)
    if sizes.pairs > SWEPT_UP_TO or passed_over:
        program = load_program(request.model, request.priors, rows)
        if passed_over and not has_made_up_design(program, sizes):
            room, size = request.draws_disk_gb, request.batch_size
            return plan_streamed_fit(
                program, sizes, draws=request.draws, draws_disk_gb=room, batch_size=size, folder=folder
            )
        check_held(sizes.pairs, request.draws, "plan", "all of which such a fit holds")
    if is_hdf5(path):
        with open_store(path) as store:
            return plan_held_fit(store.to_screen(), request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScreenWarning)
        screen = read_screen(path, columns=columns or None)
    return plan_held_fit(screen, request)


def _lines(sizes: Sizes, found: FitPlan, model: str) -> list[str]:
    pairs_are = "stored" if found.pairs_stored else "made again when asked for"
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.stages.items() if seconds >= 1)
    return [
        f"{sizes.rows:,} rows: {sizes.genes:,} genes, {sizes.sgrnas:,} sgRNAs, {sizes.lines:,} lines",
        f"{model}: {found.parameters:,} parameters; {found.blocks:,} blocks of genes",
        f"memory  {found.memory_gb:.1f} GB at most",
        f"disk    {found.disk_gb:.1f} GB, and {found.scratch_gb:.1f} GB while it runs; draws over genes and lines are "
        f"{pairs_are}",
        f"time    {_told(found.seconds)} ({stages})",
    ]


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _problems(found: FitPlan, folder: Path) -> list[str]:
    import shutil

    problems = []
    free = shutil.disk_usage(folder).free / 1e9
    needed = found.disk_gb + found.scratch_gb
    if needed > free:
        cure = "give less to --draws-disk-gb, or another --folder" if found.pairs_stored else "give another --folder"
        problems.append(f"{needed:.1f} GB of disk, and {free:.1f} GB are free in {folder.resolve()}; {cure}")
    memory = _memory_gb()
    if memory and found.memory_gb > memory:
        problems.append(
            f"{found.memory_gb:.1f} GB of memory, and {memory:.1f} GB are free; give fewer --draws or a smaller "
            "--batch-size"
        )
    return problems


def _memory_gb() -> float:
    """Memory that is free for a new process; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024 / 1e9
    except (OSError, StopIteration, ValueError, IndexError):
        return 0.0
