"""What a posterior file of a program holds: each variable, its dims, and the labels of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.labels import labels_of_dims
from vihier.inference.sites import FILE_DIMS, Site, Sites
from vihier.models.batch import Batch
from vihier.models.program import Program
from vihier.posterior.layout import INDEX_DIMS, ordered_dims
from vihier.screen import Screen

if TYPE_CHECKING:
    from vihier.store.store import ScreenStore

GENE_LINE = ("hugo_symbol", "depmap_id")
_LOCAL_DIMS = ("hugo_symbol", "sgrna")


@dataclass(frozen=True)
class Variable:
    """A variable of the file and how values of the program become it.

    Attributes
    ----------
    name
        Its name.
    axes
        Dim of each axis of the program's value; None for one of length 1 that the file leaves out.
    """

    name: str
    axes: tuple[str | None, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """Its dims in the order of the file."""
        return tuple(ordered_dims(dim for dim in self.axes if dim is not None))

    @property
    def is_local(self) -> bool:
        """Whether a gene block holds a part of it."""
        return any(dim in _LOCAL_DIMS for dim in self.axes)

    def positions(self, batch: Batch) -> np.ndarray | None:
        """Positions of a batch's part along the first dim; None for a variable that no gene owns."""
        if not self.is_local:
            return None
        index = batch.sgrna_idx if "sgrna" in self.axes else batch.gene_idx
        return index.cpu().numpy()

    def to_file(self, values: torch.Tensor) -> np.ndarray:
        """Bring draws [n, *axes] to [n, *dims], on the CPU."""
        values = values[(slice(None), *(0 if dim is None else slice(None) for dim in self.axes))]
        named = [dim for dim in self.axes if dim is not None]
        return values.permute(0, *(named.index(dim) + 1 for dim in self.dims)).cpu().numpy()


def variables_of_sites(sites: Sequence[Site]) -> list[Variable]:
    """Return the variables that latent or deterministic sites are written as."""
    return [Variable(site.name, site.axis_dims()) for site in sites]


def variables_of_derived(program: Program, sites: Sites, batch: Batch) -> list[Variable]:
    """Return the variables that `program.derived` computes, their axes found by running it on made-up sizes.

    Every dim gets a length that no other has, so that the shapes of what comes out say which axis is which.

    Raises
    ------
    VihierError
        If an axis of a derived variable is of no dim.
    """
    if program.derived is None:
        return []
    latent = sites.latent
    others = {
        dim: size
        for site in latent
        for dim, size in zip(site.axis_dims(), site.shape, strict=True)
        if dim is not None and dim not in INDEX_DIMS
    }
    free = [size for size in (11, 13, 17, 19, 23, 29, 31, 37) if size not in others.values()]
    sizes: dict[str, int] = {**dict(zip(INDEX_DIMS, free, strict=False)), **others}
    draw = {
        site.name: torch.ones([1 if dim is None else sizes[dim] for dim in site.axis_dims()]).to(batch.gene_idx.device)
        for site in latent
    }
    dim_of_size = {size: dim for dim, size in sizes.items()}
    found = []
    for name, value in program.derived(draw, _made_up(batch, sizes)).items():
        strange = [size for size in value.shape if size != 1 and size not in dim_of_size]
        if strange:
            raise VihierError(f"derived variable {name!r} of model {program.name!r}: no plate has its shape")
        found.append(Variable(name, tuple(dim_of_size.get(size) for size in value.shape)))
    return found


def _made_up(batch: Batch, sizes: Mapping[str, int]) -> Batch:
    device = batch.gene_idx.device

    def cycle(dim: str, length: int) -> torch.Tensor:
        return torch.arange(length, device=device) % sizes[dim]

    genes, sgrnas, lines = sizes["hugo_symbol"], sizes["sgrna"], sizes["depmap_id"]
    has_lineages = batch.lineages_of_lines is not None
    return replace(
        batch.with_one_row(),
        n_genes=genes,
        n_sgrnas=sgrnas,
        n_lines=lines,
        gene_idx=cycle("hugo_symbol", genes),
        sgrna_idx=cycle("sgrna", sgrnas),
        line_idx=cycle("depmap_id", lines),
        gene_of_sgrna=cycle("hugo_symbol", sgrnas),
        lineages=sizes["lineage"],
        lineages_of_lines=cycle("lineage", lines) if has_lineages else None,
    )


@dataclass(frozen=True)
class EffectParts:
    """`effect_gene` and `effect_dev` of a program whose `effect` is of gene x line.

    Attributes
    ----------
    line_axis
        Axis of `effect` that is of lines.
    variables
        Those of the two that the program does not have itself.
    """

    line_axis: int
    variables: tuple[Variable, ...]

    @classmethod
    def of(cls, known: Sequence[Variable]) -> EffectParts | None:
        """Find `effect` among the variables of a program."""
        by_name = {variable.name: variable for variable in known}
        effect = by_name.get("effect")
        if effect is None or effect.dims != GENE_LINE:
            return None
        line_axis = effect.axes.index("depmap_id")
        axes = tuple(None if axis == line_axis else dim for axis, dim in enumerate(effect.axes))
        added = (Variable("effect_gene", axes), Variable("effect_dev", effect.axes))
        return cls(line_axis, tuple(variable for variable in added if variable.name not in by_name))

    def values(self, effect: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split draws of `effect`, [n, *axes], into its mean over lines and the rest."""
        mean = effect.mean(1 + self.line_axis, keepdim=True)
        both = {"effect_gene": mean, "effect_dev": effect - mean}
        return {variable.name: both[variable.name] for variable in self.variables}


def labels_of(
    screen: Screen | ScreenStore, sites: Sites, own: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Return the labels of every dim that a program's variables have: those of the screen, and of a user's own plates.

    A plate named `replicate`, or like a categorical covariate, and as long, has its labels; a dim of the program's
    `own` those; any other is numbered.
    """
    known = {**labels_of_dims(screen), **(own or {})}
    labels: dict[str, Any] = {dim: known[dim] for dim in FILE_DIMS.values() if dim in known}
    for site in (*sites.latent, *sites.deterministic):
        for dim, size in zip(site.axis_dims(), site.shape, strict=True):
            if dim is None or dim in FILE_DIMS.values():
                continue
            labels[dim] = known[dim] if dim in known and len(known[dim]) == size else size
    return labels
