"""What sgRNAs and genes spread by is drawn as its density, integrated by quadrature, says, from wherever it starts."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from dense_model import F64, random_log_scales, uneven_screen, whole
from programs import PROGRAMS
from torch import Tensor

from vihier.guides.block import Block, Theta, make_block
from vihier.guides.gene_chains import GeneChains
from vihier.guides.sgrna_spread import SgrnaSums, draw_levels, move_spread, sgrna_spread, sgrna_sums
from vihier.guides.slice_sampler import slice_sample_together
from vihier.guides.structure import Structure, read_structure
from vihier.models.program import load_program

TOP_SD = math.sqrt(3.0**2 + 3.0**2 + 5.0**2)
"""Prior sd of the level that all genes share in `additive`: of mu_mu_alpha, mu_mu_beta and mu_gamma together."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def genes_of(sgrnas: tuple[int, ...]) -> tuple[Structure, Block]:
    """The additive model, and a block of genes with so many sgRNAs."""
    batch = whole(uneven_screen(sgrnas=sgrnas, n_lines=3))
    structure = read_structure(PROGRAMS["additive"], batch)
    return structure, make_block(structure, batch)


def moved(
    structure: Structure, block: Block, slots: Tensor, start: dict[str, float], n: int, rounds: int, place: bool = False
) -> tuple[Theta, Tensor]:
    """Move n chains that know what each sgRNA adds to its rows, [B, K]; return log-scales and how far genes shifted."""
    spread = sgrna_spread(structure)
    assert spread is not None
    batch = block.batch
    theta = {
        name: value.expand(*value.shape[:-1], n).clone()
        for name, value in random_log_scales(PROGRAMS["additive"], batch, 1).items()
    }
    of_genes = ("sigma_alpha", "sigma_gamma")
    theta |= {name: torch.full((len(slots), n), -1.0, dtype=F64) for name in of_genes}
    theta |= {name: torch.full((n,), value, dtype=F64) for name, value in start.items()}
    shared = {x.name: torch.zeros(n, dtype=F64) for x in structure.table(())}
    shift, random = torch.zeros(n, dtype=F64), generator()
    for sweep in range(rounds):
        sums = SgrnaSums.of(slots[..., None] + shift, block.filled)
        before = sum(shared.values(), torch.zeros(()))
        by = move_spread(structure, spread, theta, shared, sums, block, random, place and not sweep)
        # What the genes gain the shared level loses.
        torch.testing.assert_close(sum(shared.values(), torch.zeros(())), before - by, atol=1e-12, rtol=0)
        shift = shift + by
    return theta, shift


def log_density(slots: Tensor, filled: Tensor, of_genes: Tensor, above: Tensor, shift: Tensor) -> Tensor:
    """Log density of the shared log-scales and the shift at points, [M], by quadrature over each gene's own scale."""
    z = torch.linspace(-12, 4, 160, dtype=F64)[:, None, None]  # [Z, 1, 1]
    own, genes = (2 * z).exp(), (2 * of_genes).exp()[:, None]
    number = filled.sum(1)
    centred = slots[None] + shift[:, None, None]  # [M, B, K]
    mean = (centred * filled).sum(2) / number
    square = ((centred - mean[..., None]) * filled).square().sum(2)
    whole_variance = own + number * genes
    found = -0.5 * ((number - 1) * own.log() + square / own)
    found = found - 0.5 * (whole_variance.log() + number * mean.square() / whole_variance)
    prior = z - above[:, None]
    found = (found + prior - 0.5 * (2 * prior).exp()).logsumexp(0).sum(1)
    for log_scale in (of_genes, above):  # HalfNormal(3), on the log scale
        found = found + log_scale - 0.5 * (2 * log_scale).exp() / 9
    return found - 0.5 * (shift / TOP_SD).square()


SGRNAS = (4, 1, 3, 6, 2, 4)
N = 1_500


def some_genes() -> tuple[Structure, Block, Tensor]:
    """Genes of one to six sgRNAs, and what each sgRNA adds to its rows."""
    structure, block = genes_of(SGRNAS)
    random = generator(4)
    level = torch.randn(len(SGRNAS), 1, generator=random, dtype=F64)
    own = torch.tensor([0.2, 0.5], dtype=F64).repeat(3)[:, None]
    slots = 0.6 * level + own * torch.randn(block.filled.shape, generator=random, dtype=F64)
    return structure, block, slots * block.filled


