"""Log2 fold changes as the DepMap portal offers them: ``AvanaLogfoldChange.csv``, guide map, sequence map, models."""

from __future__ import annotations

from pathlib import Path

from vihier.screen.importing.chronos import Choices
from vihier.screen.importing.long_table import check_out, write_long
from vihier.screen.importing.mapped import MappedFiles, close, read_libraries
from vihier.screen.importing.normalise import Centring
from vihier.screen.importing.report import ImportReport

AS_THEY_ARE = "log2 fold changes of the file"


def import_depmap(
    files: MappedFiles,
    out: Path,
    *,
    centring: Centring | None = None,
    choices: Choices | None = None,
    line_map: Path | None = None,
    copy_number: Path | None = None,
) -> ImportReport:
    r"""Write wide matrices of log2 fold changes (sgRNA x replicate) as one long table.

    Parameters
    ----------
    files
        Matrices and their maps. Beside ``AvanaLogfoldChange.csv``, ``AvanaGuideMap.csv`` and ``ScreenSequenceMap.csv``
        are found by themselves.
    out, choices, line_map, copy_number
        As in ``import_chronos``.
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
    >>> _ = (folder / "TinyLogfoldChange.csv").write_text(",r1,r2\nAAA,-1.5,-1\nCCC,0.25,\n")
    >>> _ = (folder / "ScreenSequenceMap.csv").write_text("SequenceID,ModelID\nr1,ACH-1\nr2,ACH-1\n")
    >>> _ = (folder / "TinyGuideMap.csv").write_text("sgRNA,Gene\nAAA,KRAS (3845)\nCCC,BRAF (673)\n")
    >>> print(import_depmap(MappedFiles((folder / "TinyLogfoldChange.csv",)), folder / "tiny.parquet").n_rows)
    3
    """
    centring, choices = centring or Centring(), choices or Choices()
    libraries = read_libraries(
        files,
        check_out(out),
        "log fold change",
        needs_batch=False,
        passing_only=choices.passing_only,
        all_sgrnas=choices.all_sgrnas,
        on_conflict=choices.on_conflict,
    )
    try:
        return write_long(
            libraries,
            out,
            centring,
            ", ".join(filter(None, [AS_THEY_ARE, centring.describe()])),
            line_map=files.line_map(line_map),
            copy_number=copy_number,
        )
    finally:
        close(libraries)
