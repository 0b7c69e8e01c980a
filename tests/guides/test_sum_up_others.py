"""What other genes say of all that is shared, held to their likelihood by quadrature over their own scales."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from dense_model import CPU, F64, uneven_screen, whole
from programs import PROGRAMS
from torch import Tensor

from vihier.guides.block import Block, Theta, make_block, take_genes, variances
from vihier.guides.deviations import shared_columns
from vihier.guides.evidence import gene_log_prior
from vihier.guides.structure import Structure, read_structure
from vihier.inference.batches import GeneBlocks
from vihier.inference.device import generator
from vihier.kernels.elimination import eliminate
from vihier.refinement import sum_up_others as summing
from vihier.refinement.log_posterior import LogPosterior
from vihier.refinement.other_genes import OtherGenes, Profiles
from vihier.refinement.sum_up_others import Centre, sum_up_others

N_DRAWS = 3000
STEP = 1e-3


def derivative(function: Callable[[float], Tensor], step: float = STEP) -> Tensor:
    return (function(step) - function(-step)) / (2 * step)


class Quadrature:
    """log L of genes with one scale of their own each, that scale integrated out on a grid."""

    def __init__(self, structure: Structure, block: Block, scales: Theta, shared: Theta) -> None:
        self.structure, self.block, self.scales, self.shared = structure, block, scales, shared
        (self.own,) = [scale.name for scale in structure.scales if scale.plates == ("gene",)]
        self.grid = torch.linspace(-14, 4, 2401, dtype=F64)

    def __call__(self, element: tuple[str, int] | None = None, by: float = 0.0, level: float = 0.0) -> Tensor:
        scales = self.scales if element is None else summing.moved(self.scales, element, by)
        n = len(self.grid)
        theta = {name: value.expand(*value.shape[:-1], n) for name, value in scales.items()}
        theta[self.own] = self.grid.expand(len(self.block.batch.gene_idx), n)
        column = shared_columns(self.structure, self.shared, self.block)
        assert column is not None
        spread = variances(self.structure, theta, self.block)
        evidence = eliminate(self.block.data, spread, (column + level).expand(-1, n)).log_evidence
        log_joint = evidence + gene_log_prior(self.structure, theta, self.block)
        return (log_joint.logsumexp(1) + (self.grid[1] - self.grid[0]).log()).sum()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Quadrature, Callable[..., OtherGenes]]:
    """`gene_lineage`, the first of four genes refined: quadrature over the others, and what is summed up of them."""
    monkeypatch.setattr(summing, "MOST_DRAWS", N_DRAWS)
    monkeypatch.setattr(summing, "ELEMENTS_AT_ONCE", 10**9)
    monkeypatch.setattr(summing, "POINTS", 2)
    monkeypatch.setattr(summing, "SWEEPS", 12)  # the own scales start farther off than those of a guide
    screen = uneven_screen()
    structure = read_structure(PROGRAMS["gene_lineage"], GeneBlocks(screen, 2, CPU, F64)[0])
    block = make_block(structure, whole(screen))
    layout = LogPosterior(structure, take_genes(block, torch.tensor([0])), None).layout
    others = take_genes(block, torch.tensor([1, 2, 3]))
    random = torch.Generator().manual_seed(0)
    sizes = {(): (), ("lineage",): (screen.n_lineages,), ("gene",): (screen.n_genes,)}
    scales = {
        scale.name: torch.full((*sizes[scale.plates], 1), -0.5, dtype=F64)
        for scale in structure.scales
        if scale.plates != ("gene",)
    }
    shared = {"mu_mu_mu_gamma": torch.full((1,), -0.3, dtype=F64)}
    own = {"sigma_mu_gamma": torch.randn(screen.n_genes, N_DRAWS, generator=random, dtype=F64) - 0.5}

    def summed(unsure: str | None = None) -> OtherGenes:
        spread = {
            name: value
            + (0.8 if name == unsure else 0.05) * torch.randn(*value.shape[:-1], 500, generator=random, dtype=F64)
            for name, value in scales.items()
        }
        centre = Centre(scales, spread, own, shared)
        found = sum_up_others(structure, layout, [others], centre, functools.partial(generator, CPU, 0))
        assert found is not None
        return found

    return Quadrature(structure, others, scales, shared), summed


# The own scales' draws are three thousand, and a score varies by about one between them: each gene's errs by 0.02, that
# of all three by 0.04 or so; four of these.
WITHIN = 0.15


def test_well_known_scales_enter_to_second_order(made) -> None:
    exact, summed = made
    found = summed()
    assert found.profiles is None
    elements = [(name, 0) for name in ("sigma", "sigma_mu_mu_gamma", "sigma_sigma_mu_gamma", "sigma_gamma")]
    elements.append(("sigma_gamma", 1))
    assert len(found.positions) == len(elements)
    by_name = {int(p): i for i, p in enumerate(found.positions)}
    where = LogPosterior(exact.structure, exact.block, None).layout.positions()
    for element in elements:
        i = by_name[int(where[element[0]].reshape(-1)[element[1]])]
        slope = derivative(lambda by, e=element: exact(e, by))
        assert float(found.score[i]) == pytest.approx(float(slope), abs=WITHIN), element
        bend = (exact(element, 0.01) - 2 * exact() + exact(element, -0.01)) / 1e-4
        # A curvature has the variance of the score in it, whose own error is larger.
        assert float(found.curvature[i, i]) == pytest.approx(-float(bend), rel=0.1, abs=4 * WITHIN), element


def test_what_is_said_of_shared_locations_is_their_score_and_curvature(made) -> None:
    exact, summed = made
    natural = summed().natural
    assert natural is not None
    level = -0.3
    slope = derivative(lambda by: exact(level=by))
    bend = (exact(level=0.01) - 2 * exact() + exact(level=-0.01)) / 1e-4
    precision = float(natural.precision)
    assert precision == pytest.approx(-float(bend), rel=0.05)
    assert float(natural.rhs) - precision * level == pytest.approx(float(slope), abs=WITHIN)


def test_badly_known_scales_are_traced_along_the_guides_draws(made) -> None:
    exact, summed = made
    found = summed("sigma_mu_mu_gamma")
    assert found.profiles is not None and len(found.positions) == 4
    where = LogPosterior(exact.structure, exact.block, None).layout.positions()
    element = ("sigma_mu_mu_gamma", 0)
    row = found.profiles.positions.tolist().index(int(where[element[0]]))
    for point, slope in zip(found.profiles.points[row], found.profiles.slopes[row], strict=True):
        shift = float(point) + 0.5
        wanted = (exact(element, shift + STEP) - exact(element, shift - STEP)) / (2 * STEP)
        assert float(slope) == pytest.approx(float(wanted), abs=WITHIN), shift


def test_a_profile_is_the_integral_of_its_slopes() -> None:
    points = torch.tensor([[-2.0, -1.0, 1.0], [0.0, 3.0, 4.0]], dtype=F64)
    slopes = torch.tensor([[0.5, 2.0, -1.0], [1.0, 1.0, -3.0]], dtype=F64)
    profiles = Profiles(torch.tensor([1, 0]), points, slopes)
    for at in ([0.5, -1.5], [3.5, 0.3], [-1.0, -4.0], [9.0, 2.0], [3.0, -1.0]):
        x = torch.tensor(at, dtype=F64)
        gradient = torch.zeros(2, dtype=F64)
        value = profiles.add_to(x, gradient)
        expected = 0.0
        for row, position in enumerate((1, 0)):
            end = float(x[position])
            path = torch.linspace(float(points[row, 0]), end, 20_001, dtype=F64)
            inside = path.clamp(points[row, 0], points[row, -1])
            k = (torch.searchsorted(points[row], inside, right=True) - 1).clamp(0, 1)
            rise = (inside - points[row, k]) / (points[row, k + 1] - points[row, k])
            slope = slopes[row, k] + rise * (slopes[row, k + 1] - slopes[row, k])
            expected += float(torch.trapezoid(slope, path))
            assert float(gradient[position]) == pytest.approx(float(slope[-1]), abs=1e-12)
        assert float(value) == pytest.approx(expected, abs=1e-6)  # of the trapezoids
