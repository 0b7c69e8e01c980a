"""The sweeps leave the exact posterior of scales and locations as it is, and reach it from elsewhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import pyro.distributions as dist
import pytest
import torch
from dense_model import CPU, F64, dense_model, random_log_scales, uneven_screen, whole
from programs import PROGRAMS
from torch import Tensor
from unit_noise import UnitNoise

import vihier.guides.deviations
import vihier.guides.gene_chains
import vihier.guides.interweave
import vihier.inference.device
from vihier.guides.block import (
    SHARED,
    Block,
    Theta,
    align,
    deviation_sd,
    make_block,
    scale_log_prior,
    shared_design,
    shared_sd,
    table_variance,
    variances,
)
from vihier.guides.deviations import draw_shared_deviations, shared_columns, split_table
from vihier.guides.evidence import collapse, collapsed_log_joint
from vihier.guides.gene_chains import GeneChains
from vihier.guides.interweave import Sweeper
from vihier.guides.structure import Location, Scale, Structure, log_joint, read_structure
from vihier.guides.values import centre, to_sites, unpad
from vihier.inference.batches import GeneBlocks
from vihier.kernels.elimination import NaturalParameters, draw_genes, eliminate, solve_shared
from vihier.kernels.shared_tree import Level
from vihier.models.program import load_program

SCREEN = uneven_screen()
Density = Callable[[Tensor], Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keyed(seed: int) -> Callable[..., torch.Generator]:
    return functools.partial(vihier.inference.device.generator, CPU, seed)


# Deviations of one table.


def test_split_table_is_the_conditional_given_the_total() -> None:
    """Several locations over the same plates, of different reach: Normal given their weighted sum."""
    structure = read_structure(PROGRAMS["deep"], whole(SCREEN))
    block = make_block(structure, whole(SCREEN))
    theta = random_log_scales(PROGRAMS["deep"], whole(SCREEN), 1)
    first, second = structure.table(("sgrna",))
    assert (first.reach, second.reach) == (1.0, -2.0)
    n_places = block.filled.numel()
    n = 1 + 2 * n_places
    many = {name: value.expand(*value.shape[:-1], n) for name, value in theta.items()}
    total = torch.randn(*block.filled.shape, 1, generator=generator(), dtype=F64).expand(-1, -1, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vihier.guides.deviations, "normal_like", UnitNoise(n))
        parts = split_table(structure, ("sgrna",), many, block, total, generator())
    torch.testing.assert_close(parts["first"] - 2 * parts["second"], total, atol=1e-12, rtol=0)
    variance = torch.stack(
        [deviation_sd(structure, x, theta, block)[..., 0].expand(block.filled.shape).square() for x in (first, second)],
        -1,
    )
    reach = torch.tensor([1.0, -2.0], dtype=F64)
    gain = variance * reach / (variance * reach.square()).sum(-1, keepdim=True)
    expected = torch.diag_embed(variance) - gain[..., :, None] * (variance * reach)[..., None, :]
    drawn = torch.stack([parts["first"], parts["second"]], -2)
    root = drawn[..., 1:] - drawn[..., :1]
    torch.testing.assert_close(drawn[..., 0], gain * total[..., :1], atol=1e-12, rtol=0)
    torch.testing.assert_close(root @ root.mT, expected, atol=1e-12, rtol=0)


# Moves of scales.


def joint_density(structure: Structure, block: Block, theta: Theta, deviations: Theta) -> Tensor:
    deviations = dict(deviations)
    for location in structure.table(("sgrna",)):
        deviations[location.name] = unpad(deviations[location.name], block)
    values = centre(structure, structure.locations, deviations, {}, block)
    known = {name: value[..., 0] for name, value in values.items()}
    known |= {name: value[..., 0].exp() for name, value in theta.items()}
    jacobian = torch.stack([value.sum() for value in theta.values()]).sum()
    return log_joint(structure, known, block.batch) + jacobian


def stretched(structure: Structure, block: Block, before: Theta, after: Theta) -> Tensor:
    """Log of the factor by which deviations were stretched, summed over those that are there."""
    total = torch.zeros((), dtype=F64)
    for location in structure.locations:
        ratio = (after[location.name] / before[location.name]).log()
        total = total + (unpad(ratio, block) if location.plates == ("sgrna",) else ratio).sum()
    return total


class CheckedGenes(GeneChains):
    """Holds the moves of genes' own scales to the log joint density, as `CheckedSweeper` does those of shared ones."""

    sweeper: CheckedSweeper

    def checked(self, theta: Theta, move: Callable[[], None]) -> None:
        shared = self.sweeper.shared
        before = dict(self.deviations)
        joint = joint_density(self.structure, self.block, theta, shared | before)
        move()
        gained = joint_density(self.structure, self.block, theta, shared | self.deviations) - joint
        everything = (shared | before, shared | self.deviations)
        self.sweeper.gained(gained + stretched(self.structure, self.block, *everything))

    def move_held(self, theta: Theta, scale: Scale, users: Sequence[Location]) -> None:
        self.checked(theta, lambda: super(CheckedGenes, self).move_held(theta, scale, users))

    def move_in_tree(self, theta: Theta, scale: Scale) -> None:
        before = self.sweeper.given_shared(theta)
        super().move_in_tree(theta, scale)
        self.sweeper.gained(self.sweeper.given_shared(theta) - before)

    def move_with_rows(self, theta: Theta, scale: Scale, location: Location) -> None:
        self.checked(theta, lambda: super(CheckedGenes, self).move_with_rows(theta, scale, location))


