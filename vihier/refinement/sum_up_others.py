"""Sum up, once, what the genes that are not refined say of everything that genes share.

Each gene's own scales are integrated out over draws of them given the shared ones: the guide's draws, moved by sweeps
that leave their exact conditional unchanged. With l the log density of a gene's rows and own scales, its locations
integrated out in closed form, the score of its likelihood log L is E[l'], and the curvature -E[l''] - Var[l'] (Louis
1982, J. R. Stat. Soc. B 44, 226). Shared scales that many genes know well are so expanded to second order about the
guide's centre. For those that are known badly (they may pile up at zero, where log L is flat), the score is found at
points along the whole range of the guide's draws instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vihier.guides.block import SHARED, Block, Theta, shared_design, variances
from vihier.guides.deviations import shared_columns
from vihier.guides.evidence import collapse, gene_log_prior, sum_natural
from vihier.guides.interweave import Sweeper
from vihier.guides.structure import Structure
from vihier.kernels.elimination import NaturalParameters, eliminate
from vihier.refinement.log_scales import LogScales
from vihier.refinement.other_genes import OtherGenes, Profiles

# Draws of each gene's own scales, and elements of an array [genes, lines, draws] held at a time.
MOST_DRAWS, FEWEST_DRAWS = 512, 16
ELEMENTS_AT_ONCE = 400_000
SWEEPS = 4
# Of the central differences: their error is about its square, and rounding (1e-16 of values of 1e4) far below.
STEP = 1e-3
# A log-scale of a larger posterior sd has a profile, at so many points on either side of the centre.
PROFILED_FROM, POINTS = 0.15, 5

Element = tuple[str, int]


@dataclass(frozen=True)
class Centre:
    """What the other genes' likelihood is expanded about, and how far the guide strays from it.

    Attributes
    ----------
    scales : dict
        Log-scales shared by genes, one draw.
    spread : dict
        Draws of the same, [*plates, n].
    own : dict
        Draws of the genes' own log-scales for the whole screen, [G, n].
    shared : dict
        Deviations of the shared locations, one draw.
    """

    scales: Theta
    spread: Theta
    own: Theta
    shared: Theta


def sum_up_others(
    structure: Structure,
    layout: LogScales,
    blocks: Iterable[Block],
    centre: Centre,
    random: Callable[..., torch.Generator],
) -> OtherGenes | None:
    """Expand what other genes say of the shared scales and locations about the centre of a fit.

    Parameters
    ----------
    layout
        Where the log-scales of the genes that are refined are.
    blocks
        The other genes; none at all gives None.
    centre
        Of the guide's draws.
    random
        `random(*keys)` makes a generator keyed to a purpose.
    """
    names = _seen_by_genes(structure)
    elements = [(name, i) for name in names for i in range(centre.scales[name].numel())]
    grids = {element: _grid(centre, element) for element in elements if _sd(centre, element) > PROFILED_FROM}
    close = [element for element in elements if element not in grids]
    total: _Sums | None = None
    for number, block in enumerate(blocks):
        genes = _Genes(structure, block, centre, lambda *keys, n=number: random("others", n, *keys))
        sums = genes.expanded(close, grids)
        total = sums if total is None else total + sums
    if total is None:
        return None
    where = layout.positions()

    def positions(of: Iterable[Element]) -> Tensor:
        return torch.tensor([int(where[name].reshape(-1)[i]) for name, i in of], dtype=torch.long)

    values, vectors = torch.linalg.eigh(0.5 * (total.curvature + total.curvature.T))
    profiles = None
    if grids:
        profiles = Profiles(positions(grids), torch.stack(list(grids.values())), total.slopes)
    return OtherGenes(
        positions=positions(close),
        centre=total.score.new_tensor([float(centre.scales[name].reshape(-1)[i]) for name, i in close]),
        score=total.score,
        curvature=(vectors * values.clamp_min(0.0)) @ vectors.T,
        profiles=profiles,
        natural=None if total.natural is None else _positive(total.natural),
    )


@dataclass(frozen=True)
class _Sums:
    """Score [E], curvature [E, E], slopes of profiles [W, K] and natural parameters, summed over genes."""

    score: Tensor
    curvature: Tensor
    slopes: Tensor
    natural: NaturalParameters | None

    def __add__(self, other: _Sums) -> _Sums:
        natural = sum_natural([self.natural, other.natural])
        return _Sums(self.score + other.score, self.curvature + other.curvature, self.slopes + other.slopes, natural)


def _seen_by_genes(structure: Structure) -> list[str]:
    """Shared scales that genes' rows or own scales depend on, given the shared locations."""
    used = {structure.noise}
    used |= {location.scale for location in structure.locations if location.plates not in SHARED}
    used |= {source for scale in structure.scales if scale.plates == ("gene",) for source in scale.sources}
    return [scale.name for scale in structure.scales if scale.plates != ("gene",) and scale.name in used]


