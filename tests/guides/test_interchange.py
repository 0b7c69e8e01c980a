"""Scales that the rows cannot tell apart trade places unnoticed, and as often as their priors let them."""

from __future__ import annotations

import math

import pytest
import torch
from dense_model import random_log_scales, uneven_screen, whole
from programs import PROGRAMS
from torch import Tensor

from vihier.guides.block import make_block, scale_log_prior
from vihier.guides.evidence import collapsed_log_joint
from vihier.guides.interchange import interchangeable, swap
from vihier.guides.structure import read_structure
from vihier.models.program import load_program

SCREEN = uneven_screen()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("additive", []),
        ("gene_lineage", []),
        (
            "crossed",
            [
                {"sigma_mu_alpha": "sigma_eta"},
                {"sigma_mu_beta": "sigma_mu_theta"},
                {"sigma_beta": "sigma_theta", "sigma_sigma_beta": "sigma_sigma_theta"},
            ],
        ),
    ],
)
def test_pairs_are_those_whose_locations_enter_rows_as_a_sum(name: str, expected: list[dict[str, str]]) -> None:
    structure = read_structure(PROGRAMS[name], whole(SCREEN))
    assert [{a.name: b.name for a, b in pairs} for pairs in interchangeable(structure)] == expected


@pytest.mark.parametrize("name", ["crossed", "renamed"])
def test_the_rows_do_not_notice_a_swap(name: str) -> None:
    """The evidence, with all locations integrated out, is the same before and after."""
    batch = whole(SCREEN)
    structure = read_structure(PROGRAMS[name], batch)
    block = make_block(structure, batch)
    theta = random_log_scales(PROGRAMS[name], batch, 3)

    def evidence(at: dict[str, Tensor]) -> Tensor:
        priors = [scale_log_prior(structure, x, at, block).reshape(-1, 3).sum(0) for x in structure.scales]
        return collapsed_log_joint(structure, at, block) - torch.stack(priors).sum(0)

    pairs_of_all = interchangeable(structure)
    assert pairs_of_all
    for pairs in pairs_of_all:
        swapped = dict(theta)
        for a, b in pairs:
            swapped[a.name], swapped[b.name] = theta[b.name], theta[a.name]
        torch.testing.assert_close(evidence(swapped), evidence(theta), atol=1e-9, rtol=0)


def test_swaps_leave_unlike_priors_as_they_are() -> None:
    """Draws from HalfNormal(3) and HalfNormal(1) stay such: half of them are offered a swap, and some decline."""
    n = 100_000
    batch = whole(SCREEN)
    structure = read_structure(load_program("crossed", {"sigma_eta": "HalfNormal(1)"}).model, batch)
    block = make_block(structure, batch)
    pairs = next(x for x in interchangeable(structure) if len(x) == 1 and "sigma_eta" in (x[0][0].name, x[0][1].name))
    random = torch.Generator().manual_seed(0)
    scales = {"sigma_mu_alpha": 3.0, "sigma_eta": 1.0}
    theta = {
        name: (scale * torch.randn(n, generator=random, dtype=torch.float64)).abs().log()
        for name, scale in scales.items()
    }
    after = swap(structure, theta, pairs, block, random)
    moved = float((after["sigma_eta"] != theta["sigma_eta"]).double().mean())
    assert 0.2 < moved < 0.45
    for name, scale in scales.items():
        below = torch.erf(after[name].exp().sort().values / scale / math.sqrt(2))
        distance = float((below - (torch.arange(n) + 0.5) / n).abs().max())
        # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by one sample in a thousand; the seed is fixed.
        assert distance < 1.95 / math.sqrt(n), name
