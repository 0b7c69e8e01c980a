"""What a screen's program is, given its scales: a mixed linear model of Normal sites over sgRNAs, genes and lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import pyro.distributions as dist
import torch

from vihier.models.batch import Batch
from vihier.models.counts import COUNTS, EXPECTED, ReadCounts

PLATES = ("sgrna", "gene", "line", "lineage", "replicate", "screen", "line_screen")
TABLES = ((), ("lineage",), ("line",), ("gene",), ("sgrna",), ("gene", "lineage"), ("gene", "line"))
SCALE_TABLES = ((), ("sgrna",), ("gene",), ("line",), ("lineage",), ("replicate",), ("screen",), ("line_screen",))
ROW_TABLES = ((), ("line",), ("lineage",), ("replicate",), ("screen",))
Plates = tuple[str, ...]


def plates_of_batch(batch: Batch) -> Plates:
    """Return the plates that a program of a batch may have, in order: `PLATES`, then its categorical covariates."""
    return (*PLATES, *(name for name in sorted(batch.sizes) if name not in PLATES))


def is_shared(plates: Plates) -> bool:
    """Whether a table over these plates is shared by genes."""
    return "gene" not in plates and "sgrna" not in plates


def is_table(plates: Plates) -> bool:
    """Whether a location may be indexed so: by sgRNA, by gene, by something that genes share, or by gene and that."""
    if plates == ("sgrna",):
        return True
    return len(plates) <= (2 if plates[:1] == ("gene",) else 1) and "sgrna" not in plates


@dataclass(frozen=True)
class Location:
    """A Normal site: `offset + sum of coefficient x parent + deviation`, the deviation with sd `factor x scale`.

    Attributes
    ----------
    name : str
        The site.
    plates : tuple of str
        Its plates, in the order of `PLATES`; a table of the site has one axis for each.
    dims : tuple of int
        The dim of each of these plates in the program, counted from the right.
    parents : tuple of (str, float)
        Locations in its mean, each with its coefficient.
    offset : float
        The constant in its mean.
    scale : str or None
        The positive site that its sd is a multiple of; None where its sd is the constant `factor`.
    factor : float
        The multiple.
    reach : float
        How much a row's mean moves when the location's own deviation moves by one, over all paths; times the row's
        value of `design`, where there is one.
    design : str
        Location that leads the table: rows move with `reach` times what they move with that one's deviation. Empty
        where rows all move alike.
    """

    name: str
    plates: Plates
    dims: tuple[int, ...]
    parents: tuple[tuple[str, float], ...] = ()
    offset: float = 0.0
    scale: str | None = None
    factor: float = 1.0
    reach: float = 0.0
    design: str = ""


@dataclass(frozen=True)
class CountNoise:
    """What the noise of rows that are read counts has beside its scale; see `vihier.models.counts.ReadCounts`."""

    factor: Argument
    power: Argument
    excess: Argument

    @property
    def sources(self) -> tuple[str, ...]:
        """Scales that these refer to."""
        return tuple(x.source for x in (self.factor, self.power, self.excess) if x.source is not None)


class RowDesign(Protocol):
    """What a row's mean has of covariates, worked out by running the program on a batch."""

    def of(self, batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return how much rows move with each design, [n], by name, and their means with every deviation zero, [n]."""


@dataclass(frozen=True)
class Argument:
    """An argument of a prior or likelihood: `factor x source`, or `factor + log(source)` where `logarithm`.

    `source` is a scale; None where the argument is the constant `factor`.
    """

    name: str
    source: str | None
    factor: float
    logarithm: bool = False

    def value(self, source: torch.Tensor) -> torch.Tensor:
        """Return the argument from the scale that it refers to."""
        return self.factor + source.log() if self.logarithm else self.factor * source

    def value_at(self, log_source: torch.Tensor) -> torch.Tensor:
        """Return the argument from the logarithm of the scale that it refers to."""
        return self.factor + log_source if self.logarithm else self.factor * log_source.exp()


@dataclass(frozen=True)
class Scale:
    """A positive site: its prior's family, and each argument of it from another scale or a constant.

    `name`, `plates` and `dims` are as in `Location`.
    """

    name: str
    plates: Plates
    dims: tuple[int, ...]
    family: type[Any]
    arguments: tuple[Argument, ...] = ()

    @property
    def sources(self) -> list[str]:
        """Scales in its prior."""
        return [argument.source for argument in self.arguments if argument.source is not None]


@dataclass(frozen=True)
class Correlation:
    """A vector site of genes, MultivariateNormal with `scale_tril` the sds times L, and the LKJCholesky site that L is.

    Where log-scales are held, L is held as real numbers, one for each pair of components; see
    `vihier.kernels.correlated.factor_of`.

    Attributes
    ----------
    name : str
        The site of L.
    concentration : float
        Of its prior.
    vector : str
        The vector site.
    members : tuple of str
        Its components, locations of their own, in order.
    """

    name: str
    concentration: float
    vector: str
    members: tuple[str, ...]

    @property
    def n_pairs(self) -> int:
        """Number of pairs of components."""
        return len(self.members) * (len(self.members) - 1) // 2


@dataclass(frozen=True)
class Structure:
    """A program's locations and scales, parents before children.

    Attributes
    ----------
    locations, scales : tuple
    observed : str
        The site of the rows.
    noise : str or None
        The positive site that the rows' sd is `noise_factor` times; None where their sd is `noise_factor`.
    noise_factor : float
    row_offset : float
        A row's mean where every deviation is zero.
    freedom : Argument or None
        The degrees of freedom of Student-t rows; None where rows are Normal.
    counts : CountNoise or None
        Of rows that are read counts; None where they are log2 fold changes.
    design : RowDesign or None
        Where a row's mean has covariates in it, or a table is not one of `TABLES`; `row_offset` is then zero.
    correlations : tuple of Correlation
        Vectors of locations that are correlated a priori.
    """

    locations: tuple[Location, ...]
    scales: tuple[Scale, ...]
    observed: str
    noise: str | None
    noise_factor: float
    row_offset: float
    freedom: Argument | None = None
    counts: CountNoise | None = None
    design: RowDesign | None = field(default=None, compare=False)
    correlations: tuple[Correlation, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether rows are Normal with one noise scale, so that sums over the rows of a cell are all they say."""
        scaled = self.noise is not None and bool(self.site(self.noise).plates)
        return self.freedom is None and self.counts is None and not scaled

    @property
    def of_rows(self) -> tuple[str, ...]:
        """Scales that the rows refer to themselves: their noise, their degrees of freedom."""
        freedom = None if self.freedom is None else self.freedom.source
        of_counts = () if self.counts is None else self.counts.sources
        return tuple(name for name in (self.noise, freedom, *of_counts) if name is not None)

    def table(self, plates: Plates, design: str = "") -> list[Location]:
        """Return the locations that are indexed by exactly these plates and that rows move with alike."""
        return [location for location in self.locations if location.plates == plates and location.design == design]

    @property
    def tables(self) -> list[tuple[Plates, str]]:
        """Plates and design of every table, in the order of the program."""
        return list(dict.fromkeys((location.plates, location.design) for location in self.locations))

    def scale(self, name: str) -> Scale:
        """Return the scale of a name."""
        return next(scale for scale in self.scales if scale.name == name)

    def site(self, name: str) -> Location | Scale:
        """Return the location or scale of a name."""
        sites: tuple[Location | Scale, ...] = (*self.scales, *self.locations)
        return next(found for found in sites if found.name == name)


def members_of(structure: Structure, correlation: Correlation) -> list[Location]:
    """Return the locations that a correlation matrix is of, in order."""
    by_name = {location.name: location for location in structure.locations}
    return [by_name[name] for name in correlation.members]


def index_of(parent: Plates, child: Plates, batch: Batch) -> tuple[torch.Tensor, ...] | None:
    """Positions in a table over the plates `parent` that the elements of `child` refer to, broadcastable.

    Parameters
    ----------
    parent, child : tuple of str
        Plates; `child` may be `("row",)`.
    batch : Batch

    Returns
    -------
    tuple of Tensor or None
        One index tensor for each plate of `parent`; None where no map leads from the child's plates to the parent's.
    """
    if child == ("row",):
        return tuple(batch.rows_in(plate) for plate in parent)
    sizes = {"sgrna": len(batch.sgrna_idx), "gene": len(batch.gene_idx), "line": len(batch.line_idx)}
    sizes |= {plate: batch.size_of(plate) for plate in (*parent, *child) if plate not in sizes}
    positions: dict[str, torch.Tensor] = {}
    for axis, plate in enumerate(child):
        shape = [1] * len(child)
        shape[axis] = -1
        own = torch.arange(sizes[plate], device=batch.gene_idx.device)
        positions[plate] = own.reshape(shape)
        if plate == "sgrna":
            positions["gene"] = batch.gene_of_sgrna.reshape(shape)
        if plate == "replicate" and "line_screen" in parent:
            positions["line_screen"] = batch.line_screen_of_replicate
        if plate == "line" and "lineage" in parent and "lineage" not in child:
            positions["lineage"] = batch.lineage_of_line.reshape(shape)
    if not set(parent) <= set(positions):
        return None
    return tuple(positions[plate] for plate in parent)


def to_program(values: torch.Tensor, plates: Plates, dims: tuple[int, ...]) -> torch.Tensor:
    """Bring a table in the order of `plates` to the dims that the program's plates have, counted from the right."""
    if not plates:
        return values
    order = sorted(range(len(plates)), key=lambda i: dims[i])
    shape = [1] * -min(dims)
    for i, dim in enumerate(dims):
        shape[dim] = values.shape[i]
    return values.permute(order).reshape(shape)


def from_program(values: torch.Tensor, plates: Plates, dims: tuple[int, ...]) -> torch.Tensor:
    """Bring a value with the dims of the program's plates to a table in the order of `plates`."""
    sizes = [values.shape[dim] for dim in dims]
    order = sorted(range(len(plates)), key=lambda i: dims[i])
    squeezed = values.reshape([sizes[i] for i in order])
    return squeezed.permute([order.index(i) for i in range(len(plates))])


def log_probs(structure: Structure, values: dict[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Log density of each site, summed over its elements, and of the rows of a batch, from the structure alone.

    Parameters
    ----------
    structure : Structure
    values : dict
        Value of every location and scale, over its plates, and of the factor of every correlation matrix.
    batch : Batch
    """
    found, priors = {}, {}
    for scale in structure.scales:
        arguments = {
            argument.name: argument.value(_gather(argument.source, scale.plates, values, structure, batch))
            for argument in scale.arguments
        }
        found[scale.name] = scale.family(**arguments).log_prob(values[scale.name]).sum()
    for location in structure.locations:
        mean = torch.as_tensor(location.offset, dtype=torch.float64)
        for parent, coefficient in location.parents:
            mean = mean + coefficient * _gather(parent, location.plates, values, structure, batch)
        sd = location.factor * _gather(location.scale, location.plates, values, structure, batch)
        priors[location.name] = mean, sd
    for correlation in structure.correlations:
        found |= _correlated_log_probs(correlation, [priors.pop(name) for name in correlation.members], values)
    found |= {name: dist.Normal(*prior).log_prob(values[name]).sum() for name, prior in priors.items()}
    return found | {structure.observed: row_log_prob(structure, values, batch).sum()}


def _correlated_log_probs(
    correlation: Correlation, priors: list[tuple[torch.Tensor, torch.Tensor]], values: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Log density of a factor and, summed over genes, of the vectors that it correlates; `priors` are means and sds."""
    chol = values[correlation.name]
    vectors = torch.stack([values[name] for name in correlation.members], -1)
    means, sds = (torch.stack([x.expand(vectors.shape[:-1]) for x in each], -1) for each in zip(*priors, strict=True))
    normal = dist.MultivariateNormal(means, scale_tril=sds[..., None] * chol)
    lkj = dist.LKJCholesky(len(correlation.members), chol.new_tensor(correlation.concentration))
    return {correlation.name: lkj.log_prob(chol), correlation.vector: normal.log_prob(vectors).sum()}


def log_joint(structure: Structure, values: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    """Log density of all sites and the rows of a batch, from the structure alone; arguments as for `log_probs`."""
    return torch.stack(list(log_probs(structure, values, batch).values())).sum()


def row_log_prob(structure: Structure, values: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    """Log density of each row, shape [N], given every location and scale."""
    columns: dict[str, torch.Tensor] = {}
    mean = torch.as_tensor(structure.row_offset, dtype=torch.float64)
    if structure.design is not None:
        columns, mean = structure.design.of(batch)
    for location in structure.locations:
        deviation = values[location.name] - location.offset
        for parent, coefficient in location.parents:
            deviation = deviation - coefficient * _gather(parent, location.plates, values, structure, batch)
        index = index_of(location.plates, ("row",), batch)
        assert index is not None
        moved = location.reach * deviation[index]
        mean = mean + (moved * columns[location.design] if location.design else moved)
    sd = structure.noise_factor * _gather(structure.noise, ("row",), values, structure, batch)
    if structure.counts is not None:
        factor, power, excess = (
            x.value(_gather(x.source, ("row",), values, structure, batch))
            for x in (structure.counts.factor, structure.counts.power, structure.counts.excess)
        )
        rows = ReadCounts(mean, sd, factor, power, batch.covariates[EXPECTED], excess, validate_args=False)
        return rows.log_prob(batch.covariates[COUNTS])
    if structure.freedom is not None:
        freedom = structure.freedom.value(_gather(structure.freedom.source, ("row",), values, structure, batch))
        return dist.StudentT(freedom, mean, sd).log_prob(batch.lfc)
    return dist.Normal(mean, sd).log_prob(batch.lfc)


def _gather(
    source: str | None, child: Plates, values: dict[str, torch.Tensor], structure: Structure, batch: Batch
) -> torch.Tensor:
    if source is None:
        return torch.ones((), dtype=torch.float64)
    index = index_of(structure.site(source).plates, child, batch)
    assert index is not None
    return values[source][index]
