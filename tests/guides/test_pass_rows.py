"""What a pass over rows of unequal weight says, and what is drawn from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dense_model import CPU, uneven_screen, whole
from scipy import stats

from vihier.guides.block import make_block
from vihier.guides.freedom_points import FAR_OFF, FreedomPoints, chosen_point, freedom_points
from vihier.guides.gene_chains import GeneChains
from vihier.guides.interweave import Sweeper
from vihier.guides.noise_levels import levels_of, move_levels
from vihier.guides.row_chains import RowChains
from vihier.guides.row_sums import sums_of
from vihier.guides.structure import Structure, read_structure
from vihier.inference.device import generator
from vihier.kernels.rows import draw_weights, noise_pull, student_log_density
from vihier.models.likelihood import Likelihood
from vihier.models.program import load_program

ROWS = Likelihood("student_t", "replicate")


def structure_of() -> Structure:
    """Additive, Student-t rows, noise by replicate."""
    return read_structure(load_program("additive", None, ROWS).model, whole(uneven_screen()))


@pytest.mark.parametrize("freedom", [0.7, 4.0, 60.0])
def test_weights_are_gamma(freedom: float) -> None:
    """Whatever was rejected and tried again: a Kolmogorov-Smirnov test of 20,000 draws."""
    random = torch.Generator().manual_seed(1)
    squares = torch.randn(5000, 4, generator=random).square() * 3
    weights = draw_weights(torch.full((1, 4), freedom), squares, random)
    standard = weights * (freedom + squares) / 2
    assert stats.kstest(standard.numpy().ravel(), stats.gamma((freedom + 1) / 2).cdf).pvalue > 1e-3
    assert weights.min() > 0


def test_how_the_density_of_rows_bends_with_their_scale() -> None:
    """First and second derivative in the logarithm of the scale, beside automatic ones."""
    squares, freedom = torch.tensor([0.0, 0.3, 2.0, 40.0], dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    for z, pull, bend in zip(squares, *noise_pull(freedom, squares), strict=True):

        def density(x: torch.Tensor, z: torch.Tensor = z) -> torch.Tensor:
            return student_log_density(freedom, (z * (-2 * x).exp() / freedom).log1p(), 1.0) - x

        zero = torch.zeros((), dtype=torch.float64)
        first = torch.autograd.functional.jacobian(density, zero)
        second = torch.autograd.functional.hessian(density, zero)
        assert float(pull - 1) == pytest.approx(float(first), abs=1e-12)
        assert float(-2 * bend) == pytest.approx(float(second), abs=1e-12)


def test_points_of_degrees_of_freedom_leave_their_density_as_it_is() -> None:
    """Chains that start from a density on nu, moved on lattices of random places, still have it: 20,000 of them."""
    structure, random = structure_of(), torch.Generator().manual_seed(2)
    log_nu = math.log(5) + 0.4 * torch.randn(20_000, generator=random, dtype=torch.float64)
    for _ in range(5):
        points = freedom_points(structure, {"nu": log_nu}, 40, FAR_OFF, random)
        assert isinstance(points, FreedomPoints)
        density = -0.5 * ((points.log_source - math.log(5)) / 0.4).square() + points.log_jacobian
        chosen = chosen_point(density, random)[None]
        moved = points.log_source.gather(0, chosen)[0]
        assert ((moved - log_nu).abs() > 0.01).double().mean() > 0.5
        log_nu = moved
    # Standard errors are 0.003 and 0.002.
    assert float(log_nu.mean()) == pytest.approx(math.log(5), abs=0.01)
    assert float(log_nu.std()) == pytest.approx(0.4, abs=0.01)


def test_what_is_said_of_noise_is_their_density_close_by() -> None:
    """The Normal rows that stand for Student-t ones beside these, half a sd of the scale away."""
    structure, batch = structure_of(), whole(uneven_screen())
    block = make_block(structure, batch)
    rows = GeneChains(structure, block, generator(CPU, 0)).rows
    assert isinstance(rows, RowChains)
    theta = {scale.name: torch.zeros(1) for scale in structure.scales}
    theta |= {"sigma_replicate": torch.full((batch.size_of("replicate"), 1), -0.4), "nu": torch.tensor([1.2])}
    rows.residual = torch.randn(len(rows.table.lfc), 1, generator=torch.Generator().manual_seed(3))
    rows.take_squares(theta)
    sums = sums_of(rows, structure, theta, None)
    said, step = sums.said(), 0.5 * (2 * sums.bend).rsqrt()

    def exact(shift: torch.Tensor) -> torch.Tensor:
        rows.take_squares(theta | {"sigma_replicate": theta["sigma_replicate"] + shift.float()})
        tails = (rows.squares / rows.freedom(theta).float()).log1p().double()
        of_rows = -0.5 * (rows.freedom(theta) + 1) * tails
        return torch.zeros_like(said.count).index_add(0, rows.table.noise, of_rows) - sums.count * shift

    mine = -said.count * step - 0.5 * said.squares * ((-2 * step).exp() - 1)
    # The third derivative is not matched: 0.5 ** 3 times 0.1 of a few rows each.
    assert (mine - (exact(step) - exact(torch.zeros_like(step)))).abs().max() < 0.05


def test_spreads_of_two_levels_given_noise_scales() -> None:
    """The posterior of both spreads given noise scales, by quadrature, is what a long chain has."""
    structure, batch = structure_of(), whole(uneven_screen())
    levels = levels_of(structure)
    assert levels is not None
    assert (levels.upper.name, levels.top.name) == ("sigma_line_screen", "sigma")
    block = make_block(structure, batch)
    moves = Sweeper(structure, [block], lambda *keys: generator(CPU, 4, *keys))
    line = batch.line_screen_of_replicate
    random = torch.Generator().manual_seed(5)
    n = 400
    x = 0.5 * torch.randn(batch.size_of("line_screen"), generator=random)[line] - 1
    x = x + 0.2 * torch.randn(len(line), generator=random)
    theta = {"sigma_replicate": x.double()[:, None].expand(-1, n).clone()}
    theta |= {name: torch.full((n,), -1.0, dtype=torch.float64) for name in ("sigma", "sigma_sigma")}
    theta |= {"sigma_sigma_line_screen": torch.full((n,), -1.0, dtype=torch.float64)}
    theta |= {"sigma_line_screen": torch.zeros(batch.size_of("line_screen"), n, dtype=torch.float64)}
    kept = []
    for sweep in range(40):
        move_levels(moves, theta, levels)
        if sweep >= 20:
            kept.append(torch.stack([theta["sigma_sigma"], theta["sigma_sigma_line_screen"], theta["sigma"]]))
    drawn = torch.cat(kept, 1).numpy()
    same = (line[:, None] == line).double().numpy()
    grid = np.linspace(-6, 2, 41)
    s, t, c = (g.ravel() for g in np.meshgrid(grid, grid, np.linspace(-3, 1, 21), indexing="ij"))
    density = stats.halfnorm.logpdf(np.exp(s)) + s + stats.halfnorm.logpdf(np.exp(t)) + t
    density += stats.halfnorm.logpdf(np.exp(c), scale=3) + c
    at = {}
    for i, (a, b) in enumerate(zip(s, t, strict=True)):
        if (a, b) not in at:
            covariance = np.exp(2 * a) * np.eye(len(line)) + np.exp(2 * b) * same
            inverse = np.linalg.inv(covariance)
            log_det = np.linalg.slogdet(covariance)[1]
            at[a, b] = inverse.sum(), inverse.sum(0) @ x.numpy(), x.numpy() @ inverse @ x.numpy(), log_det
        one, cross, square, log_det = at[a, b]
        density[i] += -0.5 * (log_det + square - 2 * c[i] * cross + c[i] ** 2 * one)
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    for mine, values in zip(drawn, (s, t, c), strict=True):
        mean = (weight * values).sum()
        sd = math.sqrt((weight * (values - mean) ** 2).sum())
        # 400 chains of 20 correlated states: some 1,000 draws.
        assert abs(mine.mean() - mean) < 0.12 * sd
        assert abs(mine.std() / sd - 1) < 0.1
