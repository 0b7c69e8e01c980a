"""Where a mean-field guide starts: moments of the data, carried up through the program's own hierarchy.

A few sweeps of coordinate updates. A location moves to the precision-weighted mean of what its children and its prior
say of it; a scale to the maximum, in its logarithm, of what the squared residuals of its children say. What depends
on what, and with which weight, is read from derivatives of the program's distributions, so any program with Normal,
Student-t or half-Normal sites and an additive mean is understood, and others start from their priors.

For Normal sites with known scales the optimum of an independent Normal guide has exactly these standard deviations
(Bishop 2006, section 10.1.2: the inverse diagonal of the precision).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch.distributions import biject_to, constraints

from vihier.inference.centres import Substitute, values_of
from vihier.inference.sites import Site, Sites
from vihier.models.batch import Batch

N_SWEEPS = 6
N_LOCAL_SWEEPS = 4
# Blocks looked at for the shared sites; their means are known well enough from half a million rows.
MAX_ROWS = 500_000
# A scale that starts within this factor of zero would never be left by a guide in its logarithm.
SMALLEST_SCALE = 1e-3
DEFAULT_SD = 0.3


@dataclass(frozen=True)
class Start:
    """Unconstrained location and standard deviation of every latent site of a batch, in the shapes of the guide."""

    loc: Mapping[str, torch.Tensor]
    sd: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Child:
    """A site whose distribution is understood, with its residuals."""

    value: torch.Tensor
    loc: torch.Tensor | None
    scale: torch.Tensor


def _understood(node: Mapping[str, Any]) -> _Child | None:
    fn = node["fn"]
    while type(fn).__name__ == "Independent":
        fn = fn.base_dist
    kind, value = type(fn).__name__, node["value"]
    if value is None or (node["infer"] or {}).get("_deterministic"):
        return None
    if kind in ("Normal", "StudentT"):
        return _Child(value, fn.loc, fn.scale)
    if kind == "LogNormal":
        return _Child(value.log(), fn.loc, fn.scale)
    if kind == "HalfNormal":
        return _Child(value, None, fn.scale)
    return None


class _Sweep:
    """One look at a batch: children, and the derivatives of their locations and scales with respect to the sites."""

    def __init__(self, model: Callable[[Batch], Any], batch: Batch, values: Mapping[str, torch.Tensor]) -> None:
        self.leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
        with Substitute(self.leaves):
            trace = pyro.poutine.trace(model).get_trace(batch)
        nodes = {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}
        self.children: dict[str, _Child] = {}
        for name, node in nodes.items():
            child = _understood(node) if hasattr(node["fn"], "support") else None
            if child is not None:
                self.children[name] = child

    def parents_of(self, tensor: torch.Tensor | None) -> list[str]:
        """Sites that a location or a scale depends on."""
        if tensor is None or not tensor.requires_grad:
            return []
        found = torch.autograd.grad(tensor.sum(), list(self.leaves.values()), retain_graph=True, allow_unused=True)
        return [name for name, gradient in zip(self.leaves, found, strict=True) if gradient is not None]

    def forward(self, tensor: torch.Tensor, along: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the change of `tensor` when the sites move as `along` says (forward mode by two reverse passes)."""
        dummy = torch.zeros_like(tensor, requires_grad=True)
        leaves = [self.leaves[name] for name in along]
        pulled = torch.autograd.grad(tensor, leaves, dummy, create_graph=True)
        return torch.autograd.grad(pulled, dummy, list(along.values()), retain_graph=True)[0]

    def back(self, tensor: torch.Tensor, name: str, weights: torch.Tensor) -> torch.Tensor:
        """Sum over elements of `tensor` of weights times derivative with respect to each element of a site."""
        return torch.autograd.grad(tensor, self.leaves[name], weights.expand(tensor.shape), retain_graph=True)[0]


@dataclass
class _Sums:
    """What children say of a site: weighted residuals and weights (locations), squares and counts (scales)."""

    first: torch.Tensor
    second: torch.Tensor