class CheckedSweeper(Sweeper):
    """Holds every move to the log joint density: what a move believes to gain by a step is what is gained.

    A move is one step along a path, with all that the step takes with it. On the path the density is the joint one, in
    log-scales and deviations, times the factor by which deviations are stretched.
    """

    moves: int = 0

    def __init__(
        self, structure: Structure, block: Block, monkeypatch: pytest.MonkeyPatch, shared: Theta | None = None
    ) -> None:
        super().__init__(structure, [block], keyed(2), shared)
        checked = CheckedGenes(structure, block, generator(3))
        checked.sweeper, self.parts = self, [checked]
        self.gains: list[Tensor] = []
        monkeypatch.setattr(vihier.guides.interweave, "slice_sample", step_instead(self.gains))
        monkeypatch.setattr(vihier.guides.gene_chains, "slice_sample", step_instead(self.gains))

    @property
    def deviations(self) -> Theta:
        return self.shared | self.parts[0].deviations

    def checked(self, theta: Theta, move: Callable[[], None]) -> None:
        before, joint = self.deviations, joint_density(self.structure, self.block, theta, self.deviations)
        move()
        gained = joint_density(self.structure, self.block, theta, self.deviations) - joint
        self.gained(gained + stretched(self.structure, self.block, before, self.deviations))

    def _move_noise(self, theta: Theta, scale: Scale) -> None:
        self.checked(theta, lambda: super(CheckedSweeper, self)._move_noise(theta, scale))

    def _move_held(self, theta: Theta, scale: Scale, moved: Sequence[Scale], prior: Callable[..., Tensor]) -> None:
        self.checked(theta, lambda: super(CheckedSweeper, self)._move_held(theta, scale, moved, prior))

    def _move_with_rows(
        self, theta: Theta, scale: Scale, family: Sequence[Scale], location: Location, prior: Callable[..., Tensor]
    ) -> None:
        move = super()._move_with_rows
        if location.plates not in SHARED:
            self.checked(theta, lambda: move(theta, scale, family, location, prior))

    def _move_in_tree(self, theta: Theta, scale: Scale, family: Sequence[Scale], prior: Callable[..., Tensor]) -> None:
        before = self.given_shared(theta)
        super()._move_in_tree(theta, scale, family, prior)
        self.gained(self.given_shared(theta) - before)

    def given_shared(self, theta: Theta) -> Tensor:
        """Log joint of rows and scales given the shared locations, with the genes' integrated out."""
        spread = variances(self.structure, theta, self.block)
        evidence = eliminate(self.block.data, spread, self._columns()).log_evidence.sum()
        priors = [scale_log_prior(self.structure, x, theta, self.block).sum() for x in self.structure.scales]
        return evidence + torch.stack(priors).sum()

    def _move_collapsed(self, theta: Theta, scale: Scale, weight: Tensor, rhs: Tensor, level: Level) -> None:
        design = shared_design(self.structure, self.block)
        assert design is not None
        resolution, coarse = design
        given_weight, given_rhs = weight, rhs
        if resolution is not None:
            weight, rhs = resolution.T @ weight, resolution.T @ rhs
        before = self.integrated(theta, weight, rhs, shared_sd(self.structure, theta, self.block), coarse)
        super()._move_collapsed(theta, scale, given_weight, given_rhs, level)
        after = self.integrated(theta, weight, rhs, shared_sd(self.structure, theta, self.block), coarse)
        self.gained(after - before)

    def _move_collapsed_lines(self, theta: Theta, scale: Scale, weight: Tensor, rhs: Tensor) -> None:
        none = weight.new_zeros(len(weight), 0)
        before = self.integrated(theta, weight, rhs, self.line_sd(theta), none)
        super()._move_collapsed_lines(theta, scale, weight, rhs)
        self.gained(self.integrated(theta, weight, rhs, self.line_sd(theta), none) - before)

    def line_sd(self, theta: Theta) -> Tensor:
        variance = table_variance(self.structure, ("line",), theta, self.block)
        assert variance is not None
        return variance.sqrt().expand(self.block.batch.n_lines, -1).T

    def integrated(self, theta: Theta, weight: Tensor, rhs: Tensor, sd: Tensor, coarse: Tensor) -> Tensor:
        """Log joint of the scales with the shared tables integrated out by dense linear algebra."""
        evidence = solve_shared(NaturalParameters(torch.diag_embed(weight.T), rhs.T), sd, coarse).log_evidence.sum()
        priors = [scale_log_prior(self.structure, x, theta, self.block).sum() for x in self.structure.scales]
        return evidence + torch.stack(priors).sum()

    def gained(self, gain: Tensor) -> None:
        assert float(self.gains.pop()) == pytest.approx(float(gain), abs=1e-9, rel=1e-9)
        self.moves += 1