@functools.cache
def exact() -> tuple[Tensor, Tensor]:
    """Means and sds of the two shared log-scales and the shift, on a grid that holds all but 1e-4 of them."""
    _, block, slots = some_genes()
    axes = [torch.linspace(a, b, 18, dtype=F64) for a, b in ((-2.5, 2.0), (-2.8, 1.4), (-2.2, 2.0))]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    filled = block.filled.to(F64)
    weight = torch.cat([log_density(slots, filled, *some) for some in points.split(1_000, 1)]).softmax(0)
    mean = points @ weight
    return mean, ((points - mean[:, None]).square() @ weight).sqrt()


@pytest.mark.parametrize("start", [{"sigma_mu_alpha": -2.0, "sigma_sigma_alpha": 0.5}, {"sigma_mu_alpha": 1.0}])
def test_shared_scales_are_drawn_from_their_density(start: dict[str, float]) -> None:
    """Genes of one to six sgRNAs; the genes' own scales and the shared level are integrated out of the truth."""
    structure, block, slots = some_genes()
    theta, shift = moved(structure, block, slots, start, N, 60)
    mean, sd = exact()
    drawn = torch.stack([theta["sigma_mu_alpha"], theta["sigma_sigma_alpha"], shift])
    # Independent chains: means within 4 standard errors, sds within the same of theirs (kurtosis up to 6).
    assert ((drawn.mean(1) - mean).abs() < 4 * sd / math.sqrt(N)).all(), (drawn.mean(1), mean, sd)
    torch.testing.assert_close(drawn.std(1), sd, rtol=4 * math.sqrt(1.25 / N), atol=0)


def test_a_genes_own_scale_is_drawn_given_the_shared_ones() -> None:
    """Ranks of the drawn scales in their conditional distribution, by quadrature, are even."""
    structure, block, slots = some_genes()
    theta, shift = moved(structure, block, slots, {}, N, 3)
    z = torch.linspace(-12, 4, 4_000, dtype=F64)[:, None]
    for gene, number in enumerate(SGRNAS):
        a = slots[gene, :number, None] + shift
        mean, square = a.mean(0), (a - a.mean(0)).square().sum(0)
        own, total = (2 * z).exp(), (2 * z).exp() + number * (2 * theta["sigma_mu_alpha"]).exp()
        density = -0.5 * ((number - 1) * own.log() + square / own + total.log() + number * mean.square() / total)
        prior = z - theta["sigma_sigma_alpha"]
        cumulative = (density + prior - 0.5 * (2 * prior).exp()).softmax(0).cumsum(0)
        place = torch.searchsorted(z[:, 0], theta["sigma_alpha"][gene]).clamp_max(len(z) - 1)
        rank = cumulative.gather(0, place[None])[0].sort().values
        distance = float((rank - (torch.arange(N) + 0.5) / N).abs().max())
        # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by one sample in a thousand; the seed is fixed.
        assert distance < 1.95 / math.sqrt(N), (gene, distance)


@pytest.mark.parametrize(("rounds", "place"), [(15, False), (2, True)])
def test_chains_leave_the_lesser_of_two_humps(rounds: int, place: bool) -> None:
    """One gene in eight depletes: either genes differ much, or the sgRNAs of some do, which is likelier by far.

    With genes' own scales held neither start leaves its hump.
    """
    structure, few = genes_of((4, 4))
    # Nothing but the number of genes and sgRNAs is asked of the block.
    filled = torch.ones(400, 4, dtype=torch.bool)
    block = replace(few, filled=filled, batch=replace(few.batch, gene_idx=torch.arange(400)))
    random = generator(5)
    essential = (torch.arange(400) % 8 == 0)[:, None].double()
    efficacy = 1 + 0.37 * torch.randn(400, 4, generator=random, dtype=F64)
    slots = 0.1 * torch.randn(400, 4, generator=random, dtype=F64) - essential * efficacy
    between = {"sigma_mu_alpha": math.log(0.32), "sigma_sigma_alpha": math.log(0.2)}
    within = {"sigma_mu_alpha": math.log(0.06), "sigma_sigma_alpha": math.log(0.33)}
    points = [[x[name] for x in (between, within)] for name in between]
    of_genes, above = torch.tensor(points, dtype=F64)
    humps = torch.stack(
        [log_density(slots, filled.double(), of_genes, above, torch.full((2,), x, dtype=F64)) for x in (0.0, 0.12)]
    ).amax(0)
    assert humps[1] > humps[0] + 30
    chains = [moved(structure, block, slots, start, 24, rounds, place)[0] for start in (between, within)]
    found = [theta["sigma_mu_alpha"] for theta in chains]
    assert all(bool((x < math.log(0.15)).all()) for x in found), found