class InitialValues:
    """Finds starting values for a program on gene blocks.

    Parameters
    ----------
    model
        The program.
    sites
        Its sites.
    blocks
        The screen in gene blocks.
    """

    def __init__(self, model: Callable[[Batch], Any], sites: Sites, blocks: Sequence[Batch]) -> None:
        self.model, self.sites, self.blocks = model, sites, blocks
        self._site = {site.name: site for site in sites.latent}
        first = blocks[0]
        centres = values_of(model, first, {})
        n_blocks = min(len(blocks), max(1, round(len(blocks) * MAX_ROWS / first.n_rows)))
        self._numbers = [round(i * len(blocks) / n_blocks) for i in range(n_blocks)]
        self.spread = _spread([blocks[number] for number in self._numbers])
        self.values: dict[str, torch.Tensor] = {}
        for site in sites.shared:
            self.values[site.name] = self._moderate(site, centres[site.name])
        self.sds = {site.name: torch.full_like(self.values[site.name], DEFAULT_SD) for site in sites.shared}
        self._read_dependence(first)

    def _moderate(self, site: Site, value: torch.Tensor) -> torch.Tensor:
        # Priors of scales are far wider than lfc values spread; starting there would smear everything.
        return value.clamp(max=self.spread) if site.support is constraints.positive else value

    def _read_dependence(self, batch: Batch) -> None:
        look = _Sweep(self.model, batch, {**self.values, **self._fresh_locals(batch)})
        loc_parents = {name: look.parents_of(child.loc) for name, child in look.children.items()}
        scale_parents = {name: look.parents_of(child.scale) for name, child in look.children.items()}
        self.children_in_loc = {
            name: [child for child, parents in loc_parents.items() if name in parents]
            for name, site in self._site.items()
            if site.support in (constraints.real, constraints.real_vector)
        }
        self.children_in_scale = {
            name: [child for child, parents in scale_parents.items() if name in parents]
            for name, site in self._site.items()
            if site.support is constraints.positive
        }

    def _fresh_locals(self, batch: Batch) -> dict[str, torch.Tensor]:
        centres = values_of(self.model, batch, self.values)
        return {site.name: self._moderate(site, centres[site.name]) for site in self.sites.local}

    def find_shared(self) -> Start:
        """Sweep over blocks (a sample of them where there are many rows) until the shared sites are settled."""
        numbers = self._numbers
        locations, scales = self._groups()
        local = {number: self._fresh_locals(self.blocks[number]) for number in numbers}
        sds: dict[int, dict[str, torch.Tensor]] = {number: {} for number in numbers}
        for sweep in range(N_SWEEPS):
            # The first sweep explains by shared sites what these can, before genes take up the rest.
            if sweep:
                for number in numbers:
                    local[number], sds[number] = self._settle_locals(self.blocks[number], local[number])
            for group in [*locations, scales] if sweep else locations:
                sums: dict[str, _Sums] = {}
                for number in numbers if self._needs_rows(group) else numbers[:1]:
                    values, spread = {**self.values, **local[number]}, {**self.sds, **sds[number]}
                    self._add_up(self.blocks[number], values, spread, group, sums)
                self._apply(sums)
        return self._unconstrained(self.values, self.sds)

    def _needs_rows(self, names: Iterable[str]) -> bool:
        """Whether a child of one of these sites is local, so that every block has something to say."""
        children = {child for name in names for child in self._children_of(name)}
        return any(child not in self._site or self._site[child].local_plate is not None for child in children)

    def _children_of(self, name: str) -> list[str]:
        return self.children_in_loc.get(name) or self.children_in_scale.get(name) or []

    def find_locals(self, batch: Batch) -> Start:
        """Find starting values for the sites of one block, given the shared ones."""
        values = self._fresh_locals(batch)
        sds: dict[str, torch.Tensor] = {}
        for _ in range(N_LOCAL_SWEEPS):
            values, sds = self._settle_locals(batch, values)
        return self._unconstrained(values, sds)

    def take(self, known: Callable[[Batch, Sequence[Site]], Mapping[str, torch.Tensor]]) -> Start:
        """Take values that are known, NaN where they are not and the prior is to say; return the shared sites.

        Parameters
        ----------
        known
            Given a batch and sites, their values.
        """
        self._known = known
        first = self.blocks[0]
        values = values_of(self.model, first, known(first, self.sites.shared))
        self.values = {site.name: values[site.name] for site in self.sites.shared}
        sums: dict[str, _Sums] = {}
        for batch in self.blocks:
            values = {**self.values, **self._taken(batch)}
            self._add_up(batch, values, self.sds, self._answering(self.values), sums)
        self.sds |= self._sds_from(first, {**self.values, **self._taken(first)}, sums)
        return self._unconstrained(self.values, self.sds)

    def take_locals(self, batch: Batch) -> Start:
        """Return the values of one block's sites by the source that `take` was given."""
        values = self._taken(batch)
        sums: dict[str, _Sums] = {}
        self._add_up(batch, {**self.values, **values}, self.sds, self._answering(values), sums)
        sds = {name: torch.full_like(value, DEFAULT_SD) for name, value in values.items()}
        return self._unconstrained(values, sds | self._sds_from(batch, {**self.values, **values}, sums))

    def _answering(self, names: Iterable[str]) -> list[str]:
        """Sites of which some child that is understood has something to say."""
        return [name for name in names if self._children_of(name)]

    def _taken(self, batch: Batch) -> dict[str, torch.Tensor]:
        values = values_of(self.model, batch, {**self.values, **self._known(batch, self.sites.local)})
        return {site.name: values[site.name] for site in self.sites.local}

    def _sds_from(
        self, batch: Batch, values: Mapping[str, torch.Tensor], sums: Mapping[str, _Sums]
    ) -> dict[str, torch.Tensor]:
        look = _Sweep(self.model, batch.with_one_row(), values)
        return {name: self._moved(name, look, total)[1] for name, total in sums.items()}

    def _groups(self) -> tuple[list[list[str]], list[str]]:
        """Shared locations in groups that can move at once, having no child in common; shared scales."""
        groups: list[list[str]] = []
        taken: list[set[str]] = []
        shared = {site.name for site in self.sites.shared}
        for name in [name for name in self.children_in_loc if name in shared and self._children_of(name)]:
            children = {*self.children_in_loc[name], name}
            place = next((i for i, used in enumerate(taken) if not used & children), len(groups))
            if place == len(groups):
                groups.append([])
                taken.append(set())
            groups[place].append(name)
            taken[place] |= children
        return groups, [name for name in self.children_in_scale if name in shared and self._children_of(name)]

    def _settle_locals(
        self, batch: Batch, values: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Move each local site of a block in turn."""
        values = dict(values)
        sds = {name: torch.full_like(value, DEFAULT_SD) for name, value in values.items()}
        locations = [name for name in values if self.children_in_loc.get(name)]
        scales = [name for name in values if self.children_in_scale.get(name)]
        for names in [*([name] for name in locations), scales]:
            if names:
                sums: dict[str, _Sums] = {}
                look = self._add_up(batch, {**self.values, **values}, {**self.sds, **sds}, names, sums)
                for name in names:
                    values[name], sds[name] = self._moved(name, look, sums[name])
        return values, sds

    def _add_up(
        self,
        batch: Batch,
        values: Mapping[str, torch.Tensor],
        sds: Mapping[str, torch.Tensor],
        names: Iterable[str],
        sums: dict[str, _Sums],
    ) -> _Sweep:
        """Add what the children in this batch say of the sites named."""
        look = _Sweep(self.model, batch, values)
        for name in names:
            seen = name in sums
            total = sums.setdefault(name, _Sums(torch.zeros_like(values[name]), torch.zeros_like(values[name])))
            for child in self._children_of(name):
                site = self._site.get(child)
                if seen and site is not None and site.local_plate is None:
                    continue  # a shared child is the same in every block
                add = self._of_location if name in self.children_in_loc else self._of_scale
                first, second = add(look, name, child, sds)
                total.first += first
                total.second += second
        return look

    def _of_location(
        self, look: _Sweep, name: str, child: str, sds: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        it = look.children[child]
        assert it.loc is not None
        precision = it.scale.detach() ** -2
        unit = look.forward(it.loc, {name: torch.ones_like(look.leaves[name])})
        residual = (it.value - it.loc).detach()
        return look.back(it.loc, name, precision * residual), look.back(it.loc, name, precision * unit)

    def _of_scale(
        self, look: _Sweep, name: str, child: str, sds: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        it = look.children[child]
        scale = it.scale.detach()
        residual = it.value.detach() if it.loc is None else (it.value - it.loc).detach()
        square = residual**2
        site = self._site.get(child)
        if site is not None and site.support is not constraints.positive and child in sds:
            square = square + sds[child] ** 2
        of_child = [parent for parent, children in self.children_in_loc.items() if child in children]
        parents = [parent for parent in of_child if parent in sds]
        if it.loc is not None and it.loc.requires_grad and parents:
            square = square + look.forward(it.loc, {parent: sds[parent] ** 2 for parent in parents}).clamp(min=0)
        here = look.leaves[name].detach()
        return (
            look.back(it.scale, name, square / scale**3) * here**3,
            look.back(it.scale, name, 1 / scale) * here,
        )

    def _moved(self, name: str, look: _Sweep, sums: _Sums) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the new value of a site and its standard deviation (of the logarithm, for a scale)."""
        here = look.leaves[name].detach()
        own = look.children.get(name)
        if name in self.children_in_loc:
            precision = sums.second.clamp(min=0)
            pull = sums.first
            if own is not None and own.loc is not None:
                prior = own.scale.detach() ** -2
                precision, pull = precision + prior, pull + prior * (own.loc.detach() - here)
            return _where_finite(here + pull / precision, here), _where_finite(precision**-0.5, DEFAULT_SD)
        # A half-Normal prior is in the maximum below; any other is left to the optimisation, which starts here.
        half_normal = own is not None and own.loc is None
        prior_scale = own.scale.detach() if own and half_normal else torch.full_like(here, 10 * self.spread)
        squares, counts = sums.first.clamp(min=0), sums.second
        # Maximum over x = log(scale) of -n x - SS exp(-2 x) / 2 - exp(2 x) / (2 prior_scale^2) + x.
        fewer = counts - 1
        variance = prior_scale**2 / 2 * ((fewer**2 + 4 * squares / prior_scale**2).sqrt() - fewer)
        variance = _where_finite(variance, here**2).clamp(min=(SMALLEST_SCALE * self.spread) ** 2)
        curvature = 2 * squares / variance + 2 * variance / prior_scale**2
        return variance.sqrt(), _where_finite(curvature**-0.5, DEFAULT_SD).clamp(max=1.0)

    def _apply(self, sums: Mapping[str, _Sums]) -> None:
        if not sums:
            return
        look = _Sweep(self.model, self.blocks[0].with_one_row(), {**self.values, **self._fresh_locals(self.blocks[0])})
        moved = {name: self._moved(name, look, total) for name, total in sums.items()}
        for name, (value, sd) in moved.items():
            self.values[name], self.sds[name] = value, sd

    def _unconstrained(self, values: Mapping[str, torch.Tensor], sds: Mapping[str, torch.Tensor]) -> Start:
        loc = {name: biject_to(self._site[name].support).inv(value) for name, value in values.items()}
        sd = {
            name: sds[name] if sds[name].shape == loc[name].shape else torch.full_like(loc[name], DEFAULT_SD)
            for name in loc
        }
        return Start(loc, sd)


def _spread(blocks: Sequence[Batch]) -> float:
    """Return the standard deviation of `lfc` over blocks; 1 where there is none."""
    values = [block.lfc.double() for block in blocks if block.lfc is not None]
    spread = float(torch.cat(values).std()) if sum(len(part) for part in values) > 1 else 1.0
    return spread if 0 < spread < float("inf") else 1.0


def _where_finite(value: torch.Tensor, otherwise: torch.Tensor | float) -> torch.Tensor:
    return torch.where(torch.isfinite(value), value, otherwise)
