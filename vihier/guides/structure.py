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

import pyro.distributions as dist
import torch
from torch.distributions import constraints

from vihier.errors import VihierError
from vihier.guides.correlated_sites import check_members, read_correlations
from vihier.guides.mixed_model import (
    ROW_TABLES,
    SCALE_TABLES,
    TABLES,
    Argument,
    CountNoise,
    Location,
    Plates,
    Scale,
    Structure,
    index_of,
    is_shared,
    is_table,
    log_joint,
    log_probs,
    row_log_prob,
    to_program,
)
from vihier.guides.probe import Arguments, Prober, base_distribution, few_genes, refusal
from vihier.guides.row_design import ProgramDesign, Reach
from vihier.inference.device import run_on
from vihier.models.batch import Batch
from vihier.models.counts import ReadCounts

__all__ = [
    "Argument",
    "Location",
    "Plates",
    "Scale",
    "Structure",
    "check_structure",
    "index_of",
    "log_joint",
    "read_structure",
    "refusal",
    "row_log_prob",
    "to_program",
]


# What beside their scale the noise of rows that are read counts has.
COUNT_NOISE = ("factor", "power", "excess")


def read_structure(model: Callable[[Batch], Any], batch: Batch) -> Structure:
    """Read a program's structure by running it on a small batch in float64.

    Parameters
    ----------
    model : callable
        The Pyro program, `model(batch)`.
    batch : Batch
        Some genes with their rows, on any device; where they are many, the first two are looked at. What the program
        does to other genes shows only there: see `check_structure`.

    Raises
    ------
    VihierError
        Naming the first site that is outside the family: a location that enters a mean other than as itself, a scale
        that depends on a location, a distribution that is neither Normal nor positive, an unknown plate.
    """
    with run_on(torch.device("cpu"), torch.float64):
        prober = Prober(model, few_genes(batch))
        observed = prober.observed
        locations, scales = _classify(prober)
        points = _Points.of(prober, locations, scales)
        parents: dict[str, list[tuple[str, float | None]]] = {name: [] for name in (*locations, observed)}
        for site in locations:
            for child, coefficient in _children(prober, points, site):
                parents[child].append((site, coefficient))
        links = _scale_links(prober, points)
        _check_links(prober, links, [*locations, observed])
        freedom = links[observed].get("df")
        is_of_counts = isinstance(base_distribution(prober.sites[observed]["fn"]), ReadCounts)
        counts = CountNoise(*(links[observed][name] for name in COUNT_NOISE)) if is_of_counts else None
        first = points.at[0]
        constants = prober.run(first | {name: torch.zeros_like(first[name]) for name in locations})
        offsets = {name: _constant(name, "mean", constants[name]["loc"]) for name in locations}
        design = ProgramDesign(model, observed, parents, offsets, tuple(scales), ())
        reach, mean = design.probe(prober)
        _check_reach(reach)
        rows = _row_tables(prober, reach)
        plain = all(not lead for _, lead in rows.values()) and _is_constant(mean)
        plain = plain and all(prober.plates[name] in TABLES for name in locations)
        leads = tuple(dict.fromkeys(lead for _, lead in rows.values() if lead))
        structure = Structure(
            locations=tuple(
                Location(
                    name,
                    prober.plates[name],
                    prober.dims[name],
                    tuple((site, _known(coefficient)) for site, coefficient in parents[name]),
                    offsets[name],
                    links[name]["scale"].source,
                    links[name]["scale"].factor,
                    *rows[name],
                )
                for name in locations
            ),
            scales=tuple(
                Scale(
                    name,
                    prober.plates[name],
                    prober.dims[name],
                    type(base_distribution(prober.sites[name]["fn"])),
                    tuple(links[name].values()),
                )
                for name in scales
            ),
            observed=observed,
            noise=links[observed]["scale"].source,
            noise_factor=links[observed]["scale"].factor,
            row_offset=float(mean[0]) if plain else 0.0,
            freedom=freedom,
            counts=counts,
            design=None if plain else replace(design, leads=leads),
            correlations=read_correlations(prober, (first, points.with_scales_apart)),
        )
        check_members(structure)
        _check_count_noise(structure)
        _check(structure, prober)
        return structure


