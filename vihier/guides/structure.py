"""Read the linear-Gaussian structure of a screen model off its Pyro program.

Given its scales (positive sites), a program of the family is a mixed linear model: every location (Normal site) is a
sum of other locations plus a deviation of its own, and a row's mean is a sum of locations. The program is run at
random points in float64 and its answers are compared: nothing is declared a second time, and whatever does not fit is
refused by the name of its site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from vihier.errors import VihierError
from vihier.models.batch import Batch

PLATES = ("sgrna", "gene", "line", "lineage")
TABLES = ((), ("lineage",), ("line",), ("gene",), ("sgrna",), ("gene", "lineage"), ("gene", "line"))
Plates = tuple[str, ...]


@dataclass(frozen=True)
class Location:
    """A Normal site: `offset + sum of coefficient x parent + deviation`, with sd `factor x scale`."""

    name: str
    plates: Plates
    dims: tuple[int, ...]
    parents: tuple[tuple[str, float], ...] = ()
    offset: float = 0.0
    scale: str | None = None
    factor: float = 1.0
    reach: float = 0.0


@dataclass(frozen=True)
class Scale:
    """A positive site: its prior's family, and each argument as `factor x (another scale or 1)`."""

    name: str
    plates: Plates
    dims: tuple[int, ...]
    family: type[Any]
    arguments: tuple[tuple[str, str | None, float], ...] = ()


@dataclass(frozen=True)
class Structure:
    """A program's locations and scales, parents before children.

    `row_offset` is the constant in a row's mean; `noise` and `noise_factor` name the rows' own scale.
    """

    locations: tuple[Location, ...]
    scales: tuple[Scale, ...]
    observed: str
    noise: str | None
    noise_factor: float
    row_offset: float

    def table(self, plates: Plates) -> list[Location]:
        """Return the locations that are indexed by exactly these plates."""
        return [location for location in self.locations if location.plates == plates]


def index_of(parent: Plates, child: Plates, batch: Batch) -> tuple[torch.Tensor, ...] | None:
    """Positions in a table over the plates `parent` that the elements of `child` refer to, broadcastable.

    Returns None where no map leads from the child's plates to the parent's.
    """
    if child == ("row",):
        of_row = {"sgrna": batch.sgrna, "gene": batch.gene, "line": batch.line}
        if "lineage" in parent:
            of_row["lineage"] = batch.lineage_of_line[batch.line]
        return tuple(of_row[plate] for plate in parent)
    sizes = {"sgrna": len(batch.sgrna_idx), "gene": len(batch.gene_idx), "line": len(batch.line_idx)}
    if "lineage" in (*parent, *child):
        sizes["lineage"] = batch.n_lineages
    positions: dict[str, torch.Tensor] = {}
    for axis, plate in enumerate(child):
        shape = [1] * len(child)
        shape[axis] = -1
        own = torch.arange(sizes[plate], device=batch.gene_idx.device)
        positions[plate] = own.reshape(shape)
        if plate == "sgrna":
            positions["gene"] = batch.gene_of_sgrna.reshape(shape)
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