def step_instead(gains: list[Tensor]) -> Callable[..., Tensor]:
    """A stand-in for `slice_sample` that takes a random step and notes what the density says of it."""

    def step(density: Density, start: Tensor, random: torch.Generator, width: float = 1.0) -> Tensor:
        end = start + 0.3 * torch.randn(start.shape, generator=random, dtype=start.dtype)
        ends = density(torch.stack([start, end], -2))
        gains.append((ends[..., 1, :] - ends[..., 0, :]).sum())
        return end

    return step


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_move_follows_the_joint_density(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = PROGRAMS[name], whole(SCREEN)
    structure = read_structure(model, batch)
    sweeper = CheckedSweeper(structure, make_block(structure, batch), monkeypatch)
    theta = random_log_scales(model, batch, 1)
    for _ in range(2):
        theta = sweeper.sweep(theta)
    assert sweeper.moves >= 2 * len(structure.scales)
    # What is kept up to date move by move is what the deviations say.
    part, data = sweeper.parts[0], sweeper.block.data
    columns, slots = torch.zeros_like(part.columns), torch.zeros_like(part.slots)
    for location in structure.locations:
        value = location.reach * sweeper.deviations[location.name]
        if location.plates == ("sgrna",):
            slots = slots + value
        else:
            columns = columns + align(value, location.plates, ("gene", "line"), sweeper.block)
    residual = data.line_total - data.line_count * columns - data.count.mT @ slots
    for mine, again in zip((part.columns, part.slots, part.residual), (columns, slots, residual), strict=True):
        torch.testing.assert_close(mine.expand(again.shape), again, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_genes_are_swept_with_all_they_share_held(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of some genes, given draws of the shared locations: only the genes' own scales move, and rightly."""
    model = PROGRAMS[name]
    batch = GeneBlocks(SCREEN, 3, CPU, F64)[0]
    structure = read_structure(model, batch)
    block = make_block(structure, batch)
    of_genes = {scale.name for scale in structure.scales if scale.plates == ("gene",)}
    theta = random_log_scales(model, whole(SCREEN), 1)
    theta = {site: value[batch.gene_idx] if site in of_genes else value for site, value in theta.items()}
    natural = collapse(structure, theta, block).natural
    assert natural is not None
    shared, _, _ = draw_shared_deviations(structure, theta, block, natural, generator(1))
    sweeper = CheckedSweeper(structure, block, monkeypatch, shared)
    after = sweeper.sweep(theta)
    assert {site for site in theta if not torch.equal(theta[site], after[site])} == of_genes
    assert all(torch.equal(sweeper.shared[site], value) for site, value in shared.items())
    assert sweeper.moves >= len(of_genes)


@pytest.mark.parametrize("name", PROGRAMS)
def test_locations_of_genes_given_what_they_share(name: str) -> None:
    """With the shared locations held, a sweep draws the genes' as `draw_genes` does, given the same numbers."""
    model, batch = PROGRAMS[name], whole(SCREEN)
    structure = read_structure(model, batch)
    block = make_block(structure, batch)
    theta = random_log_scales(model, batch, 2)
    natural = collapse(structure, theta, block).natural
    assert natural is not None
    shared, column, _ = draw_shared_deviations(structure, theta, block, natural, generator(1))
    sweeper = GeneChains(structure, block, generator(9))
    assert shared_columns(structure, shared, block) is not None
    torch.testing.assert_close(shared_columns(structure, shared, block), column, atol=1e-10, rtol=0)
    sweeper.draw_dense(theta, column)
    sweeper.draw_leaf(theta, column, None)
    spread, random = variances(structure, theta, block), generator(9)
    given = eliminate(block.data, spread, column)
    noise, leaf_noise = (torch.randn(x.shape, generator=random, dtype=F64) for x in (given.scale, given.weight))
    dense, leaf = draw_genes(block.data, spread, given, noise, leaf_noise)
    n_slots = 0 if spread.sgrna is None else block.data.count.shape[1]
    n_lineages = 0 if spread.gene_lineage is None else block.data.lineage.shape[1]
    slots, lineages, gene = dense.transpose(1, 2).split(
        [n_slots, n_lineages, dense.shape[2] - n_slots - n_lineages], dim=1
    )
    columns = column + leaf + gene.sum(1, keepdim=True)
    if n_lineages:
        columns = columns + block.data.lineage @ lineages
    torch.testing.assert_close(sweeper.columns, columns, atol=1e-10, rtol=0)
    if n_slots:
        torch.testing.assert_close(sweeper.slots, slots, atol=1e-10, rtol=0)


# Draws of locations.


def joined(structure: Structure, sweeper: Sweeper) -> Theta:
    """Deviations of all genes' locations, sgRNAs not padded, block by block."""
    found: Theta = {}
    for location in structure.locations:
        if location.plates not in SHARED:
            parts = [part.deviations[location.name] for part in sweeper.parts]
            if location.plates == ("sgrna",):
                parts = [unpad(values, part.block) for values, part in zip(parts, sweeper.parts, strict=True)]
            found[location.name] = torch.cat(parts)
            if location.plates == ("sgrna",):
                of_parts = torch.cat([part.block.batch.sgrna_idx for part in sweeper.parts])
                found[location.name] = found[location.name][of_parts.argsort()]
    return found


@pytest.mark.parametrize("n_genes", [2, 100])
@pytest.mark.parametrize("name", PROGRAMS)
def test_draws_of_locations_leave_their_posterior_as_it_is(
    name: str, n_genes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the scales, a sweep's draw of all locations is affine in the shared ones before it and in its noise.

    Shared locations with the exact posterior's mean and covariance go in; the exact joint mean and covariance of all
    locations must come out.
    """
    model, batch = PROGRAMS[name], whole(SCREEN)
    structure = read_structure(model, batch)
    block = make_block(structure, batch)
    blocks = [make_block(structure, x) for x in GeneBlocks(SCREEN, min(n_genes, SCREEN.n_genes), CPU, F64)]
    one = random_log_scales(model, batch, 1)

    def repeat(n: int) -> Theta:
        return {site: value.expand(*value.shape[:-1], n) for site, value in one.items()}

    def exact_shared(n: int) -> tuple[Theta, int]:
        noise = UnitNoise(n)
        monkeypatch.setattr(vihier.guides.deviations, "normal_like", noise)
        natural = collapse(structure, repeat(n), block).natural
        assert natural is not None
        return draw_shared_deviations(structure, repeat(n), block, natural, generator())[0], noise.used

    def sweep_from(shared: Theta, n: int, silent: int) -> tuple[Theta, int]:
        noise = UnitNoise(n, silent)
        monkeypatch.setattr(vihier.guides.deviations, "normal_like", noise)
        monkeypatch.setattr(vihier.guides.interweave, "normal_like", noise)
        monkeypatch.setattr(vihier.guides.gene_chains, "normal_like", noise)
        sweeper = Sweeper(structure, blocks, keyed(0))
        sweeper.shared, sweeper.pairs, sweeper.spread = dict(shared), [], None
        sweeper.sweep(repeat(n))
        return sweeper.shared | joined(structure, sweeper), noise.used

    # The scales are held, so that the draw is affine; one block after the other, so that the noise comes in order.
    held = lambda density, start, random, width=0.0: start  # noqa: E731
    monkeypatch.setattr(vihier.guides.interweave, "slice_sample", held)
    monkeypatch.setattr(vihier.guides.gene_chains, "slice_sample", held)
    monkeypatch.setattr(vihier.guides.interweave, "in_threads", lambda function, items, _: map(function, items))
    n_before = exact_shared(997)[1]
    n_after = sweep_from(exact_shared(997)[0], 997, 1)[1]
    n = 1 + n_before + n_after
    before, _ = exact_shared(n)
    # Draw 0 has no noise at all, the next have one normal each before the sweep, the others during it.
    drawn, _ = sweep_from(before, n, 1 + n_before)
    sites = to_sites(structure, centre(structure, structure.locations, drawn, {}, block))
    dense = dense_model(model, batch, {site: value[..., 0] for site, value in one.items()})
    flat = torch.cat([sites[site].reshape(n, -1) for site in dense.shapes], 1)
    root = flat[1:] - flat[:1]
    torch.testing.assert_close(flat[0], dense.mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(root.T @ root, dense.covariance, atol=1e-9, rtol=0)


# All together.

TIGHT = {
    "additive": ["mu_mu_alpha", "mu_mu_beta", "mu_gamma"],
    "gene_lineage": ["mu_mu_mu_gamma"],
}


def tight_program(name: str) -> Callable[..., None]:
    """A model whose unindexed scales and offsets are near one a priori, so that importance sampling can do it."""
    structure = read_structure(load_program(name).model, whole(SCREEN))
    priors = {scale.name: "HalfNormal(0.7)" for scale in structure.scales if not scale.plates}
    return load_program(name, priors | dict.fromkeys(TIGHT[name], "Normal(0, 1)")).model


def prior_draws(structure: Structure, block: Block, n: int) -> Theta:
    """Draws of all log-scales from their priors."""
    sizes = {"gene": len(block.data.count), "line": len(block.data.lineage), "lineage": block.data.lineage.shape[1]}
    found: Theta = {}
    for scale in structure.scales:
        shape = (*(sizes[plate] for plate in scale.plates), n)
        arguments = {
            argument.name: torch.full(shape, argument.factor, dtype=F64)
            if argument.source is None
            else argument.value_at(found[argument.source].expand(shape))
            for argument in scale.arguments
        }
        found[scale.name] = scale.family(**arguments).sample().log()
    return found


def importance_sample(structure: Structure, block: Block, n: int) -> tuple[Theta, Tensor]:
    """Draws of the log-scales with weights for the posterior: the rows' scale from a Normal, the others a priori."""
    assert structure.noise is not None
    scale = next(scale for scale in structure.scales if scale.name == structure.noise)
    theta, weights = prior_draws(structure, block, n), []
    proposal = dist.Normal(math.log(0.5), 0.4)
    theta[scale.name] = proposal.sample((n,)).double()
    names = [x.name for x in structure.scales]
    for part in torch.arange(n).split(20_000):
        some = {name: theta[name][..., part] for name in names}
        prior = torch.zeros(len(part), dtype=F64)
        for other in structure.scales:
            if other is not scale:
                prior = prior + scale_log_prior(structure, other, some, block).reshape(-1, len(part)).sum(0)
        weights.append(collapsed_log_joint(structure, some, block) - prior - proposal.log_prob(some[scale.name]))
    return theta, torch.softmax(torch.cat(weights), 0)


@pytest.mark.parametrize(("name", "n_genes"), [("additive", 3), ("gene_lineage", 3), ("additive", 1)])
def test_sweeps_reach_the_posterior_of_the_scales(name: str, n_genes: int) -> None:
    """1,500 chains from a crude start agree with importance sampling on every scale's distribution."""
    screen = uneven_screen((1, 3, 2), 4)
    batch = whole(screen)
    structure = read_structure(tight_program(name), batch)
    block = make_block(structure, batch)
    n_chains = 1500
    with torch.random.fork_rng():
        torch.manual_seed(8)
        exact, weight = importance_sample(structure, block, 60_000)
        theta = {site: 0.3 * torch.randn((*value.shape[:-1], n_chains), dtype=F64) - 1 for site, value in exact.items()}
    effective = float(1 / weight.square().sum())
    assert effective > 500
    blocks = [make_block(structure, x) for x in GeneBlocks(screen, n_genes, CPU, F64)]
    sweeper = Sweeper(structure, blocks, keyed(5))
    for _ in range(80):  # with rows this few, sigma takes 50 sweeps to forget its start
        theta = sweeper.sweep(theta)
    worst = 0.0
    for site, value in exact.items():
        for of_all, of_chains in zip(
            value.reshape(-1, value.shape[-1]), theta[site].reshape(-1, n_chains), strict=True
        ):
            order = of_all.argsort()
            below = weight[order].cumsum(0)
            for probability in (0.05, 0.25, 0.5, 0.75, 0.95):
                at = of_all[order][int(torch.searchsorted(below, probability))]
                inside = of_all <= at
                known = float(weight[inside].sum())
                error = (weight * (inside.double() - known)).square().sum() + known * (1 - known) / n_chains
                worst = max(worst, abs(float((of_chains <= at).double().mean()) - known) / math.sqrt(float(error)))
    # Standard errors of both sides together; of some 60 comparisons none is beyond 4.5 but once in 2,000 times.
    assert worst < 4.5
