"""Which variables of a program are sums of its sites, found by running it; nothing is declared a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.distributions import constraints

from vihier.guides.streamed_leaf import places_of
from vihier.inference.draws import DrawPlan, computed
from vihier.inference.sites import Site
from vihier.inference.variables import Variable
from vihier.models.batch import Batch
from vihier.posterior.linear_forms import GENE, LINE, LINEAGE, SGRNA, LinearForm, Places, Term, aligned, value_of

TOLERANCE = 1e-9


def linear_forms(plan: DrawPlan, batch: Batch, names: Sequence[str]) -> dict[str, LinearForm]:
    """Return the variables among `names` that are sums of sites or of their means, and how.

    Parameters
    ----------
    plan : DrawPlan
        The program, its sites and variables.
    batch : Batch
        A few genes with rows, in float64.
    names : sequence of str
        Variables that are computed, not sampled.
    """
    sites = {site.name: site for site in plan.sites.latent}
    variables = {variable.name: variable for variable in plan.variables}
    places = places_of(batch)
    draws = _probes(list(sites.values()), batch)
    deterministic = [site.name for site in plan.sites.deterministic if site.name in names]
    values = computed(plan.program, batch, deterministic, draws)
    if plan.effect is not None and "effect" in values:
        values |= plan.effect.values(values["effect"])
    known = {}
    for name, site in sites.items():
        variable = Variable(name, site.axis_dims())
        known[name] = variable.dims, np.moveaxis(variable.to_file(draws[name]), 0, -1)
    found = {}
    for name in names:
        target = variables[name].dims
        if name in values:
            form = _form(np.moveaxis(variables[name].to_file(values[name]), 0, -1), list(sites), known, target, places)
            if form is not None:
                found[name] = form
    return found


def _probes(sites: Sequence[Site], batch: Batch) -> dict[str, torch.Tensor]:
    """Draw 0 has every site at zero (scales at one), draw 1 + i site i alone at random, the last all at random."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for i, site in enumerate(sites):
        shape = list(site.shape)
        if site.local_plate is not None:
            shape[site.local_axis] = len(site.index_in(batch))
        rest = torch.ones(shape) if site.support is constraints.positive else torch.zeros(shape)
        value = torch.randn(shape, generator=random, dtype=torch.float64).to(batch.gene_idx.device)
        value = value.exp() if site.support is constraints.positive else value
        draws = rest.to(value).expand(len(sites) + 2, *shape).clone()
        draws[1 + i], draws[-1] = value, value
        found[site.name] = draws
    return found


def _form(
    values: np.ndarray,
    sites: Sequence[str],
    known: Mapping[str, tuple[tuple[str, ...], np.ndarray]],
    target: tuple[str, ...],
    places: Places,
) -> LinearForm | None:
    zero = values[..., 0]
    if np.ptp(zero) > TOLERANCE:
        return None
    terms: list[Term] = []
    for i, name in enumerate(sites):
        change = values[..., 1 + i] - zero
        if np.abs(change).max() <= TOLERANCE:
            continue
        at = {key: (dims, array[..., 1 + i : 2 + i]) for key, (dims, array) in known.items()}
        candidates = list(_candidates(name, known[name][0], target))
        columns = [np.broadcast_to(aligned(t, at, target, places)[..., 0], change.shape).ravel() for t in candidates]
        if not columns:
            return None
        factors = np.linalg.lstsq(np.stack(columns, 1), change.ravel(), rcond=None)[0]
        terms += [
            Term(t.variable, round(float(f), 12), t.over)
            for t, f in zip(candidates, factors, strict=True)
            if abs(f) > TOLERANCE
        ]
    form = LinearForm(round(float(zero.flat[0]), 12), tuple(terms))
    with_all = {key: (dims, array[..., -1:]) for key, (dims, array) in known.items()}
    wide = {key: (dims, array.astype(np.float64)) for key, (dims, array) in with_all.items()}
    error = np.abs(value_of(form, wide, target, places)[..., 0] - values[..., -1]).max() if values.size else 0.0
    return form if error <= 1e-5 * (1 + np.abs(values[..., -1]).max()) else None


def _candidates(name: str, dims: tuple[str, ...], target: tuple[str, ...]) -> Iterator[Term]:
    """Yield the ways in which a site can stand in a sum over the dims of a target: as it is, or averaged."""
    if _fits(dims, target):
        yield Term(name, 1.0)
    if SGRNA in dims and _fits(tuple(GENE if dim == SGRNA else dim for dim in dims), target):
        yield Term(name, 1.0, SGRNA)
    if LINE in dims and _fits(tuple(dim for dim in dims if dim != LINE), target):
        yield Term(name, 1.0, LINE)


def _fits(dims: tuple[str, ...], target: tuple[str, ...]) -> bool:
    return all(
        dim in target or (dim == GENE and SGRNA in target) or (dim == LINEAGE and LINE in target) for dim in dims
    )
