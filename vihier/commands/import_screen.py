"""`vihier import`: from the files that people have to the long table that the other commands read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vihier.commands import import_options as options
from vihier.commands.arguments import OnConflict

if TYPE_CHECKING:
    from vihier.screen.importing.mapped import MappedFiles
    from vihier.screen.importing.report import ImportReport

importing = typer.Typer(no_args_is_help=False)


@importing.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Turn counts or fold changes of other tools into a screen table.

    [b]Examples[/b]

    vihier import chronos AvanaReadcounts.hdf5 --out screen.parquet
    vihier import mageck counts.txt --samples samples.csv --out screen.parquet
    vihier import depmap AvanaLogfoldChange.csv --out screen.parquet
    vihier import bagel HCT116.foldchange --line HCT116 --out screen.csv
    vihier import h5ad screen.h5ad --out screen.parquet
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@importing.command()
def chronos(
    counts: Annotated[
        list[Path], typer.Argument(metavar="COUNTS", help="Matrix of counts of each library: HDF5 or CSV.")
    ],
    out: options.Out,
    sequence_map: options.SequenceMaps = None,
    guide_map: options.GuideMaps = None,
    screen: options.Screens = None,
    line_map: options.LineMap = None,
    copy_number: options.CopyNumber = None,
    passing_only: options.PassingOnly = False,
    all_sgrnas: options.AllSgrnas = False,
    on_conflict: OnConflict = "error",
    rpm: options.ReadsPerMillion = True,
    pseudocount: options.Pseudocount = 1.0,
    plasmid: options.Plasmid = True,
    min_plasmid: options.MinPlasmid = 0.0,
    keep_counts: options.KeepCounts = False,
    centre: options.Centre = "none",
    nonessential: options.Nonessential = None,
    as_json: options.AsJson = False,
) -> None:
    """Read counts in the layout of Chronos, or the portal's raw read counts.

    [b]Examples[/b]

    vihier import chronos AvanaReadcounts.hdf5 --line-map Model.csv --out screen.parquet
    vihier import chronos AvanaReadcounts.hdf5 KYReadcounts.hdf5 --screen broad --screen sanger --out both.parquet
    vihier import chronos AvanaRawReadcounts.csv --min-plasmid 1 --centre median --out screen.parquet
    vihier import chronos AvanaReadcounts.hdf5 --line-map Model.csv --keep-counts --out counts.parquet
    """
    centred = options.centring(centre, nonessential)
    how = options.normalisation(rpm, pseudocount, plasmid, min_plasmid, centred, keep_counts)
    files = _files(counts, sequence_map, guide_map, screen)
    from vihier.screen.importing import Choices, import_chronos

    choices = Choices(passing_only, all_sgrnas, on_conflict)
    _import(
        lambda table: import_chronos(
            files, table, normalisation=how, choices=choices, line_map=line_map, copy_number=copy_number
        ),
        out,
        as_json,
    )


@importing.command()
def depmap(
    fold_changes: Annotated[
        list[Path], typer.Argument(metavar="LFC", help="Matrix of log2 fold changes of each library, CSV.")
    ],
    out: options.Out,
    sequence_map: options.SequenceMaps = None,
    guide_map: options.GuideMaps = None,
    screen: options.Screens = None,
    line_map: options.LineMap = None,
    copy_number: options.CopyNumber = None,
    passing_only: options.PassingOnly = False,
    all_sgrnas: options.AllSgrnas = False,
    on_conflict: OnConflict = "error",
    centre: options.Centre = "none",
    nonessential: options.Nonessential = None,
    as_json: options.AsJson = False,
) -> None:
    """Log2 fold changes of the DepMap portal (sgRNA x replicate).

    [b]Examples[/b]

    vihier import depmap AvanaLogfoldChange.csv --out screen.parquet
    vihier import depmap AvanaLogfoldChange.csv KYLogfoldChange.csv --passing-only --out both.parquet
    """
    centred = options.centring(centre, nonessential)
    files = _files(fold_changes, sequence_map, guide_map, screen)
    from vihier.screen.importing import Choices, import_depmap

    choices = Choices(passing_only, all_sgrnas, on_conflict)
    _import(
        lambda table: import_depmap(
            files, table, centring=centred, choices=choices, line_map=line_map, copy_number=copy_number
        ),
        out,
        as_json,
    )


@importing.command()
def mageck(
    counts: Annotated[Path, typer.Argument(metavar="COUNTS", help="Table of sgRNA, gene, one column a sample.")],
    samples: options.Samples,
    out: options.Out,
    line_map: options.LineMap = None,
    copy_number: options.CopyNumber = None,
    on_conflict: OnConflict = "error",
    rpm: options.ReadsPerMillion = True,
    pseudocount: options.Pseudocount = 1.0,
    plasmid: options.Plasmid = True,
    min_plasmid: options.MinPlasmid = 0.0,
    keep_counts: options.KeepCounts = False,
    centre: options.Centre = "none",
    nonessential: options.Nonessential = None,
    as_json: options.AsJson = False,
) -> None:
    """Read counts in MAGeCK's table, with a sample sheet.

    [b]Example[/b]

    vihier import mageck leukemia.csv --samples samples.csv --out screen.parquet
    """
    centred = options.centring(centre, nonessential)
    how = options.normalisation(rpm, pseudocount, plasmid, min_plasmid, centred, keep_counts)
    from vihier.screen.importing import import_mageck

    _import(
        lambda table: import_mageck(
            counts,
            samples,
            table,
            normalisation=how,
            on_conflict=on_conflict,
            line_map=line_map,
            copy_number=copy_number,
        ),
        out,
        as_json,
    )


@importing.command()
def bagel(
    fold_changes: Annotated[
        Path, typer.Argument(metavar="FOLDCHANGE", help="Table of sgRNA, gene, one column of log2 fold changes each.")
    ],
    out: options.Out,
    samples: options.OptionalSamples = None,
    line: options.Line = None,
    line_map: options.LineMap = None,
    copy_number: options.CopyNumber = None,
    on_conflict: OnConflict = "error",
    centre: options.Centre = "none",
    nonessential: options.Nonessential = None,
    as_json: options.AsJson = False,
) -> None:
    """Log2 fold changes in BAGEL's table.

    [b]Examples[/b]

    vihier import bagel HCT116.foldchange --line HCT116 --out screen.csv
    vihier import bagel all.foldchange --samples samples.csv --out screen.parquet
    """
    of = options.samples_or_line(samples, line)
    centred = options.centring(centre, nonessential)
    from vihier.screen.importing import import_bagel

    _import(
        lambda table: import_bagel(
            fold_changes,
            of,
            table,
            centring=centred,
            on_conflict=on_conflict,
            line_map=line_map,
            copy_number=copy_number,
        ),
        out,
        as_json,
    )


@importing.command()
def h5ad(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="AnnData file: obs are replicates, var are sgRNAs.")],
    out: options.Out,
    layer: options.Layer = None,
    counts: options.Counts = False,
    line_map: options.LineMap = None,
    copy_number: options.CopyNumber = None,
    rpm: options.ReadsPerMillion = True,
    pseudocount: options.Pseudocount = 1.0,
    plasmid: options.Plasmid = True,
    min_plasmid: options.MinPlasmid = 0.0,
    keep_counts: options.KeepCounts = False,
    centre: options.Centre = "none",
    nonessential: options.Nonessential = None,
    as_json: options.AsJson = False,
) -> None:
    """AnnData: log2 fold changes, or counts with --counts.

    obs needs depmap_id, and with --counts role (initial or final); var needs hugo_symbol. Needs the extra anndata.

    [b]Examples[/b]

    vihier import h5ad screen.h5ad --out screen.parquet
    vihier import h5ad counts.h5ad --counts --layer raw --out screen.parquet
    """
    centred = options.centring(centre, nonessential)
    of_counts = options.normalisation(rpm, pseudocount, plasmid, min_plasmid, centred, keep_counts)
    from vihier.screen.importing import import_h5ad

    _import(
        lambda table: import_h5ad(
            data,
            table,
            how=of_counts if counts else centred,
            layer=layer,
            line_map=line_map,
            copy_number=copy_number,
        ),
        out,
        as_json,
    )


def _files(
    matrices: list[Path], sequence_maps: list[Path] | None, guide_maps: list[Path] | None, screens: list[str] | None
) -> MappedFiles:
    from vihier.screen.importing import MappedFiles

    return MappedFiles(tuple(matrices), tuple(sequence_maps or ()), tuple(guide_maps or ()), tuple(screens or ()))


def _import(read: Callable[[Path], ImportReport], out: Path, as_json: bool) -> None:
    report = _read_to_h5ad(read, out) if out.suffix == ".h5ad" else read(out)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
        return
    after = f"vihier validate {out}" if out.suffix != ".h5ad" else f"vihier import h5ad {out} --out screen.parquet"
    typer.echo("\n".join([*report.lines(), f"next: {after}"]))


def _read_to_h5ad(read: Callable[[Path], ImportReport], out: Path) -> ImportReport:
    """Import to a table, and turn it into an AnnData file, which is written whole and not row by row."""
    from vihier.screen.importing.h5ad import require_anndata, write_h5ad
    from vihier.screen.importing.long_table import check_out
    from vihier.screen.read import read_screen

    require_anndata()
    with tempfile.TemporaryDirectory(prefix=".vihier-import-", dir=check_out(out.with_suffix(".parquet"))) as folder:
        table = Path(folder) / "screen.parquet"
        report = read(table)
        write_h5ad(read_screen(table), out)
    return replace(report, out=str(out))
