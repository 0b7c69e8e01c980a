"""The options of `vihier import`: what each takes and says in `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vihier.errors import VihierError

if TYPE_CHECKING:
    from vihier.screen.importing.normalise import Centring, Normalisation

_MAPS = "What the samples, sgRNAs and lines are"
_NUMBERS = "How the numbers become log2 fold changes"

Out = Annotated[
    Path, typer.Option(metavar="TABLE", help="Table to write: .parquet, .csv or .tsv (also .gz), or .h5ad.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

SequenceMaps = Annotated[
    list[Path] | None,
    typer.Option(
        "--sequence-map",
        metavar="CSV",
        help="Sample to line, plasmid batch and days; once for each matrix. By default the one beside it: "
        "AvanaSequenceMap.csv beside AvanaReadcounts.hdf5, or ScreenSequenceMap.csv.",
        rich_help_panel=_MAPS,
    ),
]
GuideMaps = Annotated[
    list[Path] | None,
    typer.Option(
        "--guide-map",
        metavar="CSV",
        help="sgRNA to gene; once for each matrix. By default the one beside it, such as AvanaGuideMap.csv.",
        rich_help_panel=_MAPS,
    ),
]
Screens = Annotated[
    list[str] | None,
    typer.Option(
        "--screen",
        metavar="NAME",
        help="Label of the library in the column 'screen'; once for each matrix.",
        rich_help_panel=_MAPS,
    ),
]
Samples = Annotated[
    Path,
    typer.Option(
        metavar="CSV",
        help="Sample sheet: sample, depmap_id, role (initial or final), and optionally p_dna_batch, replicate_id, "
        "lineage, and what is to be carried along.",
        rich_help_panel=_MAPS,
    ),
]
OptionalSamples = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Sample sheet: sample, depmap_id, and optionally replicate_id, lineage, and what is to be carried along.",
        rich_help_panel=_MAPS,
    ),
]
Line = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The line that all columns are replicates of.", rich_help_panel=_MAPS),
]
LineMap = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Line to lineage: ModelID and OncotreeLineage (the portal's Model.csv), or depmap_id and lineage.",
        rich_help_panel=_MAPS,
    ),
]
CopyNumber = Annotated[
    Path | None,
    typer.Option(
        metavar="MATRIX",
        help="Lines by genes, carried as it is into 'copy_number'; CSV or HDF5.",
        rich_help_panel=_MAPS,
    ),
]
Layer = Annotated[str | None, typer.Option(metavar="NAME", help="The layer that has the values, in place of X.")]
Counts = Annotated[bool, typer.Option("--counts", help="The values are counts.")]
PassingOnly = Annotated[
    bool,
    typer.Option("--passing-only", help="Leave out replicates whose PassesQC is false.", rich_help_panel=_MAPS),
]
AllSgrnas = Annotated[
    bool,
    typer.Option("--all-sgrnas", help="Keep sgRNAs whose UsedByChronos is false.", rich_help_panel=_MAPS),
]

ReadsPerMillion = Annotated[
    bool,
    typer.Option(
        "--rpm/--no-rpm", help="Divide counts by the sample's total, times a million.", rich_help_panel=_NUMBERS
    ),
]
Pseudocount = Annotated[float, typer.Option(metavar="X", help="Added before the logarithm.", rich_help_panel=_NUMBERS)]
Plasmid = Annotated[
    bool,
    typer.Option(
        "--plasmid/--no-plasmid",
        help="Subtract the mean of the plasmid (initial) samples of the replicate's batch.",
        rich_help_panel=_NUMBERS,
    ),
]
MinPlasmid = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Leave out an sgRNA where its plasmid batch has fewer reads per million of it (DepMap takes 1).",
        rich_help_panel=_NUMBERS,
    ),
]
KeepCounts = Annotated[
    bool,
    typer.Option(
        "--keep-counts",
        help="Also write the reads expected of each value, for 'vihier fit --likelihood negative_binomial'; values of "
        "sgRNAs without plasmid reads are left out.",
        rich_help_panel=_NUMBERS,
    ),
]
Centre = Annotated[
    Literal["none", "median", "nonessential"],
    typer.Option(
        help="Subtract each replicate's median, over all sgRNAs or those of non-essential genes.",
        rich_help_panel=_NUMBERS,
    ),
]
Nonessential = Annotated[
    Path | None,
    typer.Option(
        metavar="GENES",
        help="List of non-essential genes, for --centre nonessential: one a line, or a column 'gene'.",
        rich_help_panel=_NUMBERS,
    ),
]


def centring(on: Literal["none", "median", "nonessential"], nonessential: Path | None) -> Centring:
    """Read what the options say of centring."""
    from vihier.screen.importing.maps import read_genes
    from vihier.screen.importing.normalise import Centring

    genes = frozenset() if nonessential is None else read_genes(nonessential)
    return Centring(on, genes)


def normalisation(
    rpm: bool, pseudocount: float, plasmid: bool, min_plasmid: float, centred: Centring, keep_counts: bool
) -> Normalisation:
    """Read what the options say of counts."""
    from vihier.screen.importing.normalise import Normalisation

    return Normalisation(rpm, pseudocount, plasmid, min_plasmid, centred, keep_counts)


def samples_or_line(samples: Path | None, line: str | None) -> Path | str:
    """Return the one of the two that is given."""
    if samples is not None and line is None:
        return samples
    if line is not None and line.strip() and samples is None:
        return line.strip()
    raise VihierError("which line are the columns of? give either --samples SHEET.csv or --line NAME")
