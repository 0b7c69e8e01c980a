"""The way through the commands: what there is, in the order in which it is needed, with an example of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vihier.commands.check import check
from vihier.commands.compare import compare
from vihier.commands.contrast import contrast
from vihier.commands.export import export
from vihier.commands.fit import fit
from vihier.commands.hits import hits
from vihier.commands.import_screen import importing
from vihier.commands.models import models
from vihier.commands.pack import pack
from vihier.commands.plan import plan
from vihier.commands.plot import plot
from vihier.commands.predict import predict
from vihier.commands.qc import qc
from vihier.commands.refine import refine
from vihier.commands.report import report
from vihier.commands.sbc import sbc
from vihier.commands.simulate import simulate
from vihier.commands.summary import summary
from vihier.commands.validate import validate

_EXAMPLE_WIDTH = 41


@dataclass(frozen=True)
class Step:
    """A command on the way.

    Attributes
    ----------
    command
        The function behind it, or the app of its subcommands.
    example
        What follows ``vihier`` on a command line.
    purpose
        What it is for.
    """

    command: Callable[..., Any]
    example: str
    purpose: str

    @property
    def name(self) -> str:
        """Name of the command."""
        return self.example.split()[0]


WAY: dict[str, tuple[Step, ...]] = {
    "Data": (
        Step(simulate, "simulate screen.parquet", "make a screen to try things on, with its truth"),
        Step(importing, "import --help", "turn counts or fold changes of other tools into a table"),
        Step(validate, "validate screen.parquet", "see what is read of a table, what is dropped and why"),
        Step(qc, "qc screen.parquet", "judge replicates, lines, sgRNAs and batches before a fit"),
        Step(pack, "pack screen.parquet screen.h5", "put a screen of any size into a store that is read by gene"),
    ),
    "The fit": (
        Step(models, "models", "the models there are"),
        Step(plan, "plan screen.h5", "what a fit will take of memory, disk and time"),
        Step(fit, "fit screen.parquet --out fit.h5", "fit a model and write its posterior"),
    ),
    "Trust": (
        Step(check, "check fit.h5 --screen screen.parquet", "what a referee would ask of a fit: pass, warn or fail"),
        Step(refine, "refine fit.h5 --worst 20", "sample the genes that the guide is least sure of by NUTS"),
        Step(
            sbc,
            "sbc --screen-like screen.parquet --n-genes 10 --out sbc.jsonl",
            "screens of known truth, refitted: do intervals cover it?",
        ),
        Step(
            compare, "compare a.h5 b.h5 --screen screen.parquet", "which model predicts better: leave-one-out, held-out"
        ),
    ),
    "Answers": (
        Step(summary, "summary fit.h5 --var effect --out effect.csv", "one row per gene and line: mean, sd, interval"),
        Step(hits, "hits fit.h5", "the effects whose sign is sure"),
        Step(
            contrast,
            "contrast fit.h5 --lineage skin --against rest",
            "what some lines depend on more than others",
        ),
        Step(export, "export fit.h5 --out CRISPRGeneEffect.csv", "effects as a matrix of lines x genes, other tables"),
        Step(predict, "predict fit.h5 --new rows.csv", "what the fit expects of rows, also of new sgRNAs or lines"),
    ),
    "Pictures": (
        Step(plot, "plot fit.h5 heatmap --out effects.png", "one figure of a fit, of fourteen kinds"),
        Step(report, "report fit.h5 --out report.html", "all of it as one page for a browser"),
    ),
}


def overview_text() -> str:
    """Return what `vihier` alone says."""
    parts = ["vihier fits hierarchical Bayesian models to pooled CRISPR screens."]
    parts += [f"{group}:\n{_lines(steps)}" for group, steps in WAY.items() if steps]
    parts.append("Each command explains itself: vihier fit --help\n")
    return "\n\n".join(parts)


def _lines(steps: Iterable[Step]) -> str:
    lines = []
    for step in steps:
        example = f"vihier {step.example}"
        # An example that is too long for the column has a line of its own.
        if len(example) > _EXAMPLE_WIDTH:
            lines.append(f"  {example}")
            example = ""
        lines.append(f"  {example:<{_EXAMPLE_WIDTH}}  {step.purpose}")
    return "\n".join(lines)