def _check_links(prober: Prober, links: dict[str, dict[str, Argument]], sites: list[str]) -> None:
    """Refuse sds that are the logarithm of a scale, and rows, the last site, whose scales rows cannot have."""
    for name in sites:
        if any(link.logarithm for link in links[name].values()):
            raise refusal(name, "the logarithm of a scale is in its own scale")
    for link in links[sites[-1]].values():
        tables = {"factor": (*ROW_TABLES, ("gene",), ("sgrna",)), "power": ((),), "excess": ((),)}
        if link.source is not None and prober.plates[link.source] not in tables.get(link.name, ROW_TABLES):
            of = " x ".join(prober.plates[link.source])
            raise refusal(link.source, f"the rows' {link.name} is indexed by {of}")


def _check_count_noise(structure: Structure) -> None:
    """Refuse a scale that is of counts and of locations too, and one by sgRNA that is not the factor of counts."""
    # Noise is moved given the locations alone.
    for location in structure.locations if structure.counts is not None else ():
        if location.scale in structure.of_rows:
            assert location.scale is not None
            raise refusal(location.scale, f"it is of the rows' noise, and the sd of {location.name!r}")
    factor = None if structure.counts is None else structure.counts.factor.source
    for scale in structure.scales:
        above = [source for source in scale.sources if structure.scale(source).plates]
        if scale.plates == ("sgrna",) and (scale.name != factor or above):
            raise refusal(scale.name, "a scale indexed by sgrna, and not the factor of counts around one that is not")


def check_structure(structure: Structure, model: Callable[[Batch], Any], batch: Batch) -> None:
    """Hold a structure to its program on another batch: at a random point, every site's log density must agree.

    A program can treat the genes that `read_structure` saw alike and others differently (a table of prior means, say).

    Parameters
    ----------
    structure : Structure
    model : callable
        The Pyro program.
    batch : Batch
        On any device.

    Raises
    ------
    VihierError
        Naming the first site that differs.
    """
    with run_on(torch.device("cpu"), torch.float64):
        _check(structure, Prober(model, batch))


@dataclass(frozen=True)
class _Points:
    """Points at which a program is run: a random one, and with the same scales all locations far above or below zero.

    What bends somewhere between (a clamp, a sigmoid) answers differently there. `scales` holds for each scale, once far
    up and once far down, the step in its logarithm and the answers at the first point after that step.
    """

    at: tuple[dict[str, torch.Tensor], ...]
    answers: tuple[dict[str, Arguments], ...]
    scales: dict[str, list[tuple[torch.Tensor, dict[str, Arguments]]]]

    @staticmethod
    def of(prober: Prober, locations: list[str], scales: list[str]) -> _Points:
        moderate = {name: prober.random(name).mul(0.3).exp() for name in scales}
        first = {name: prober.random(name) for name in locations} | moderate
        high = {name: 7 * (1 + 0.2 * prober.random(name).abs()) for name in locations} | moderate
        low = {name: -7 * (1 + 0.2 * prober.random(name).abs()) for name in locations} | moderate
        moved = {}
        for name in scales:
            steps = [6 + prober.random(name).mul(0.3), -12 + prober.random(name).mul(0.3)]
            moved[name] = [(step, prober.run(first | {name: first[name] * step.exp()})) for step in steps]
        return _Points((first, high, low), tuple(prober.run(point) for point in (first, high, low)), moved)

    @property
    def with_scales_apart(self) -> dict[str, torch.Tensor]:
        """The first point with each scale twice as large, thrice, ..."""
        return self.at[0] | {name: self.at[0][name] * (2 + i) for i, name in enumerate(self.scales)}


