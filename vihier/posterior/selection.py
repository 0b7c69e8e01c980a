"""From labels a user asks for to positions in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from vihier.errors import VihierError
from vihier.posterior.layout import PARENTS

Label = str | int
Selection = Mapping[str, Label | Sequence[Label]]


@dataclass(frozen=True)
class LabelIndex:
    """Labels of the dims of a file, read when first asked for, and the maps between nested dims.

    Parameters
    ----------
    dims : tuple of str
        Every dimension that has labels.
    read_labels : callable
        dim -> its labels [n], as stored.
    read_parents : callable
        dim -> position of each label's parent (the gene of an sgRNA, the lineage of a line), or None without a map.
    """

    dims: tuple[str, ...]
    read_labels: Callable[[str], np.ndarray]
    read_parents: Callable[[str], np.ndarray | None]
    _labels: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _places: dict[str, dict[Any, int]] = field(default_factory=dict, repr=False)

    def labels(self, dim: str) -> np.ndarray:
        """Labels of one dim; one line naming the nearest dim where there is none of that name."""
        if dim not in self.dims:
            raise VihierError(f"no dimension {shown(dim)}{nearest(dim, self.dims)}; there are {', '.join(self.dims)}")
        if dim not in self._labels:
            self._labels[dim] = self.read_labels(dim)
        return self._labels[dim]

    def positions(self, dim: str, wanted: Label | Sequence[Label]) -> np.ndarray:
        """Positions of labels along `dim`, in the order asked for, each once.

        Raises
        ------
        VihierError
            A label is not in the file (the message names the nearest one), or none is given.
        """
        labels = self.labels(dim)
        places = self._places.get(dim)
        if places is None:
            places = self._places[dim] = {label: place for place, label in enumerate(labels.tolist())}
        asked = [wanted] if isinstance(wanted, str | int | np.integer) else list(wanted)
        if not asked:
            raise VihierError(f"{dim}: no label given")
        numbered = labels.dtype.kind == "i"
        found: dict[int, None] = {}
        for label in asked:
            key = int(label) if numbered and _is_number(label) else label
            place = places.get(key) if isinstance(key, str | int | np.integer) else None
            if place is None:
                raise VihierError(f"{dim}: {shown(label)} is not in the file{nearest(label, labels)}")
            found[place] = None
        return np.fromiter(found, dtype=np.int64)

    def children(self, dim: str, wanted: Label | Sequence[Label]) -> np.ndarray:
        """Positions along `dim` of everything that lies in the wanted labels of its parent dim."""
        parent, variable = PARENTS[dim]
        parents = self.read_parents(dim)
        if parents is None:
            raise VihierError(f"{parent}: the file does not say which {parent} a {dim} has ({variable} is not in it)")
        return np.flatnonzero(np.isin(parents, self.positions(parent, wanted)))

    def resolve(
        self, variable: str, dims: Sequence[str], selection: Selection, *, lenient: bool = False
    ) -> list[np.ndarray | None]:
        """Positions along each dim of a variable.

        Parameters
        ----------
        variable : str
            Named in errors.
        dims : sequence of str
            Its index dims.
        selection : mapping of dim to label or labels
            A dim of the variable, or the parent of one: ``lineage`` selects lines, ``hugo_symbol`` selects sgRNAs.
        lenient : bool
            Pass over dims that do not concern this variable, instead of refusing them.

        Returns
        -------
        list of (int array or None)
            One per dim; None where nothing was asked of it.
        """
        positions: dict[str, np.ndarray | None] = dict.fromkeys(dims)
        # Labels of a dim itself come first, so that their order stays the one asked for.
        for dim, wanted in sorted(selection.items(), key=lambda item: item[0] not in dims):
            self.labels(dim)
            child = next((d for d in dims if d in PARENTS and PARENTS[d][0] == dim), None)
            found = {dim: self.positions(dim, wanted)} if dim in dims else {}
            if child is not None:
                found[child] = self.children(child, wanted)
            if not found and not lenient:
                raise VihierError(f"variable {variable!r} has no {dim}; it has {', '.join(dims) or 'no dimensions'}")
            for target, places in found.items():
                earlier = positions[target]
                both = places if earlier is None else earlier[np.isin(earlier, places)]
                if not len(both):
                    raise VihierError(f"variable {variable!r}: no {target} is in {shown(wanted)}")
                positions[target] = both
        return list(positions.values())


def _is_number(label: object) -> bool:
    return isinstance(label, int | np.integer) or (isinstance(label, str) and label.lstrip("-").isdecimal())


def shown(value: object) -> str:
    """Quote a value for a one-line message: without line breaks, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(wanted: object, known: Sequence[Any] | np.ndarray) -> str:
    """``; did you mean 'KRAS'?`` where something is near, else nothing."""
    if not isinstance(wanted, str) or len(wanted) > 200:
        return ""
    texts = {str(label).casefold(): label for label in known if len(str(label)) <= 200}
    found = get_close_matches(wanted.casefold(), list(texts), n=1, cutoff=0.5)
    return f"; did you mean {shown(texts[found[0]])}?" if found else ""
