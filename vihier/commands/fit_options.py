"""Options of `vihier fit`, in the groups that its help shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vihier.commands.arguments import GENES, LABELS, LINEAGES, LINES, MODEL_PANEL
from vihier.commands.run_file import take_run_file

_PART, _RUN = "Part of the screen", "The run"

Out = Annotated[Path, typer.Option(metavar="FIT.h5", help="Posterior file to write.")]

Model = Annotated[
    str, typer.Option(metavar="NAME", help="One of those that 'vihier models' lists.", rich_help_panel=MODEL_PANEL)
]
Guide = Annotated[
    Literal["structured", "mean_field"],
    typer.Option(
        help="Variational family: exact given the scales, or independent Normals.", rich_help_panel=MODEL_PANEL
    ),
]

Likelihood = Annotated[
    Literal["auto", "normal", "student_t", "negative_binomial"],
    typer.Option(
        help="How rows scatter; auto: student_t for whole screens, normal for small ones. negative_binomial: read "
        "counts (vihier import --keep-counts).",
        rich_help_panel=MODEL_PANEL,
    ),
]
Noise = Annotated[
    Literal["auto", "global", "screen", "line", "replicate"],
    typer.Option(
        help="What has a noise scale of its own; auto: replicate for whole screens, global for small ones.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Nu = Annotated[
    str,
    typer.Option(
        metavar="NU",
        help="Degrees of freedom of student_t, learned ('global', or by 'screen', or auto: by screen where there are "
        "several), or a number.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Dispersion = Annotated[
    str,
    typer.Option(
        metavar="PARTS",
        help="What the noise of counts has beside --noise, joined by '_': a factor for each 'sgrna' or 'gene', a power "
        "of the expected reads ('abundance'), rows that are noisier ('row'); or 'global', nothing. auto: "
        "'sgrna_abundance_row' for whole screens, nothing for small ones.",
        rich_help_panel=MODEL_PANEL,
    ),
]

Covariates = Annotated[
    list[str] | None,
    typer.Option(
        "--covariate",
        metavar="COLUMN=HOW",
        help="How a column is prepared, e.g. 'copy_number=centre | clip(-2,2)', or 'off'. Repeatable.",
        rich_help_panel=MODEL_PANEL,
    ),
]

Genes = Annotated[list[str] | None, typer.Option(*GENES, metavar=LABELS, help="Genes to keep.", rich_help_panel=_PART)]
Lines = Annotated[
    list[str] | None,
    typer.Option(*LINES, metavar=LABELS, help="Cell lines (depmap_id) to keep.", rich_help_panel=_PART),
]
Lineages = Annotated[
    list[str] | None, typer.Option(*LINEAGES, metavar=LABELS, help="Lineages to keep.", rich_help_panel=_PART)
]
NGenes = Annotated[int | None, typer.Option(metavar="N", help="Genes to draw at random.", rich_help_panel=_PART)]
NLineages = Annotated[int | None, typer.Option(metavar="N", help="Lineages to draw at random.", rich_help_panel=_PART)]
Where = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=VALUE", help="Rows to keep, e.g. screen=broad. Repeatable.", rich_help_panel=_PART),
]
SubsetSeed = Annotated[int, typer.Option(metavar="N", help="Seed of what is drawn at random.", rich_help_panel=_PART)]

Draws = Annotated[int, typer.Option(metavar="N", help="Posterior draws to write.", rich_help_panel=_RUN)]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same posterior.", rich_help_panel=_RUN)]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.", rich_help_panel=_RUN)]
Dtype = Annotated[
    Literal["float32", "float64"] | None,
    typer.Option(help="Precision; the guide's own choice when not given.", rich_help_panel=_RUN),
]
Batch = Annotated[
    Literal["genes", "rows"],
    typer.Option(help="What a minibatch is: all rows of some genes, or rows at random.", rich_help_panel=_RUN),
]
BatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="Genes, or rows, in a minibatch.", rich_help_panel=_RUN)
]
Init = Annotated[
    Path | None,
    typer.Option(metavar="OLD.h5", help="Start from an earlier fit, matched by label.", rich_help_panel=_RUN),
]
MaxSteps = Annotated[
    int | None, typer.Option(metavar="N", help="Stop after N steps, converged or not.", rich_help_panel=_RUN)
]
DRAWS_DISK_GB = 8.0
DrawsDisk = Annotated[
    float,
    typer.Option(
        metavar="GB",
        help="Room for draws over genes and lines of a large screen; what needs more is made again when asked for.",
        rich_help_panel=_RUN,
    ),
]
CHECKPOINT_MINUTES = 5.0
CheckpointEvery = Annotated[
    float,
    typer.Option(
        metavar="MINUTES",
        help="Between checkpoints of a large screen's fit; 0 for as often as can be.",
        rich_help_panel=_RUN,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on from the checkpoint of this fit, if there is one.", rich_help_panel=_RUN),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Pack a large table into a temporary store, not a kept one.", rich_help_panel=_RUN),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN.toml",
        is_eager=True,
        callback=take_run_file,
        help="Take options from a file, by their names; those given here as well count.",
        rich_help_panel=_RUN,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No report and no progress.", rich_help_panel=_RUN)]
Force = Annotated[
    bool, typer.Option("--force", help="Fit anew, and replace a file that holds another fit.", rich_help_panel=_RUN)
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with status 3 when the fit did not converge.", rich_help_panel=_RUN)
]
