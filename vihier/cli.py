"""The command line: its way in, and what is said when a command is refused or fails."""

from __future__ import annotations

import _thread
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

from vihier.commands.messages import say, worker
from vihier.commands.overview import WAY, overview_text
from vihier.errors import Stopped, VihierError

REFUSED = 2
INTERRUPTED = 130
# A signal asked a fit to stop: EX_TEMPFAIL of sysexits.h, try again.
STOPPED = 75
AGAIN_SECONDS = 0.05

# The direct base of BadParameter is what every refusal of typer's parser derives from, whether this version of typer
# brings its own copy of click or depends on click.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="vihier",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Fit hierarchical Bayesian models to pooled CRISPR screens.

    [b]Example[/b]

    vihier simulate screen.parquet
    vihier fit screen.parquet --out fit.h5
    vihier summary fit.h5 --var effect --out effect.csv
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"vihier {installed('vihier')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(overview_text(), nl=False)


for _group, _steps in WAY.items():
    for _step in _steps:
        if isinstance(_step.command, typer.Typer):
            app.add_typer(_step.command, name=_step.name, rich_help_panel=_group)
        else:
            app.command(_step.name, rich_help_panel=_group)(_step.command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        What stands after ``vihier``; those of this process when None.

    Returns
    -------
    int
        Exit status: 0; 2 for refused input or arguments, with one line on standard error; 3 for a fit that did not
        converge, with ``--strict``; 75 when a signal stopped a fit that can go on; 130 when interrupted.

    Examples
    --------
    >>> main(["models", "--graph", "additive.dot"])  # which model's is not said: refused
    2
    """
    command = typer.main.get_command(app)
    with warnings.catch_warnings(), interrupts_heeded():
        warnings.showwarning = _say_warning
        try:
            status = command.main(args=arguments, prog_name="vihier", standalone_mode=False)
        except VihierError as error:
            return _refuse(str(error))
        except Stopped as stopped:
            if not worker():  # what concerns all workers is said by the first
                say(str(stopped))
            status = STOPPED
        except _USAGE_ERROR as error:
            if worker():
                return REFUSED
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "vihier"
            said = error.format_message().replace(": Value error, ", ": ")
            return _refuse(f"{said} (see {path} --help)")
        except OSError as error:
            return _refuse(_describe_os_error(error))
        except (KeyboardInterrupt, typer.Abort):
            status = INTERRUPTED
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            return _refuse(f"out of memory: {error}; use a machine with more, a smaller --batch-size, or fewer --draws")
    if status == INTERRUPTED and not worker():
        say("interrupted")
    return status or 0


@contextmanager
def interrupts_heeded() -> Iterator[None]:
    """Interrupt again where Ctrl-C came while an object was being deleted, as Python would print it and go on."""
    before = sys.unraisablehook

    def heed(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not here, where it would be lost as well.
            threading.Timer(AGAIN_SECONDS, _thread.interrupt_main).start()
        else:
            before(unraisable)

    sys.unraisablehook = heed
    try:
        yield
    finally:
        sys.unraisablehook = before


def _refuse(text: str) -> int:
    say(text)
    return REFUSED


def _is_out_of_memory(error: Exception) -> bool:
    # torch says it in two ways: a class of its own on a GPU, and a plain RuntimeError on the CPU.
    by_name = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return by_name or "can't allocate memory" in str(error)


def _describe_os_error(error: OSError) -> str:
    # h5py puts its own text in place of the system's, without a file name and over several lines.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not worker():
        say(f"warning: {message}")
