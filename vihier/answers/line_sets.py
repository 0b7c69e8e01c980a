"""Sets of cell lines: by lineage, by name, from a file, or all others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vihier.answers.effect_draws import lineages
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior
from vihier.screen.faults import fault, nearest, shown

REST = "rest"
FILE_MARK = "@"
LINE_COLUMNS = ("depmap_id", "ModelID", "line", "cell_line")


def lines_of(post: Posterior, names: Iterable[str]) -> list[str]:
    """Return the lines that names stand for, in the order of the file, each once.

    Parameters
    ----------
    post
        The fit.
    names
        Each a lineage, a line, or ``@FILE``: a list of lines, one a line under a header, or a table with a column
        `depmap_id` or `ModelID`. Lines of a file that the fit does not have are passed over.

    Raises
    ------
    VihierError
        A name that is neither a lineage nor a line, or is both; a file that cannot be read or names no line of the fit.
    """
    known = post.labels("depmap_id")
    chosen = np.zeros(len(known), dtype=bool)
    for name in names:
        chosen |= _lines_of_file(name, known) if name.startswith(FILE_MARK) else _lines_of_name(post, name, known)
    return known[chosen].tolist()


def lines_of_lineages(post: Posterior, names: Sequence[str]) -> list[str]:
    """Return the lines of lineages, in the order of the file.

    Raises
    ------
    VihierError
        The fit knows no lineages, or not one of these.
    """
    known, of_line = lineages(post)
    for name in names:
        if name not in known:
            raise VihierError(f"lineage {shown(name)} is not in the fit{nearest(name, known)}; it has {_listed(known)}")
    return post.labels("depmap_id")[np.isin(known[of_line], list(names))].tolist()


def other_lines(post: Posterior, lines: Sequence[str]) -> list[str]:
    """Return all lines but these.

    Raises
    ------
    VihierError
        There are no others.
    """
    known = post.labels("depmap_id")
    rest = known[~np.isin(known, list(lines))].tolist()
    if not rest:
        raise VihierError(f"all {len(known)} lines of the fit are in the set; there is no rest to compare it with")
    return rest


def _lines_of_name(post: Posterior, name: str, known: np.ndarray) -> np.ndarray:
    of_lineage = np.zeros(len(known), dtype=bool)
    names: np.ndarray = np.array([], dtype=object)
    if "lineage_of_line" in post.group("index"):
        names, of_line = lineages(post)
        of_lineage = names[of_line] == name
    is_line = known == name
    if of_lineage.any() and is_line.any():
        raise VihierError(f"{shown(name)} is a lineage and a line; list lines in a file, and give it as @FILE")
    if not (of_lineage.any() or is_line.any()):
        near = nearest(name, [*names, *known])
        lineages_there = f"; the lineages are {_listed(names)}" if len(names) else ""
        raise VihierError(f"{shown(name)} is neither a lineage nor a line of the fit{near}{lineages_there}")
    return of_lineage | is_line


def _lines_of_file(name: str, known: np.ndarray) -> np.ndarray:
    from vihier.screen.importing.maps import read_list

    path = Path(name.removeprefix(FILE_MARK))
    listed = read_list(path, LINE_COLUMNS)
    found = np.isin(known, listed)
    if not found.any():
        problem = f"none of the {len(listed):,} lines in it is in the fit"
        raise fault(str(path), problem, cure=f"list them by depmap_id, such as {shown(known[0])}")
    return found


def _listed(names: np.ndarray) -> str:
    return ", ".join(map(str, names[:20])) + (", ..." if len(names) > 20 else "")
