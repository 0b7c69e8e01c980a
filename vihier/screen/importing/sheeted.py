"""Tables that name the gene of each sgRNA in their second column, with a sample sheet: MAGeCK's and BAGEL's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vihier.screen.faults import fault, shown
from vihier.screen.importing.library import Library
from vihier.screen.importing.long_table import OWN
from vihier.screen.importing.maps import SAMPLE_SHEET, read_map
from vihier.screen.importing.matrix import Quantity, read_matrix
from vihier.screen.importing.samples import Samples, from_sheet
from vihier.screen.importing.sgrnas import OnConflict, from_second_column


def read_sheeted(
    path: Path, folder: Path, quantity: Quantity, samples: Path | str, *, on_conflict: OnConflict
) -> Library:
    """Read a table of sgRNA, gene, and one column a sample.

    Parameters
    ----------
    path
        The table.
    folder
        Where the temporary file is made.
    quantity
        What its numbers are.
    samples
        A sample sheet, or the line that all its columns are replicates of.
    on_conflict
        An sgRNA with two genes: refuse, or leave it out and count it.

    Raises
    ------
    VihierError
        Whatever is wrong with a file, in one line.
    """
    sheet = read_map(samples, SAMPLE_SHEET, ("sample", "depmap_id")) if isinstance(samples, Path) else None
    if sheet is not None:
        taken = [name for name in sheet.others if name in OWN]
        if taken:
            problem = f"column {shown(taken[0])} of a sample sheet would stand for one of the screen's own"
            raise fault(sheet.source, problem, cure="rename it, or take it out")
    matrix = read_matrix(path, folder, quantity, with_genes=True)
    try:
        names = list(matrix.samples)
        if sheet is not None:
            of_samples = from_sheet(sheet, names, matrix.source)
        else:
            of_samples = replicates_of(str(samples), names)
        files = (path.name,) if sheet is None else (path.name, Path(sheet.source).name)
        sgrnas = from_second_column(matrix, on_conflict=on_conflict)
        return Library(matrix, of_samples, sgrnas, None, files)
    except BaseException:
        matrix.values.close()
        raise


def replicates_of(line: str, names: list[str]) -> Samples:
    """Return samples that are all replicates of one line."""
    labels = np.array(names, dtype=object)
    kept = np.ones(len(names), dtype=bool)
    lines, nothing = np.full(len(names), line, dtype=object), np.full(len(names), None, dtype=object)
    return Samples("", labels, lines, ~kept, kept, nothing, {"replicate_id": labels})
