"""What a Pyro program samples, read off one trace of it: its sites, their plates and axes, and where they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch.distributions import constraints

from vihier.errors import VihierError
from vihier.models.batch import Batch
from vihier.models.support import support_of
from vihier.models.trace import trace_program

# Plates that a gene block takes a part of. Every other plate is whole in every batch.
LOCAL_PLATES = ("gene", "sgrna")
FILE_DIMS = {"sgrna": "sgrna", "gene": "hugo_symbol", "line": "depmap_id", "lineage": "lineage"}

# Scales that a batch never has, so that what is inside `batch.local()` shows.
_LOCAL_MARK, _ROW_MARK = 3.0, 5.0


@dataclass(frozen=True)
class Site:
    """A latent or deterministic site of a program.

    Attributes
    ----------
    name
        The site's name.
    plates
        Plate -> its dim, negative, counted from the right of the batch shape, as in Pyro.
    shape
        Shape of the value in the batch that was traced.
    event_dim
        Number of axes at the right that are no plates'.
    local_plate
        `gene` or `sgrna` for a site of which a gene block holds a part; None for one shared by all genes.
    support
        Constraint on its values.
    deterministic
        Whether it is computed from other sites.
    event_dims
        Names of the axes at the right that are no plates', where the program gives them: of a latent site, with
        `infer={"event_dims": (...)}`.
    """

    name: str
    plates: Mapping[str, int]
    shape: tuple[int, ...]
    event_dim: int
    local_plate: str | None
    support: Any
    deterministic: bool = False
    event_dims: tuple[str, ...] = ()

    def axis_of(self, plate: str) -> int:
        """Axis of the value, counted from the left, that belongs to a plate."""
        return len(self.shape) - self.event_dim + self.plates[plate]

    @property
    def local_axis(self) -> int:
        """Axis of the value along which a gene block holds a part."""
        assert self.local_plate is not None
        return self.axis_of(self.local_plate)

    def full_shape(self, batch: Batch) -> tuple[int, ...]:
        """Shape of the value for the whole screen that `batch` is of."""
        shape = list(self.shape)
        if self.local_plate is not None:
            shape[self.local_axis] = batch.n_genes if self.local_plate == "gene" else batch.n_sgrnas
        return tuple(shape)

    def axis_dims(self) -> tuple[str | None, ...]:
        """Name of each axis of the value in a posterior file; None for an axis of length 1 that is no plate's."""
        dims: list[str | None] = [None] * len(self.shape)
        for axis, size in enumerate(self.shape):
            dims[axis] = None if size == 1 else f"{self.name}_dim_{axis}"
        if self.event_dims:
            dims[len(dims) - self.event_dim :] = self.event_dims
        for plate in self.plates:
            dims[self.axis_of(plate)] = FILE_DIMS.get(plate, plate)
        return tuple(dims)

    def index_in(self, batch: Batch) -> torch.Tensor:
        """Positions in the whole screen of the elements that a batch holds."""
        return batch.gene_idx if self.local_plate == "gene" else batch.sgrna_idx


@dataclass(frozen=True)
class Sites:
    """The sites of a program, in the order it samples them."""

    latent: tuple[Site, ...]
    deterministic: tuple[Site, ...]
    observed: tuple[str, ...] = ()

    @property
    def shared(self) -> tuple[Site, ...]:
        """Latent sites that no gene owns."""
        return tuple(site for site in self.latent if site.local_plate is None)

    @property
    def local(self) -> tuple[Site, ...]:
        """Latent sites of which a gene block holds a part."""
        return tuple(site for site in self.latent if site.local_plate is not None)

    @property
    def names(self) -> list[str]:
        """Names of the latent sites."""
        return [site.name for site in self.latent]