def test_a_narrow_prior_of_genes_own_scales_is_left_to_other_moves() -> None:
    program = load_program("additive", {"sigma_alpha": "LogNormal(-1,0.05)"})
    assert sgrna_spread(read_structure(program.model, whole(uneven_screen()))) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("additive", (["mu_alpha"], ["sigma_mu_alpha", "sigma_sigma_alpha"])),
        ("crossed", (["mu_alpha", "eta"], ["sigma_mu_alpha", "sigma_eta", "sigma_sigma_alpha"])),
        ("gene_lineage", None),
    ],
)
def test_programs_that_it_is_for(name: str, expected: tuple[list[str], list[str]] | None) -> None:
    """Sites of genes, of sgRNAs and of their scales, read off the programs."""
    spread = sgrna_spread(read_structure(PROGRAMS[name], whole(uneven_screen())))
    found = spread and ([x.name for x in spread.genes], [x.name for x in spread.moved])
    assert found == expected


def test_levels_are_drawn_given_what_each_sgrna_adds() -> None:
    """Predictions of rows stay; the genes' level has the conditional mean and variance of Gaussian algebra."""
    batch, n = whole(uneven_screen()), 20_000
    structure = read_structure(PROGRAMS["additive"], batch)
    spread, block = sgrna_spread(structure), make_block(structure, batch)
    assert spread is not None
    theta = {
        name: value.expand(*value.shape[:-1], n)
        for name, value in random_log_scales(PROGRAMS["additive"], batch, 1).items()
    }
    chains = GeneChains(structure, block, generator(1))
    column = torch.zeros(block.batch.n_lines, n, dtype=F64)
    chains.draw_dense(theta, column)
    chains.draw_leaf(theta, column, None)
    before = sgrna_sums(spread, chains), chains.columns + 0, chains.slots + 0, chains.residual + 0
    shift = torch.full((n,), 0.3, dtype=F64)
    draw_levels(spread, theta, shift, chains)
    after = sgrna_sums(spread, chains)
    torch.testing.assert_close(after.mean, before[0].mean + 0.3, atol=1e-10, rtol=0)
    torch.testing.assert_close(after.square, before[0].square, atol=1e-10, rtol=0)
    rows = block.data.count[..., None] > 0
    whole_before, whole_after = (
        torch.where(rows, x[:, None] + y[:, :, None], 0.0)
        for x, y in ((before[1], before[2]), (chains.columns, chains.slots))
    )
    torch.testing.assert_close(whole_after, whole_before, atol=1e-10, rtol=0)
    torch.testing.assert_close(chains.residual, before[3], atol=1e-10, rtol=0)
    of_genes, own = (2 * theta["sigma_mu_alpha"]).exp(), (2 * theta["sigma_alpha"]).exp()
    told = after.number / own
    gain = told / (told + 1 / of_genes)
    standard = (chains.deviations["mu_alpha"] - gain * after.mean) * (told + 1 / of_genes).sqrt()
    # Of n independent normals: means within 4 / sqrt(n), sds within 4 / sqrt(2 n).
    assert float(standard.mean(1).abs().max()) < 4 / math.sqrt(n)
    assert float((standard.std(1) - 1).abs().max()) < 4 / math.sqrt(2 * n)


def test_a_box_of_intervals_leaves_a_density_as_it_is() -> None:
    """Two correlated Normals, from exact draws."""
    n, random = 20_000, generator(2)
    x = torch.randn(2, n, generator=random, dtype=F64)
    x[1] = 0.9 * x[0] + math.sqrt(1 - 0.81) * x[1]

    def density(x: Tensor) -> Tensor:
        return -0.5 * (x[0].square() + x[1].square() - 1.8 * x[0] * x[1]) / (1 - 0.81)

    for _ in range(10):
        x = slice_sample_together(density, x, random)
    assert float(x.mean(1).abs().max()) < 4 / math.sqrt(n)
    covariance = torch.cov(x)
    torch.testing.assert_close(
        covariance, torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64), atol=4 * math.sqrt(2 / n), rtol=0
    )