def _classify(prober: Prober) -> tuple[list[str], list[str]]:
    """Names of the locations and of the scales, in the program's order."""
    locations, scales = [], []
    for name, node in prober.sites.items():
        fn, plates = base_distribution(node["fn"]), prober.plates[name]
        family = type(fn).__name__
        if name == prober.observed:
            if not isinstance(fn, dist.Normal | dist.StudentT | ReadCounts):
                raise refusal(name, f"its likelihood is {family}, neither Normal nor StudentT")
            if plates != ("row",):
                raise refusal(name, "it must be in the plate 'row' alone")
        elif isinstance(fn, dist.Normal):
            if not is_table(plates):
                raise refusal(name, f"it is indexed by {' x '.join(plates)}")
            locations.append(name)
        elif _is_positive(fn):
            if plates not in SCALE_TABLES and not (len(plates) == 1 and is_shared(plates)):
                raise refusal(name, f"a scale indexed by {' x '.join(plates)}")
            scales.append(name)
        else:
            raise refusal(name, f"{family} is neither Normal nor positive")
    if all(prober.plates[name] == ("gene",) for name in scales):
        raise VihierError(
            "model: it has no positive site that genes share, such as the sd of the rows; guide 'structured' does not "
            "apply, use guide='mean_field'"
        )
    return locations, scales


def _is_positive(fn: Any) -> bool:
    support = fn.support
    if not isinstance(support, constraints.greater_than_eq | constraints.greater_than):
        return False
    bound = torch.as_tensor(support.lower_bound)
    return bool((bound == 0).all()) and bool(fn.arg_constraints)


def _children(prober: Prober, points: _Points, site: str) -> list[tuple[str, float | None]]:
    """Return the Normal sites whose mean a location enters, each with its coefficient; None where that is of rows."""
    step = prober.random(site)
    moved = [prober.run(point | {site: point[site] + step}) for point in points.at]
    found = []
    for child, arguments in points.answers[0].items():
        for key in arguments:
            changes = [
                after[child][key] - before[child][key] for after, before in zip(moved, points.answers, strict=True)
            ]
            if all(_is_zero(change) for change in changes):
                continue
            if child in points.scales or key != "loc":
                family = type(base_distribution(prober.sites[child]["fn"])).__name__
                raise refusal(child, f"it is {family} and its {key} depends on the location {site!r}")
            if not all(_close(change, changes[0]) for change in changes):
                raise refusal(site, f"the mean of {child!r} is not linear in it")
            found.append((child, _coefficient(prober, points, site, child, step, changes[0])))
    return found


def _coefficient(
    prober: Prober, points: _Points, site: str, child: str, step: torch.Tensor, change: torch.Tensor
) -> float | None:
    index = index_of(prober.plates[site], prober.plates[child], prober.batch)
    if index is not None:
        expected = step[index].expand(change.shape)
        ratio = (change * expected).sum() / (expected * expected).sum()
        if _close(change, ratio * expected):
            return round(float(ratio), 12)
        if child == prober.observed:
            point = points.at[0]
            moved = prober.run(point | {site: point[site] + 1})[child]["loc"] - points.answers[0][child]["loc"]
            if _close(change, moved * expected):
                return None
    kind = "a constant or a covariate of rows" if child == prober.observed else "a constant"
    raise refusal(site, f"it enters the mean of {child!r} other than by its own element times {kind}")


def _known(coefficient: float | None) -> float:
    assert coefficient is not None
    return coefficient


def _check_reach(reach: dict[str, Reach]) -> None:
    for name, value in reach.items():
        if bool((torch.as_tensor(value) == 0).all()):
            raise refusal(name, "no row depends on it")


