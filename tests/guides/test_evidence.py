"""The closed-form evidence of a screen held to a dense multivariate Normal made by running the program."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from dense_model import CPU, F64, dense_model, random_log_scales, uneven_screen, whole
from programs import PROGRAMS
from torch import Tensor
from torch._subclasses import FakeTensorMode

import vihier.guides.deviations
from vihier.guides.block import Block, Theta, make_block
from vihier.guides.deviations import draw_shared_deviations, split_genes
from vihier.guides.evidence import (
    collapse,
    collapsed_log_joint,
    gene_log_prior,
    global_log_prior,
    shared_posterior,
    sum_natural,
)
from vihier.guides.structure import Structure, read_structure
from vihier.guides.values import centre, to_sites, unpad
from vihier.inference.batches import GeneBlocks
from vihier.kernels.elimination import draw_genes, eliminate
from vihier.models.batch import Batch
from vihier.models.priors import parse_prior
from vihier.models.program import load_program
from vihier.screen import Screen, read_screen

SCREEN = uneven_screen()
MODELS = ["additive", "crossed", "gene_lineage"]
PRIORS = {
    "additive": {"mu_mu_alpha": "Normal(1, 0.5)", "sigma_alpha": "HalfCauchy(2)", "sigma_mu_beta": "Gamma(2, 3)"},
    "crossed": {"mu_eta": "Normal(-1, 2)", "sigma_theta": "Exponential(2)", "sigma": "Gamma(2, 1)"},
    "gene_lineage": {"mu_mu_mu_gamma": "Normal(3, 1)", "sigma_gamma": "HalfCauchy(0.5)"},
}


def read(name: str, screen: Screen = SCREEN, priors: dict[str, str] | None = None) -> Structure:
    return read_structure(load_program(name, priors).model, GeneBlocks(screen, 2, CPU, F64)[0])


@pytest.mark.parametrize("overridden", [False, True], ids=["own priors", "other priors"])
@pytest.mark.parametrize("name", MODELS)
def test_collapsed_log_joint_is_the_dense_one(name: str, overridden: bool) -> None:
    """Log p(rows, log-scales): the Normal of all rows given the scales, and the scales' priors with their Jacobians."""
    priors = PRIORS[name] if overridden else None
    model, batch = load_program(name, priors).model, whole(SCREEN)
    structure = read(name, priors=priors)
    theta = random_log_scales(model, batch, 2)
    mine = collapsed_log_joint(structure, theta, make_block(structure, batch))
    for draw in range(2):
        dense = dense_model(model, batch, {site: value[..., draw] for site, value in theta.items()})
        # Float64; 1e-9 is what issue 3 asks for.
        assert float(mine[draw]) == pytest.approx(float(dense.log_evidence + dense.log_prior), abs=1e-9)


@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_smallest_screens(name: str, lines: int) -> None:
    """One gene of one sgRNA in one line, or two lines of two lineages."""
    frame = SCREEN.to_frame().query("hugo_symbol == 'GENE0'").drop_duplicates("lineage").iloc[:lines]
    screen = read_screen(frame)
    model, batch = load_program(name).model, whole(screen)
    structure = read(name, screen)
    theta = random_log_scales(model, batch, 1)
    dense = dense_model(model, batch, {site: value[..., 0] for site, value in theta.items()})
    mine = collapsed_log_joint(structure, theta, make_block(structure, batch))
    assert float(mine) == pytest.approx(float(dense.log_evidence + dense.log_prior), abs=1e-9)


def own_part(structure: Structure, theta: Theta, block: Block) -> Theta:
    """Log-scales with those of genes cut to a block's."""
    gene = {scale.name for scale in structure.scales if scale.plates == ("gene",)}
    return {name: value[block.batch.gene_idx] if name in gene else value for name, value in theta.items()}