def _sd(centre: Centre, element: Element) -> float:
    name, i = element
    draws = centre.spread[name]
    return float(draws.reshape(-1, draws.shape[-1])[i].std())


def _grid(centre: Centre, element: Element) -> Tensor:
    """Points over the whole range of the guide's draws of a log-scale, the centre in the middle."""
    name, i = element
    draws, middle = (
        centre.spread[name].reshape(-1, centre.spread[name].shape[-1])[i],
        centre.scales[name].reshape(-1)[i],
    )
    low, high = middle - draws.min(), draws.max() - middle
    side = torch.linspace(0, 1, POINTS + 1, dtype=draws.dtype)
    return torch.cat([middle - low * side.flip(0)[:-1], middle + high * side])


class _Genes:
    """A block of other genes, their own scales drawn given the centre."""

    def __init__(
        self, structure: Structure, block: Block, centre: Centre, random: Callable[..., torch.Generator]
    ) -> None:
        self.structure, self.block, self.centre = structure, block, centre
        there = next(iter(centre.own.values())).shape[-1] if centre.own else 1
        n_genes, _, n_lines = block.data.count.shape
        self.n_draws = max(1, min(there, MOST_DRAWS, max(FEWEST_DRAWS, ELEMENTS_AT_ONCE // (n_genes * n_lines))))
        column = shared_columns(structure, centre.shared, block)
        self.level = None if column is None else column[:, 0]
        self.column = None if column is None else column.expand(-1, self.n_draws)
        self.sweeper: Sweeper | None = None
        if centre.own:
            self.sweeper = Sweeper(structure, [block], random, self._wide(centre.shared))
        own = {name: _spread_out(value, self.n_draws)[block.batch.gene_idx] for name, value in centre.own.items()}
        self.own = self._settled(own, centre.scales)

    def _wide(self, values: Theta) -> Theta:
        return {name: value.expand(*value.shape[:-1], self.n_draws).contiguous() for name, value in values.items()}

    def _settled(self, own: Theta, scales: Theta) -> Theta:
        """Move the genes' own scales to their conditional given shared ones."""
        theta = self._wide(scales) | own
        if self.sweeper is not None:
            for _ in range(SWEEPS):
                theta = self.sweeper.sweep(theta)
        return {name: theta[name] for name in own}

    def expanded(self, close: Sequence[Element], grids: dict[Element, Tensor]) -> _Sums:
        """Sum what these genes say over them."""
        score, curvature = self._expand(close)
        slopes = [self._slopes(element, grid) for element, grid in grids.items()]
        stacked = torch.stack(slopes) if slopes else score.new_zeros(0, 2 * POINTS + 1)
        return _Sums(score, curvature, stacked, self._natural())

    def _log_joint(self, scales: Theta, own: Theta) -> Tensor:
        """Log density of each gene's rows and own scales, [B, N]."""
        theta = {name: value.expand(*value.shape[:-1], self.n_draws) for name, value in scales.items()} | own
        evidence = eliminate(self.block.data, variances(self.structure, theta, self.block), self.column).log_evidence
        return evidence + gene_log_prior(self.structure, theta, self.block)

    def _expand(self, elements: Sequence[Element]) -> tuple[Tensor, Tensor]:
        """Score and curvature, by central differences of values and gradients in float64."""
        if not elements:
            return self.block.data.square.new_zeros(0), self.block.data.square.new_zeros(0, 0)
        names = list(dict.fromkeys(name for name, _ in elements))
        sizes = torch.tensor([0] + [self.centre.scales[name].numel() for name in names]).cumsum(0)
        columns = [int(sizes[names.index(name)]) + i for name, i in elements]

        def at(element: Element, by: float) -> tuple[Tensor, Tensor]:
            scales = moved(self.centre.scales, element, by)
            leaves = {name: scales[name].requires_grad_() for name in names}
            with torch.enable_grad():
                log_joint = self._log_joint(scales | leaves, self.own)
                gradients = torch.autograd.grad(log_joint.sum() / self.n_draws, [leaves[name] for name in names])
            return log_joint.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])[columns]

        scores, second = [], []
        for element in elements:
            (more, more_gradient), (less, less_gradient) = at(element, STEP), at(element, -STEP)
            scores.append((more - less) / (2 * STEP))
            second.append((more_gradient - less_gradient) / (2 * STEP))
        score = torch.stack(scores)
        spread = score - score.mean(-1, keepdim=True)
        variance = torch.einsum("ebn,fbn->ef", spread, spread) / max(self.n_draws - 1, 1)
        return score.mean(-1).sum(1), -torch.stack(second) - variance

    @torch.no_grad()
    def _slopes(self, element: Element, grid: Tensor) -> Tensor:
        """Score at the points of a grid, from its middle outwards: the draws of one point start those of the next."""
        found = torch.zeros_like(grid)
        name, i = element
        middle = self.centre.scales[name].reshape(-1)[i]
        for side in (range(POINTS, len(grid)), range(POINTS - 1, -1, -1)):
            own = self.own
            for point in side:
                scales = moved(self.centre.scales, element, float(grid[point] - middle))
                own = self._settled(own, scales)
                more = self._log_joint(moved(scales, element, STEP), own)
                less = self._log_joint(moved(scales, element, -STEP), own)
                found[point] = ((more - less) / (2 * STEP)).mean(-1).sum()
        return found

    @torch.no_grad()
    def _natural(self) -> NaturalParameters | None:
        """Expand log L in t about the centre, as natural parameters for one draw."""
        if self.level is None:
            return None
        natural = collapse(self.structure, self._wide(self.centre.scales) | self.own, self.block).natural
        design = shared_design(self.structure, self.block)
        assert natural is not None and design is not None
        level = self.level.double()
        if design[0] is not None:  # all lines of an element have the same
            level = (design[0].T @ level) / design[0].sum(0).clamp_min(1)
        scores = natural.rhs - natural.precision @ level
        spread = scores - scores.mean(0)
        precision = natural.precision.mean(0) - spread.T @ spread / max(len(scores) - 1, 1)
        return NaturalParameters(precision[None], (scores.mean(0) + precision @ level)[None])


def moved(scales: Theta, element: Element, by: float) -> Theta:
    """Return a copy of log-scales with one element moved."""
    name, i = element
    shifted = {each: value.clone() for each, value in scales.items()}
    shifted[name].view(-1)[i] += by
    return shifted


def _spread_out(values: Tensor, n: int) -> Tensor:
    """Take n draws, evenly spaced, of all, draws last."""
    return values[..., torch.linspace(0, values.shape[-1] - 1, n).round().long()]


def _positive(natural: NaturalParameters) -> NaturalParameters:
    """Have no direction in which the likelihood grows without end, as the noise of the draws might."""
    values, vectors = torch.linalg.eigh(natural.precision)
    return NaturalParameters((vectors * values.clamp_min(0.0)[:, None]) @ vectors.mT, natural.rhs)
