"""Libraries whose samples and sgRNAs are described by maps beside the matrix: the layouts of Chronos and of DepMap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vihier.errors import VihierError
from vihier.screen.importing.library import Library
from vihier.screen.importing.maps import GUIDE_MAP, SEQUENCE_MAP, find_beside, library_of, read_map
from vihier.screen.importing.matrix import Quantity, read_matrix
from vihier.screen.importing.samples import from_sequence_map
from vihier.screen.importing.sgrnas import OnConflict, from_guide_map

SEQUENCE_MAPS = ("{}SequenceMap.csv", "{}_sequence_map.csv", "ScreenSequenceMap.csv", "{}_replicate_map.csv")
GUIDE_MAPS = ("{}GuideMap.csv", "{}_guide_map.csv")
LINE_MAP_NAME = "Model.csv"


@dataclass(frozen=True)
class MappedFiles:
    """The files of one or several libraries.

    Attributes
    ----------
    matrices
        One for each library.
    sequence_maps, guide_maps
        One for each matrix, in the same order; or none, where they lie beside the matrices and are named like them.
    screens
        The label of each library in the column ``screen``; none: what its file's name begins with, where there are
        several libraries, and no such column for a single one.

    Raises
    ------
    VihierError
        Another number of maps or labels than of matrices, or a label twice.
    """

    matrices: tuple[Path, ...]
    sequence_maps: tuple[Path, ...] = ()
    guide_maps: tuple[Path, ...] = ()
    screens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.matrices)
        if not n:
            raise VihierError("no matrix is given; name the file of each library")
        for option, given in (
            ("--sequence-map", self.sequence_maps),
            ("--guide-map", self.guide_maps),
            ("--screen", self.screens),
        ):
            if given and len(given) != n:
                raise VihierError(f"{option} is given {len(given)} times for {n} matrices; give one for each, in order")
        labels = self.labels()
        if len(set(labels)) < len(labels):
            raise VihierError(f"two libraries would both be screen {labels[0]!r}; name them apart with --screen")

    def labels(self) -> tuple[str | None, ...]:
        """Return the label of each library in the column ``screen``."""
        if self.screens:
            return self.screens
        if len(self.matrices) == 1:
            return (None,)
        return tuple(library_of(path).strip("_") or path.name for path in self.matrices)

    def line_map(self, given: Path | None) -> Path | None:
        """Return the table of lines that is given, or the one beside the first matrix, if there is one."""
        beside = self.matrices[0].parent / LINE_MAP_NAME
        return given or (beside if beside.is_file() else None)


def read_libraries(
    files: MappedFiles,
    folder: Path,
    quantity: Quantity,
    *,
    needs_batch: bool,
    passing_only: bool,
    all_sgrnas: bool,
    on_conflict: OnConflict,
) -> list[Library]:
    """Read matrices and their maps.

    Parameters
    ----------
    files
        What to read.
    folder
        Where temporary files are made.
    quantity
        What the matrices hold.
    needs_batch
        Whether the sequence map must name plasmid batches.
    passing_only, all_sgrnas, on_conflict
        As in ``from_sequence_map`` and ``from_guide_map``.

    Raises
    ------
    VihierError
        Whatever is wrong with a file, in one line.
    """
    libraries: list[Library] = []
    try:
        for place, path in enumerate(files.matrices):
            sequence_path = _map(files.sequence_maps, place, path, SEQUENCE_MAPS, "--sequence-map")
            guide_path = _map(files.guide_maps, place, path, GUIDE_MAPS, "--guide-map")
            required = {"sample", "depmap_id"} | ({"p_dna_batch"} if needs_batch else set())
            sequences = read_map(sequence_path, SEQUENCE_MAP, required)
            guides = read_map(guide_path, GUIDE_MAP, ("sgrna", "hugo_symbol"))
            known = [name for name in sequences.labels("sample") if name is not None]
            matrix = read_matrix(path, folder, quantity, samples=known)
            try:
                samples = from_sequence_map(sequences, list(matrix.samples), matrix.source, passing_only=passing_only)
                sgrnas = from_guide_map(guides, matrix, all_sgrnas=all_sgrnas, on_conflict=on_conflict)
            except BaseException:
                matrix.values.close()
                raise
            read = tuple(each.name for each in (path, sequence_path, guide_path))
            libraries.append(Library(matrix, samples, sgrnas, files.labels()[place], read))
    except BaseException:
        close(libraries)
        raise
    return libraries


def close(libraries: Sequence[Library]) -> None:
    """Remove the temporary files of libraries."""
    for library in libraries:
        library.matrix.values.close()


def _map(given: Sequence[Path], place: int, path: Path, kinds: Sequence[str], option: str) -> Path:
    return given[place] if given else find_beside(path, kinds, option)
