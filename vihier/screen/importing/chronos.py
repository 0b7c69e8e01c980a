"""Read counts in the layout of the Chronos package: a matrix, a sequence map and a guide map for each library.

DepMap's own ``AvanaRawReadcounts.csv`` with ``ScreenSequenceMap.csv`` and ``AvanaGuideMap.csv`` is of this kind too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vihier.screen.importing.long_table import check_out, write_long
from vihier.screen.importing.mapped import MappedFiles, close, read_libraries
from vihier.screen.importing.normalise import Normalisation
from vihier.screen.importing.report import ImportReport
from vihier.screen.importing.sgrnas import OnConflict


@dataclass(frozen=True)
class Choices:
    """What is kept of a mapped library.

    Attributes
    ----------
    passing_only
        Leave out replicates whose ``PassesQC`` is false.
    all_sgrnas
        Keep sgRNAs whose ``UsedByChronos`` is false.
    on_conflict
        An sgRNA with two genes: ``"error"`` refuses, ``"drop"`` leaves it out and counts it.
    """

    passing_only: bool = False
    all_sgrnas: bool = False
    on_conflict: OnConflict = "error"


def import_chronos(
    files: MappedFiles,
    out: Path,
    *,
    normalisation: Normalisation | None = None,
    choices: Choices | None = None,
    line_map: Path | None = None,
    copy_number: Path | None = None,
) -> ImportReport:
    r"""Write read counts of one or several libraries as one long table of log2 fold changes.

    Parameters
    ----------
    files
        Count matrices (HDF5 as Chronos writes it, or CSV; samples as rows or as columns) and their maps. A sample
        whose line is ``pDNA``, or whose ``ScreenType`` is, is of the plasmid pool.
    out
        ``.parquet``, ``.csv`` or ``.tsv`` (also ``.gz``).
    normalisation
        How counts become fold changes; by default log2(reads per million + 1) minus the mean of the plasmid batch.
    choices
        What is kept.
    line_map
        Table of lines with ``ModelID`` (or ``depmap_id``) and ``OncotreeLineage`` (or ``lineage``); ``Model.csv``
        beside the first matrix where it is not given.
    copy_number
        Matrix of lines by genes, carried into the column ``copy_number`` as it is.

    Raises
    ------
    VihierError
        Any fault of a file, in one line.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "TinyReadcounts.csv").write_text(",AAA,CCC\nr1,30,10\npool,20,20\n")
    >>> _ = (folder / "TinySequenceMap.csv").write_text(
    ...     "sequence_ID,cell_line_name,pDNA_batch\nr1,ACH-1,1\npool,pDNA,1\n"
    ... )
    >>> _ = (folder / "TinyGuideMap.csv").write_text("sgrna,gene\nAAA,KRAS (3845)\nCCC,BRAF (673)\n")
    >>> report = import_chronos(MappedFiles((folder / "TinyReadcounts.csv",)), folder / "tiny.csv")
    >>> report.n_rows, report.lfc
    (2, 'log2(reads per million + 1) minus the mean of its plasmid batch')
    >>> print((folder / "tiny.csv").read_text().splitlines()[0])
    sgrna,hugo_symbol,depmap_id,replicate_id,lfc,counts_final,counts_initial,p_dna_batch
    """
    normalisation, choices = normalisation or Normalisation(), choices or Choices()
    libraries = read_libraries(
        files,
        check_out(out),
        "count",
        needs_batch=normalisation.needs_plasmid,
        passing_only=choices.passing_only,
        all_sgrnas=choices.all_sgrnas,
        on_conflict=choices.on_conflict,
    )
    try:
        return write_long(
            libraries,
            out,
            normalisation,
            normalisation.describe(),
            line_map=files.line_map(line_map),
            copy_number=copy_number,
        )
    finally:
        close(libraries)