class _Prober:
    """Runs a program with given values of its latent sites and reads the arguments of every site."""

    def __init__(self, model: Callable[[Batch], Any], batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.generator = torch.Generator().manual_seed(20)
        with pyro.poutine.block(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trace = poutine.trace(model).get_trace(batch)
        self.sites = {
            name: node
            for name, node in trace.nodes.items()
            if node["type"] == "sample" and not site_is_subsample(node) and not node["infer"].get("_deterministic")
        }
        self.plates: dict[str, Plates] = {}
        self.dims: dict[str, tuple[int, ...]] = {}
        for name, node in self.sites.items():
            frames = {frame.name: frame.dim for frame in node["cond_indep_stack"]}
            if node["is_observed"]:
                self.plates[name] = tuple(frames)
                continue
            unknown = [plate for plate in frames if plate not in PLATES]
            if unknown:
                raise refusal(name, f"its plate {unknown[0]!r} is none of {', '.join(PLATES)}")
            self.plates[name] = tuple(plate for plate in PLATES if plate in frames)
            self.dims[name] = tuple(frames[plate] for plate in self.plates[name])

    def random(self, name: str) -> torch.Tensor:
        shape = [self.size(plate) for plate in self.plates[name]]
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def size(self, plate: str) -> int:
        if plate == "lineage":
            return self.batch.n_lineages
        return len(getattr(self.batch, f"{plate}_idx"))

    def run(self, values: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
        """Site -> argument -> its value over the site's plates, with the latent sites at `values`."""
        data = {name: to_program(value, self.plates[name], self.dims[name]) for name, value in values.items()}
        with pyro.poutine.block():
            trace = poutine.trace(poutine.condition(self.model, data=data)).get_trace(self.batch)
        found = {}
        for name in self.sites:
            fn = base_distribution(trace.nodes[name]["fn"])
            shape = trace.nodes[name]["fn"].shape()
            arguments = {key: getattr(fn, key).expand(shape) for key in fn.arg_constraints}
            if not self.sites[name]["is_observed"]:
                arguments = {
                    key: from_program(value, self.plates[name], self.dims[name]) for key, value in arguments.items()
                }
            found[name] = arguments
        return found


def base_distribution(fn: Any) -> Any:
    """Unwrap what plates, masks and `to_event` put around a distribution."""
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        fn = fn.base_dist
    return fn


def site_is_subsample(node: dict[str, Any]) -> bool:
    """Whether a trace node is the index of a plate, not a random variable."""
    return type(node["fn"]).__name__ == "_Subsample"


def refusal(site: str, reason: str) -> VihierError:
    """Return the one-line error for a program outside the family of the structured guide."""
    return VihierError(f"site {site!r}: {reason}; guide 'structured' does not apply, use guide='mean_field'")


def read_structure(model: Callable[[Batch], Any], batch: Batch) -> Structure:
    """Read a program's structure by running it on a small batch in float64.

    Parameters
    ----------
    model : callable
        The Pyro program, `model(batch)`.
    batch : Batch
        A few genes with their rows, float64, on the CPU.

    Raises
    ------
    VihierError
        Naming the first site that is outside the family: a location that enters a mean other than as itself, a scale
        that depends on a location, a distribution that is neither Normal nor positive, an unknown plate.
    """
    prober = _Prober(model, batch)
    observed = [name for name, node in prober.sites.items() if node["is_observed"]]
    if len(observed) != 1:
        raise VihierError(f"model: it has {len(observed)} observed sites; guide 'structured' needs exactly one")
    locations, scales = _classify(prober, observed[0])
    point = {name: prober.random(name) for name in locations}
    point |= {name: prober.random(name).mul(0.3).exp() for name in scales}
    other = {name: prober.random(name) for name in locations} | {name: point[name] for name in scales}
    at_point, at_other = prober.run(point), prober.run(other)
    constants = prober.run(point | {name: torch.zeros_like(point[name]) for name in locations})
    means = [*locations, observed[0]]

    parents: dict[str, list[tuple[str, float]]] = {name: [] for name in means}
    for site in locations:
        step = prober.random(site)
        moved = prober.run(point | {site: point[site] + step})
        moved_other = prober.run(other | {site: other[site] + step})
        doubled = prober.run(point | {site: point[site] + 2 * step})
        for child, arguments in at_point.items():
            for key, value in arguments.items():
                change = moved[child][key] - value
                if not change.abs().max() > 1e-9:
                    continue
                if child in scales or key != "loc":
                    raise refusal(child, f"its {key} depends on the location {site!r}")
                same = torch.allclose(change, moved_other[child][key] - at_other[child][key], atol=1e-9)
                if not same or not torch.allclose(doubled[child][key] - value, 2 * change, atol=1e-9):
                    raise refusal(site, f"the mean of {child!r} is not linear in it")
                parents[child].append((site, _coefficient(prober, site, child, step, change)))

    steps = {scale: prober.random(scale).mul(0.3) for scale in scales}
    moved_scales = {scale: prober.run(point | {scale: point[scale] * steps[scale].exp()}) for scale in scales}
    links = {
        name: _scale_links(
            prober, point, at_point[name], steps, {scale: moved_scales[scale][name] for scale in scales}, name
        )
        for name in prober.sites
    }
    offsets = {name: _constant(name, constants[name]["loc"]) for name in means}
    reach = _reach(parents, observed[0], locations)
    noise, noise_factor = links[observed[0]]["scale"]
    structure = Structure(
        locations=tuple(
            Location(
                name,
                prober.plates[name],
                prober.dims[name],
                tuple(parents[name]),
                offsets[name],
                *links[name]["scale"],
                reach[name],
            )
            for name in locations
        ),
        scales=tuple(
            Scale(
                name,
                prober.plates[name],
                prober.dims[name],
                type(base_distribution(prober.sites[name]["fn"])),
                tuple((key, *link) for key, link in links[name].items()),
            )
            for name in scales
        ),
        observed=observed[0],
        noise=noise,
        noise_factor=noise_factor,
        row_offset=offsets[observed[0]] + sum(reach[name] * offsets[name] for name in locations),
    )
    _check(structure, prober)
    return structure


def _classify(prober: _Prober, observed: str) -> tuple[list[str], list[str]]:
    locations, scales = [], []
    for name, node in prober.sites.items():
        fn = base_distribution(node["fn"])
        if node["fn"].event_shape:
            raise refusal(name, "it is a vector (to_event)")
        if name == observed:
            if not isinstance(fn, dist.Normal):
                raise refusal(name, f"its likelihood is {type(fn).__name__}, not Normal")
            if prober.plates[name] != ("row",):
                raise refusal(name, "it must be in the plate 'row' alone")
        elif isinstance(fn, dist.Normal):
            if prober.plates[name] not in TABLES:
                raise refusal(name, f"it is indexed by {' x '.join(prober.plates[name])}")
            locations.append(name)
        elif str(fn.support) in ("GreaterThan(lower_bound=0.0)", "GreaterThanEq(lower_bound=0.0)"):
            scales.append(name)
        else:
            raise refusal(name, f"{type(fn).__name__} is neither Normal nor positive")
    return locations, scales


def _coefficient(prober: _Prober, site: str, child: str, step: torch.Tensor, change: torch.Tensor) -> float:
    index = index_of(prober.plates[site], prober.plates[child], prober.batch)
    if index is not None:
        expected = step[index].expand(change.shape)
        ratio = (change * expected).sum() / (expected * expected).sum()
        if torch.allclose(change, ratio * expected, atol=1e-9):
            return round(float(ratio), 9)
    raise refusal(site, f"it enters the mean of {child!r} other than by its own element times a constant")


def _scale_links(
    prober: _Prober,
    point: dict[str, torch.Tensor],
    at_point: dict[str, torch.Tensor],
    steps: dict[str, torch.Tensor],
    moved_by: dict[str, dict[str, torch.Tensor]],
    name: str,
) -> dict[str, tuple[str | None, float]]:
    """Argument -> (scale site, factor): every argument but a mean is one scale times a constant, or a constant."""
    arguments = {key: value for key, value in at_point.items() if name in steps or key != "loc"}
    sources: dict[str, str | None] = dict.fromkeys(arguments)
    for scale, moved in moved_by.items():
        step = steps[scale]
        if name not in steps and (moved["loc"] - at_point["loc"]).abs().max() > 1e-9:
            family = type(base_distribution(prober.sites[scale]["fn"])).__name__
            raise refusal(scale, f"it is {family}, not Normal, and enters the mean of {name!r}")
        for key, value in arguments.items():
            change = moved[key].log() - value.log() if bool((value > 0).all()) else moved[key] - value
            if not change.abs().max() > 1e-9:
                continue
            index = index_of(prober.plates[scale], prober.plates[name], prober.batch)
            if sources[key] or index is None or not torch.allclose(change, step[index].expand(change.shape), atol=1e-9):
                raise refusal(name, f"its {key} is not one scale times a constant")
            sources[key] = scale
    found = {}
    for key, source in sources.items():
        value = arguments[key]
        if source is not None:
            index = index_of(prober.plates[source], prober.plates[name], prober.batch)
            assert index is not None
            value = value / point[source][index]
        found[key] = (source, _constant(name, value))
    return found


def _constant(name: str, value: torch.Tensor) -> float:
    first = float(value.reshape(-1)[0])
    if not torch.allclose(value, torch.full_like(value, first), atol=1e-9):
        raise refusal(name, "it has a covariate or a constant of its own for each element")
    return first


def _reach(parents: dict[str, list[tuple[str, float]]], observed: str, locations: list[str]) -> dict[str, float]:
    """How much a row's mean moves with a location's own deviation, over all paths."""
    total = dict.fromkeys([*locations, observed], 0.0)
    total[observed] = 1.0
    for child in [observed, *reversed(locations)]:
        for site, coefficient in parents[child]:
            total[site] += coefficient * total[child]
    for name in locations:
        if total[name] == 0:
            raise refusal(name, "no row depends on it")
    return total


def _check(structure: Structure, prober: _Prober) -> None:
    """Hold the structure's log joint to the program's own at a random point.

    Raises
    ------
    VihierError
        If they differ: the program has a term that was not read (a factor, a mask).
    """
    values = {location.name: prober.random(location.name) for location in structure.locations}
    values |= {scale.name: prober.random(scale.name).mul(0.3).exp() for scale in structure.scales}
    batch = replace(prober.batch, local_scale=1.0, row_scale=1.0)
    data = {name: to_program(value, prober.plates[name], prober.dims[name]) for name, value in values.items()}
    trace = poutine.trace(poutine.condition(prober.model, data=data)).get_trace(batch)
    program = float(trace.log_prob_sum())
    mine = float(log_joint(structure, values, batch))
    if not abs(program - mine) <= 1e-8 * (1 + abs(program)):
        raise VihierError(
            f"model: its log density ({program:.6g}) is not that of its Normal and positive sites ({mine:.6g}): it has "
            "a factor, a mask or a scaled site; guide 'structured' does not apply, use guide='mean_field'"
        )


def log_joint(structure: Structure, values: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    """Log density of every site and the rows of a batch, from the structure alone."""
    total = torch.zeros((), dtype=torch.float64)
    for scale in structure.scales:
        arguments = {
            key: factor * _gather(source, scale.plates, values, structure, batch)
            for key, source, factor in scale.arguments
        }
        total = total + scale.family(**arguments).log_prob(values[scale.name]).sum()
    for location in structure.locations:
        mean = location.offset + sum(
            coefficient * _gather(parent, location.plates, values, structure, batch)
            for parent, coefficient in location.parents
        )
        sd = location.factor * _gather(location.scale, location.plates, values, structure, batch)
        total = total + dist.Normal(mean, sd).log_prob(values[location.name]).sum()
    return total + row_log_prob(structure, values, batch).sum()


def row_log_prob(structure: Structure, values: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
    """Log density of each row, shape [N], given every location and scale."""
    mean = torch.as_tensor(structure.row_offset, dtype=torch.float64)
    for location in structure.locations:
        deviation = values[location.name] - location.offset
        for parent, coefficient in location.parents:
            deviation = deviation - coefficient * _gather(parent, location.plates, values, structure, batch)
        index = index_of(location.plates, ("row",), batch)
        assert index is not None
        mean = mean + location.reach * deviation[index]
    sd = structure.noise_factor * _gather(structure.noise, ("row",), values, structure, batch)
    return dist.Normal(mean, sd).log_prob(batch.lfc)


def _gather(
    source: str | None, child: Plates, values: dict[str, torch.Tensor], structure: Structure, batch: Batch
) -> torch.Tensor:
    if source is None:
        return torch.ones((), dtype=torch.float64)
    plates = next(site.plates for site in (*structure.locations, *structure.scales) if site.name == source)
    index = index_of(plates, child, batch)
    assert index is not None
    return values[source][index]