@pytest.mark.parametrize("name", MODELS)
def test_blocks_add_up_to_the_screen(name: str) -> None:
    structure = read(name)
    theta = random_log_scales(load_program(name).model, whole(SCREEN), 3)
    expected = collapsed_log_joint(structure, theta, make_block(structure, whole(SCREEN)))
    blocks = [make_block(structure, batch) for batch in GeneBlocks(SCREEN, 3, CPU, F64)]
    assert [len(block.batch.gene_idx) for block in blocks] == [3, 1]
    collapsed = [collapse(structure, own_part(structure, theta, block), block) for block in blocks]
    natural = sum_natural([x.natural for x in collapsed])
    assert natural is not None
    total = shared_posterior(structure, theta, blocks[0], natural).log_evidence
    total = total + global_log_prior(structure, theta, blocks[0])
    for block, part in zip(blocks, collapsed, strict=True):
        total = total + part.eliminated.log_evidence.sum(0)
        total = total + gene_log_prior(structure, own_part(structure, theta, block), block).sum(0)
    torch.testing.assert_close(total, expected, atol=1e-10, rtol=0)


def test_gradient_in_the_log_scales() -> None:
    """What the optimiser follows: central differences with step 1e-6 of a sum near 100 know it to 1e-6."""
    structure = read("additive")
    block = make_block(structure, whole(SCREEN))
    theta = random_log_scales(load_program("additive").model, whole(SCREEN), 1)

    def of(*values: Tensor) -> Tensor:
        return collapsed_log_joint(structure, dict(zip(theta, values, strict=True)), block)

    assert torch.autograd.gradcheck(of, tuple(x.requires_grad_() for x in theta.values()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "prior",
    ["HalfNormal(2)", "HalfCauchy(2)", "Exponential(2)", "Gamma(2, 3)", "InverseGamma(3, 1)", "LogNormal(0, 1)"],
)
def test_priors_of_scales_are_densities_of_their_logarithms(prior: str) -> None:
    """With the Jacobian of the logarithm each integrates to one."""

    def model(batch: Batch) -> None:
        sigma = pyro.sample("sigma", parse_prior(prior))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(0.0, sigma), obs=batch.lfc)

    structure = read_structure(model, whole(SCREEN))
    grid = torch.linspace(-30, 18, 9601, dtype=F64)
    density = global_log_prior(structure, {"sigma": grid}, make_block(structure, whole(SCREEN))).exp()
    # The trapezoid rule with a step of 0.005; HalfCauchy(2) has 2e-8 beyond e^18.
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-6)


def on_meta(value: Any) -> Any:
    """The same made of fake tensors on the device `meta`: dataclasses and dictionaries of tensors, or a tensor."""
    if isinstance(value, Tensor):
        return torch.zeros(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, dict):
        return {key: on_meta(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: on_meta(getattr(value, field.name)) for field in fields(value)})
    return value


@pytest.mark.parametrize("name", [*MODELS, "constants", "deep"])
def test_evidence_and_draws_keep_to_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under fake tensors an operation that mixes devices raises: the step, forward and backward, and the draws."""
    model = PROGRAMS[name]
    structure = read_structure(model, whole(SCREEN))
    made = make_block(structure, whole(SCREEN))
    scales = random_log_scales(model, whole(SCREEN), 4)
    # torch has no generator for this device.
    monkeypatch.setattr(vihier.guides.deviations, "normal_like", lambda like, generator: torch.zeros_like(like))
    with FakeTensorMode(allow_non_fake_inputs=True):  # torch.tensor(0.0, device="meta") is none
        block = on_meta(made)
        theta = {site: value.requires_grad_() for site, value in on_meta(scales).items()}
        collapsed_log_joint(structure, theta, block).sum().backward()
        assert all(value.grad is not None and value.grad.device.type == "meta" for value in theta.values())
        collapsed = collapse(structure, theta, block)
        assert collapsed.natural is not None
        random = torch.Generator()
        shared, column, _ = draw_shared_deviations(structure, theta, block, collapsed.natural, random)
        given = eliminate(block.data, collapsed.spread, column)
        noise, leaf_noise = torch.zeros_like(given.scale), torch.zeros_like(given.weight)
        dense, leaf = draw_genes(block.data, collapsed.spread, given, noise, leaf_noise)
        own = split_genes(structure, theta, block, dense.transpose(1, 2), leaf, random)
        own |= {location.name: unpad(own[location.name], block) for location in structure.table(("sgrna",))}
        values = centre(structure, structure.locations, shared | own, {}, block)
        assert {value.device.type for value in to_sites(structure, values).values()} == {"meta"}
        with pytest.raises(RuntimeError, match="device"):
            collapsed_log_joint(structure, theta | {structure.noise: torch.zeros(4, dtype=F64)}, block)