def _row_tables(prober: Prober, reach: dict[str, Reach]) -> dict[str, tuple[float, str]]:
    """Location -> its reach and the location that leads its table: the first that rows move with as they do with it."""
    found: dict[str, tuple[float, str]] = {}
    leads: list[str] = []
    for name, value in reach.items():
        if not isinstance(value, torch.Tensor) or _is_constant(value):
            found[name] = float(torch.as_tensor(value).reshape(-1)[0]), ""
            continue
        for lead in leads:
            of_lead = torch.as_tensor(reach[lead])
            ratio = float((value * of_lead).sum() / of_lead.square().sum())
            if _close(value, ratio * of_lead):
                found[name] = round(ratio, 12), lead
                break
        else:
            leads.append(name)
            found[name] = 1.0, name
    return found


def _is_constant(values: torch.Tensor) -> bool:
    return _close(values, values[:1].expand_as(values))


def _is_zero(change: torch.Tensor) -> bool:
    # A change that is not a number is one.
    return bool((change.abs() <= 1e-9).all())


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-8, atol=1e-9)


def _scale_links(prober: Prober, points: _Points) -> dict[str, dict[str, Argument]]:
    """Site -> argument -> what it is of a scale; arguments in which locations may be, not."""
    found: dict[str, dict[str, Argument]] = {}
    for name, arguments in points.answers[0].items():
        found[name] = {}
        for key, value in arguments.items():
            if key == "expected" and name == prober.observed:
                continue  # of the rows, and not of the program
            moved = {scale: [answers[name][key] for _, answers in steps] for scale, steps in points.scales.items()}
            sources = [scale for scale, after in moved.items() if not all(_is_zero(x - value) for x in after)]
            if name in points.scales or key != "loc":
                found[name][key] = _link(prober, points, name, key, value, {x: moved[x] for x in sources})
            elif sources:
                family = type(base_distribution(prober.sites[sources[0]]["fn"])).__name__
                raise refusal(sources[0], f"it is {family}, not Normal, and enters the mean of {name!r}")
    return found


def _link(
    prober: Prober, points: _Points, name: str, key: str, value: torch.Tensor, moved: dict[str, list[torch.Tensor]]
) -> Argument:
    if not moved:
        return Argument(key, None, _constant(name, key, value))
    scale = next(iter(moved))
    index = index_of(prober.plates[scale], prober.plates[name], prober.batch)
    steps = [step for step, _ in points.scales[scale]]
    if len(moved) == 1 and index is not None:
        at, after = points.at[0][scale][index], list(zip(moved[scale], steps, strict=True))
        if all(_close((x / value).log(), step[index]) for x, step in after):
            return Argument(key, scale, _constant(name, key, value / at))
        if all(_close(x - value, step[index]) for x, step in after):
            return Argument(key, scale, _constant(name, key, value - at.log()), logarithm=True)
    raise refusal(name, f"its {key} is not one scale times a constant, nor its logarithm")


def _constant(name: str, key: str, value: torch.Tensor) -> float:
    first = float(value.reshape(-1)[0])
    if not _close(value, torch.full_like(value, first)):
        raise refusal(name, f"its {key} has a covariate in it, or a constant of its own for each element")
    return first


def _check(structure: Structure, prober: Prober) -> None:
    """Hold each site's log density to the program's own, at a random point."""
    values = {location.name: prober.random(location.name) for location in structure.locations}
    values |= {scale.name: prober.random(scale.name).mul(0.3).exp() for scale in structure.scales}
    values |= prober.factors
    trace = prober.trace(values)
    trace.compute_log_prob()
    for name, mine in log_probs(structure, values, prober.batch).items():
        program = float(trace.nodes[name]["log_prob_sum"])
        if not abs(program - float(mine)) <= 1e-8 * (1 + abs(program)):
            raise refusal(
                name,
                f"its log density is {program:.6g} and that of the structure read {float(mine):.6g}: it has a mask, "
                "a scale, or constants that differ between genes",
            )
