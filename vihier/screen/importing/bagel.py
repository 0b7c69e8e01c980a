"""Log2 fold changes in BAGEL's table (``BAGEL.py fc``): REAGENT_ID, GENE, then one column a replicate."""

from __future__ import annotations

from pathlib import Path

from vihier.screen.importing.depmap import AS_THEY_ARE
from vihier.screen.importing.long_table import check_out, write_long
from vihier.screen.importing.normalise import Centring
from vihier.screen.importing.report import ImportReport
from vihier.screen.importing.sgrnas import OnConflict
from vihier.screen.importing.sheeted import read_sheeted


def import_bagel(
    fold_changes: Path,
    samples: Path | str,
    out: Path,
    *,
    centring: Centring | None = None,
    on_conflict: OnConflict = "error",
    line_map: Path | None = None,
    copy_number: Path | None = None,
) -> ImportReport:
    r"""Write a fold-change table as a long table.

    Parameters
    ----------
    fold_changes
        Tabs or commas: sgRNA, gene, then one column of log2 fold changes a replicate.
    samples
        Path of a sample sheet (as in ``import_mageck``), or the name of the line that all columns are replicates of.
    out, on_conflict, line_map, copy_number
        As in ``import_mageck``.
    centring
        What is subtracted from each replicate; nothing by default.

    Raises
    ------
    VihierError
        Any fault of a file, in one line.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> table = "REAGENT_ID\tGENE\tT18_A\tT18_B\ns1\tKRAS\t-1.5\t-1.25\ns2\tBRAF\t0.5\t0.125\n"
    >>> _ = (folder / "HCT116.foldchange").write_text(table)
    >>> import_bagel(folder / "HCT116.foldchange", "HCT116", folder / "screen.csv").n_rows
    4
    """
    centring = centring or Centring()
    library = read_sheeted(fold_changes, check_out(out), "log fold change", samples, on_conflict=on_conflict)
    try:
        what = ", ".join(filter(None, [AS_THEY_ARE, centring.describe()]))
        return write_long([library], out, centring, what, line_map=line_map, copy_number=copy_number)
    finally:
        library.matrix.values.close()