def read_sites(model: Callable[[Batch], Any], batch: Batch) -> Sites:
    """Trace a program on a batch and say what it samples.

    Parameters
    ----------
    model
        The program.
    batch
        Best a proper part of the screen, the first gene block say: mistakes in plates do not show on all of it.

    Raises
    ------
    VihierError
        Naming the site, where the program does not keep to what `Batch` asks for: nothing observed, a site of a
        gene or sgRNA outside `batch.local()`, a shared one inside it, a plate of a length that is not the batch's, a
        discrete site, a latent site in each row, a `pyro.param`.
    """
    trace = trace_program(model, replace(batch, local_scale=_LOCAL_MARK, row_scale=_ROW_MARK))
    latent: list[Site] = []
    deterministic: list[Site] = []
    observed: list[str] = []
    for name, node in trace.nodes.items():
        if node["type"] == "param":
            raise VihierError(f"site {name!r}: a pyro.param, which has no posterior; give it a prior with pyro.sample")
        if node["type"] != "sample" or isinstance(node["fn"], _Subsample):
            continue
        if (node["infer"] or {}).get("_deterministic"):
            deterministic.append(_deterministic_site(name, node))
        elif node["is_observed"]:
            observed.append(name)
            if abs(float(node["scale"]) - _ROW_MARK) > 1e-6:
                raise VihierError(
                    f"site {name!r}: rows must be inside `with batch.local():` and in a plate named 'row' of length "
                    "len(batch.gene), with no subsample"
                )
        else:
            latent.append(_latent_site(name, node, batch))
    if not observed and batch.lfc is not None:
        raise VihierError("the program observes nothing: give pyro.sample(..., obs=batch.lfc)")
    if not latent:
        raise VihierError("the program has no latent site: there is nothing to fit")
    return Sites(tuple(latent), tuple(deterministic), tuple(observed))


def _plates_of(node: Mapping[str, Any]) -> dict[str, int]:
    frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
    return {frame.name: frame.dim for frame in sorted(frames, key=lambda frame: frame.dim)}


def _latent_site(name: str, node: Mapping[str, Any], batch: Batch) -> Site:
    plates = _plates_of(node)
    if "row" in plates:
        raise VihierError(f"site {name!r}: a latent variable for every row; only the rows themselves can be in 'row'")
    if node["fn"].support.is_discrete or not node["value"].is_floating_point():
        raise VihierError(f"site {name!r}: discrete; sum it out in the program, guides here are continuous")
    inside = abs(float(node["scale"]) / _LOCAL_MARK - 1) < 1e-6
    shape, event_dim = tuple(node["value"].shape), node["fn"].event_dim
    local = [plate for plate in LOCAL_PLATES if plate in plates]
    if inside and not local:
        raise VihierError(f"site {name!r}: inside batch.local() but in neither plate 'gene' nor 'sgrna'; move it out")
    if len(local) == 2:
        raise VihierError(f"site {name!r}: in both plates 'gene' and 'sgrna'; an sgRNA has one gene, leave 'gene' out")
    names = tuple((node["infer"] or {}).get("event_dims", ()))
    if names and len(names) != event_dim:
        raise VihierError(f"site {name!r}: event_dims names {len(names)} axes, and it has {event_dim}; name each")
    support = support_of(node["fn"])
    site = Site(name, plates, shape, event_dim, local[0] if inside else None, support, event_dims=names)
    if local and not inside:
        whole = batch.n_genes if local[0] == "gene" else batch.n_sgrnas
        if shape[site.axis_of(local[0])] != whole or float(node["scale"]) != 1:
            raise VihierError(f"site {name!r}: in plate {local[0]!r} but outside batch.local(); move it inside")
    if inside and shape[site.local_axis] != len(site.index_in(batch)):
        raise VihierError(
            f"site {name!r}: plate {local[0]!r} is {shape[site.local_axis]} long and the batch holds "
            f"{len(site.index_in(batch))}; give it that length"
        )
    return site


def _deterministic_site(name: str, node: Mapping[str, Any]) -> Site:
    # Pyro gives a deterministic site as many event axes as its value has; its plates say what they are. A value that
    # is constant along a plate has an axis of length 1 there, or none.
    shape = tuple(node["value"].shape)
    sizes = {frame.name: frame.size for frame in node["cond_indep_stack"]}
    plates = {
        plate: dim
        for plate, dim in _plates_of(node).items()
        if -dim <= len(shape) and (shape[dim] == sizes[plate] or shape[dim] > 1)
    }
    local = [plate for plate in LOCAL_PLATES if plate in plates]
    if len(local) > 1 or "row" in plates:
        raise VihierError(f"deterministic {name!r}: put it in one of the plates 'gene' and 'sgrna', and not in 'row'")
    return Site(name, plates, shape, 0, local[0] if local else None, constraints.real, deterministic=True)
