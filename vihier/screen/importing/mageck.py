"""Read counts in MAGeCK's table: sgRNA, gene, then one column a sample; a sample sheet says what each is."""

from __future__ import annotations

from pathlib import Path

from vihier.screen.importing.long_table import check_out, write_long
from vihier.screen.importing.normalise import Normalisation
from vihier.screen.importing.report import ImportReport
from vihier.screen.importing.sgrnas import OnConflict
from vihier.screen.importing.sheeted import read_sheeted


def import_mageck(
    counts: Path,
    samples: Path,
    out: Path,
    *,
    normalisation: Normalisation | None = None,
    on_conflict: OnConflict = "error",
    line_map: Path | None = None,
    copy_number: Path | None = None,
) -> ImportReport:
    r"""Write a count table as a long table of log2 fold changes.

    Parameters
    ----------
    counts
        ``mageck count``'s table, tabs or commas: sgRNA, gene, then one column of counts a sample.
    samples
        Sample sheet: ``sample`` (the column's name), ``depmap_id`` (its line), ``role`` (``initial``: plasmid or first
        time point; or ``final``), and optionally ``p_dna_batch`` (which initial samples belong to which final ones;
        without it all do), ``replicate_id``, ``lineage`` and whatever is to be carried along.
    out, normalisation, line_map, copy_number
        As in ``import_chronos``.
    on_conflict
        An sgRNA with two genes: ``"error"`` refuses, ``"drop"`` leaves it out and counts it.

    Raises
    ------
    VihierError
        Any fault of a file, in one line.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "counts.txt").write_text("sgRNA\tGene\tT0\tT14\ns1\tKRAS\t10\t5\ns2\tKRAS\t30\t15\n")
    >>> _ = (folder / "samples.csv").write_text("sample,depmap_id,role\nT0,HL60,initial\nT14,HL60,final\n")
    >>> report = import_mageck(folder / "counts.txt", folder / "samples.csv", folder / "screen.csv")
    >>> report.n_rows, report.n_replicates
    (2, 1)
    """
    normalisation = normalisation or Normalisation()
    library = read_sheeted(counts, check_out(out), "count", samples, on_conflict=on_conflict)
    try:
        what = normalisation.describe()
        return write_long([library], out, normalisation, what, line_map=line_map, copy_number=copy_number)
    finally:
        library.matrix.values.close()
