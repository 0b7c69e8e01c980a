"""Read off a program what correlates the components of its vector sites."""

from __future__ import annotations

import torch
from torch import Tensor

from vihier.guides.mixed_model import Correlation, Structure
from vihier.guides.probe import Prober, refusal
from vihier.guides.vectors import random_factor

Values = dict[str, Tensor]


def read_correlations(prober: Prober, points: tuple[Values, ...]) -> tuple[Correlation, ...]:
    """Find the LKJCholesky site of each vector site.

    Parameters
    ----------
    prober : Prober
    points : tuple of dict
        Points at which to look, of different scales.

    Raises
    ------
    VihierError
        A vector that is not of genes, or whose `scale_tril` is not sds times an LKJCholesky site of its own; an
        LKJCholesky site in a plate, of an argument that is not constant, or that anything else depends on.
    """
    for name in prober.factors:
        if prober.trace(points[0]).nodes[name]["cond_indep_stack"]:
            raise refusal(name, "a correlation matrix for each element of a plate")
    found = []
    for vector, members in prober.vectors.items():
        if prober.plates[members[0]] != ("gene",):
            raise refusal(vector, f"a vector indexed by {' x '.join(prober.plates[members[0]]) or 'nothing'}, not gene")
        name = next((x for x in prober.factors if _is_of(prober, points, vector, x)), None)
        if name is None:
            raise refusal(vector, "its scale_tril is not its sds, a column, times an LKJCholesky site")
        found.append(Correlation(name, _concentration(prober, points, name), vector, members))
    for name in prober.factors:
        _check_nothing_else(prober, points[0], name, [x.vector for x in found if x.name == name])
    return tuple(found)


def _others(prober: Prober, name: str) -> list[Values]:
    """Two values of a factor: that at which it is held, and another."""
    size = prober.factors[name].shape[-1]
    other = random_factor(size, torch.Generator().manual_seed(7))
    return [{name: prober.factors[name]}, {name: other}]


def _is_of(prober: Prober, points: tuple[Values, ...], vector: str, name: str) -> bool:
    size = len(prober.vectors[vector])
    if prober.factors[name].shape[-1] != size:
        return False
    for point in points:
        for factor in _others(prober, name):
            scale_tril = prober.trace(point | factor).nodes[vector]["fn"].scale_tril
            sds = scale_tril.square().sum(-1, keepdim=True).sqrt()
            if not torch.allclose(scale_tril, sds * factor[name], rtol=1e-9, atol=1e-12):
                return False
    return True


def _concentration(prober: Prober, points: tuple[Values, ...], name: str) -> float:
    values = [float(prober.trace(point).nodes[name]["fn"].concentration) for point in points]
    if max(values) != min(values):
        raise refusal(name, "its concentration is not a constant")
    return values[0]


def _check_nothing_else(prober: Prober, point: Values, name: str, vectors: list[str]) -> None:
    if len(vectors) != 1:
        raise refusal(name, f"it is the correlations of {len(vectors)} vectors, and must be of one")
    before, after = (prober.run(point | factor) for factor in _others(prober, name))
    for site, arguments in before.items():
        for key, value in arguments.items():
            if not torch.allclose(value, after[site][key], rtol=1e-9, atol=1e-12):
                raise refusal(name, f"the {key} of {site!r} depends on it")


def check_members(structure: Structure) -> None:
    """Refuse components that share a table, or an sd, with each other or with other locations.

    Raises
    ------
    VihierError
        Naming the component, or its sd.
    """
    for name in (name for correlation in structure.correlations for name in correlation.members):
        member = next(location for location in structure.locations if location.name == name)
        for other in structure.locations:
            if other is member:
                continue
            if (other.plates, other.design) == (member.plates, member.design):
                raise refusal(name, f"rows move with it as with {other.name!r}, and it is part of a vector")
            if member.scale is not None and other.scale == member.scale:
                raise refusal(member.scale, f"it is the sd of {name!r}, part of a vector, and of {other.name!r}")
        if member.scale is None:
            continue
        if member.scale in structure.of_rows:
            raise refusal(member.scale, f"it is of the rows' noise, and the sd of {name!r}, part of a vector")
        if structure.scale(member.scale).plates:
            raise refusal(member.scale, f"it is the sd of {name!r}, part of a vector, and differs between genes")
