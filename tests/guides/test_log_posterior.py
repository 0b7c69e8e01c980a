"""The density that NUTS walks on, and its closed-form gradient, held to automatic differentiation of the evidence."""

from __future__ import annotations

import pytest
import torch
from dense_model import CPU, F64, uneven_screen, whole
from programs import PROGRAMS
from torch import Tensor

from vihier.guides.block import make_block, scale_log_prior
from vihier.guides.evidence import collapse, collapsed_log_joint, shared_posterior
from vihier.guides.structure import read_structure
from vihier.inference.batches import GeneBlocks
from vihier.kernels.elimination import NaturalParameters
from vihier.refinement.log_posterior import LogPosterior
from vihier.refinement.other_genes import OtherGenes

SCREEN = uneven_screen()


def posterior_of(name: str, others: OtherGenes | None = None) -> LogPosterior:
    structure = read_structure(PROGRAMS[name], GeneBlocks(SCREEN, 2, CPU, F64)[0])
    return LogPosterior(structure, make_block(structure, whole(SCREEN)), others)


def points(size: int, n: int = 3) -> Tensor:
    return 0.7 * torch.randn(n, size, generator=torch.Generator().manual_seed(0), dtype=F64) - 0.7


@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_gradient_are_those_of_the_closed_form(name: str) -> None:
    density = posterior_of(name)
    values, expected = [], []
    for x in points(density.layout.size):
        at = x.clone().requires_grad_()
        wanted = collapsed_log_joint(density.structure, density.layout.split(at[None]), density.block)[0]
        (slope,) = torch.autograd.grad(wanted, at)
        value, gradient = density(x)
        # Both in float64; entries are of the order of the rows' quadratic form, some hundreds to thousands.
        torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-8)
        values.append(float(value))
        expected.append(float(wanted.detach()))
    # Up to the constants of the half-normal priors.
    differences = torch.tensor(values, dtype=F64) - torch.tensor(expected, dtype=F64)
    torch.testing.assert_close(differences, differences[:1].expand(3), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["additive", "gene_lineage"])
def test_what_other_genes_say_enters_the_shared_locations_and_scales(name: str) -> None:
    plain = posterior_of(name)
    structure, block, layout = plain.structure, plain.block, plain.layout
    x = points(layout.size, 1)[0]
    natural = collapse(structure, layout.split(x[None]), block).natural
    assert natural is not None
    n = natural.precision.shape[1]
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(1), dtype=F64)
    said = NaturalParameters((root @ root.T)[None], torch.linspace(-2, 2, n, dtype=F64)[None])
    positions = torch.tensor([0, 2])
    curvature = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=F64)
    others = OtherGenes(positions, x[positions] + 0.1, torch.tensor([0.5, -1.0], dtype=F64), curvature, None, said)
    at = x.clone().requires_grad_()
    theta = layout.split(at[None])
    collapsed = collapse(structure, theta, block)
    assert collapsed.natural is not None
    wanted = collapsed.eliminated.log_evidence.sum(0)
    wanted = wanted + shared_posterior(structure, theta, block, collapsed.natural + said).log_evidence
    wanted = wanted + sum(scale_log_prior(structure, s, theta, block).sum() for s in structure.scales)
    shift = at[positions] - others.centre
    wanted = wanted + others.score @ shift - 0.5 * shift @ curvature @ shift
    (slope,) = torch.autograd.grad(wanted.sum(), at)
    value, gradient = posterior_of(name, others)(x)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-8)
    alone, _ = plain(x)
    without = collapsed_log_joint(structure, layout.split(x[None]), block)[0]
    torch.testing.assert_close(value - alone, (wanted[0] - without).detach(), rtol=1e-9, atol=1e-8)
