"""What `read_structure` reads off a program: three models, a copy in other words, and everything it must refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from dense_model import CPU, F64, dense_model, random_log_scales, traced, uneven_screen, whole
from programs import PROGRAMS, constants, renamed
from torch import Tensor

import vihier
import vihier.guides.probe
from vihier.errors import VihierError
from vihier.guides.block import make_block
from vihier.guides.evidence import collapsed_log_joint
from vihier.guides.probe import few_genes
from vihier.guides.structure import Argument, Structure, check_structure, log_joint, read_structure, to_program
from vihier.inference.batches import GeneBlocks, full_batch
from vihier.models.batch import Batch
from vihier.models.program import load_program

SCREEN = uneven_screen()
PROBE = GeneBlocks(SCREEN, 2, CPU, F64)[0]


def edges(structure: Structure) -> dict[str, tuple[tuple[str, ...], set[str], str | float]]:
    """Location -> (plates, parents, its scale or its known sd)."""
    return {x.name: (x.plates, {parent for parent, _ in x.parents}, x.scale or x.factor) for x in structure.locations}


ALPHA_BETA = {
    "mu_mu_alpha": ((), set(), 3.0),
    "mu_mu_beta": ((), set(), 3.0),
    "mu_alpha": (("gene",), {"mu_mu_alpha"}, "sigma_mu_alpha"),
    "alpha": (("sgrna",), {"mu_alpha"}, "sigma_alpha"),
    "mu_beta": (("lineage",), {"mu_mu_beta"}, "sigma_mu_beta"),
    "beta": (("line",), {"mu_beta"}, "sigma_beta"),
}
LOCATIONS = {
    "additive": ALPHA_BETA | {"mu_gamma": ((), set(), 5.0), "gamma": (("gene", "line"), {"mu_gamma"}, "sigma_gamma")},
    "crossed": ALPHA_BETA
    | {
        "mu_eta": ((), set(), 3.0),
        "eta": (("gene",), {"mu_eta"}, "sigma_eta"),
        "mu_mu_theta": ((), set(), 3.0),
        "mu_theta": (("lineage",), {"mu_mu_theta"}, "sigma_mu_theta"),
        "theta": (("line",), {"mu_theta"}, "sigma_theta"),
        "gamma": (("gene", "line"), {"eta", "theta"}, "sigma_gamma"),
    },
    "gene_lineage": {
        "mu_mu_mu_gamma": ((), set(), 3.0),
        "mu_mu_gamma": (("gene",), {"mu_mu_mu_gamma"}, "sigma_mu_mu_gamma"),
        "mu_gamma": (("gene", "lineage"), {"mu_mu_gamma"}, "sigma_mu_gamma"),
        "gamma": (("gene", "line"), {"mu_gamma"}, "sigma_gamma"),
    },
}
SCALES = {
    "additive": {
        **dict.fromkeys(
            ("sigma", "sigma_mu_alpha", "sigma_sigma_alpha", "sigma_mu_beta", "sigma_sigma_beta"), ((), 3.0)
        ),
        "sigma_sigma_gamma": ((), 1.0),
        "sigma_alpha": (("gene",), "sigma_sigma_alpha"),
        "sigma_gamma": (("gene",), "sigma_sigma_gamma"),
        "sigma_beta": (("lineage",), "sigma_sigma_beta"),
    },
    "gene_lineage": {
        **dict.fromkeys(("sigma", "sigma_mu_mu_gamma", "sigma_sigma_mu_gamma", "sigma_sigma_gamma"), ((), 3.0)),
        "sigma_mu_gamma": (("gene",), "sigma_sigma_mu_gamma"),
        "sigma_gamma": (("lineage",), "sigma_sigma_gamma"),
    },
}
SCALES["crossed"] = SCALES["additive"] | {
    **dict.fromkeys(("sigma_eta", "sigma_mu_theta", "sigma_sigma_theta"), ((), 3.0)),
    "sigma_theta": (("lineage",), "sigma_sigma_theta"),
}


@pytest.mark.parametrize("name", ["additive", "crossed", "gene_lineage"])
def test_models_are_read_as_they_are_written(name: str) -> None:
    structure = read_structure(load_program(name).model, PROBE)
    assert edges(structure) == LOCATIONS[name]
    scales = {x.name: (x.plates, x.arguments[0].source or x.arguments[0].factor) for x in structure.scales}
    assert scales == SCALES[name]
    assert {x.family.__name__ for x in structure.scales} == {"HalfNormal"}
    assert (structure.observed, structure.noise, structure.noise_factor, structure.row_offset) == ("lfc", "sigma", 1, 0)
    # Each location's own deviation moves the mean of its rows by as much.
    assert {x.reach for x in structure.locations} == {1.0}


@pytest.mark.parametrize("name", PROGRAMS)
def test_log_joint_of_the_structure_is_the_programs(name: str) -> None:
    model, batch = PROGRAMS[name], whole(SCREEN)
    structure = read_structure(model, PROBE)
    scales = {site: value[..., 0].exp() for site, value in random_log_scales(model, batch, 1).items()}
    sizes = {"sgrna": SCREEN.n_sgrnas, "gene": SCREEN.n_genes, "line": SCREEN.n_lines, "lineage": SCREEN.n_lineages}
    random = torch.Generator().manual_seed(0)
    values = scales | {
        x.name: torch.randn([sizes[plate] for plate in x.plates], generator=random, dtype=F64)
        for x in structure.locations
    }
    in_program = {
        x.name: to_program(values[x.name], x.plates, x.dims) for x in (*structure.locations, *structure.scales)
    }
    expected = float(traced(model, batch, in_program).log_prob_sum())
    # Both are sums of some hundred float64 terms.
    assert float(log_joint(structure, values, batch)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["renamed", "constants"])
def test_other_words_are_read_and_are_exact(name: str) -> None:
    model, batch = PROGRAMS[name], whole(SCREEN)
    structure = read_structure(model, PROBE)
    theta = random_log_scales(model, batch, 3)
    mine = collapsed_log_joint(structure, theta, make_block(structure, batch))
    for draw in range(3):
        dense = dense_model(model, batch, {site: value[..., draw] for site, value in theta.items()})
        # Float64 throughout: the issue asks for 1e-9.
        assert float(mine[draw]) == pytest.approx(float(dense.log_evidence + dense.log_prior), abs=1e-9)


def test_structure_of_the_copy() -> None:
    structure = read_structure(renamed, PROBE)
    assert edges(structure)["pair"] == (("gene", "line"), {"pair_mean"}, "pair_sd")
    assert edges(structure)["pair_mean"] == (("gene",), {"pair_top"}, "pair_spread")
    (pair,) = structure.table(("gene", "line"))
    assert pair.dims == (-1, -2)


def test_constants_are_read() -> None:
    structure = read_structure(constants, PROBE)
    found = {x.name: x for x in structure.locations}
    # The rows' mean: 0.1 - 0.5 line + 2 tissue + late with tissue = gene - late + own, late = 0.5 gene + own, ...
    reach = {"line_mean": -0.5, "tissue": 2.0, "late": -1.0, "gene_mean": 1.5, "top": -3.0 - 0.5 / 3}
    assert {name: x.reach for name, x in found.items()} == pytest.approx(reach, abs=1e-11)
    assert {name: x.offset for name, x in found.items()} == pytest.approx(
        {"line_mean": 0.25, "tissue": 0.0, "late": 0.0, "gene_mean": 1.0, "top": -0.5}, abs=1e-11
    )
    assert found["line_mean"].factor == pytest.approx(1.5)
    assert (found["gene_mean"].scale, found["late"].scale) == ("noise", None)
    # All deviations at zero: 0.1 - 0.5 (0.25 - 0.5 / 3) + 2 (2 - 1) + 1.
    assert structure.row_offset == pytest.approx(0.1 - 0.5 * (0.25 - 0.5 / 3) + 2 * 1 + 1, abs=1e-11)
    families = {x.name: (x.family.__name__, x.arguments) for x in structure.scales}
    constants_of_gamma = (Argument("concentration", None, 2.0), Argument("rate", None, 3.0))
    assert families["gene_sd"] == ("Gamma", constants_of_gamma)
    assert families["line_sd"] == ("HalfNormal", (Argument("scale", "hyper", 0.5),))


Plates = dict[str, pyro.plate]


def program(
    gene: Callable[[Tensor, Tensor], object] = lambda top, sd: dist.Normal(top, sd),
    mean: Callable[[Tensor, Tensor, Batch], Tensor] = lambda gene, line, batch: gene + line,
    noise: Callable[[Tensor, Tensor], Tensor] = lambda sigma, gene: sigma,
    rows: Callable[[Tensor, Tensor], object] = lambda mean, sd: dist.Normal(mean, sd),
    more: Callable[[Batch, Plates, Tensor], object] = lambda batch, plates, top: None,
    gene_sd: Callable[[Tensor, Tensor], object] = lambda hyper, top: dist.HalfNormal(hyper),
) -> Callable[[Batch], None]:
    """A program that is accepted unless one of its parts is replaced."""

    def model(batch: Batch) -> None:
        sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
        hyper = pyro.sample("hyper", dist.HalfNormal(1.0))
        top = pyro.sample("top", dist.Normal(0.0, 3.0))
        plates = {
            "line": pyro.plate("line", batch.n_lines, dim=-1),
            "gene": pyro.plate("gene", len(batch.gene_idx), dim=-2),
            "row": pyro.plate("row", len(batch.gene), dim=-1),
        }
        with plates["line"]:
            line = pyro.sample("line_mean", dist.Normal(0.0, 2.0))
        with batch.local():
            more(batch, plates, top)
            with plates["gene"]:
                sd = pyro.sample("gene_sd", gene_sd(hyper, top))
                of_gene = pyro.sample("gene_mean", gene(top, sd))
            with plates["row"]:
                of_row = of_gene[batch.gene, 0]
                fn = rows(mean(of_row, line[batch.line], batch), noise(sigma, of_row))
                pyro.sample("lfc", fn, obs=batch.lfc)

    return model


def test_program_without_a_fault_is_accepted() -> None:
    assert [x.name for x in read_structure(program(), PROBE).locations] == ["top", "line_mean", "gene_mean"]


def second_observed(batch: Batch, plates: Plates, top: Tensor) -> None:
    with plates["row"]:
        pyro.sample("earlier", dist.Normal(top, 1.0), obs=batch.lfc)


def unknown_plate(batch: Batch, plates: Plates, top: Tensor) -> None:
    with pyro.plate("batch_effect", 3, dim=-1):
        pyro.sample("of_batch", dist.Normal(top, 1.0))


def loop(batch: Batch, plates: Plates, top: Tensor) -> None:
    for i in pyro.plate("lineage", batch.n_lineages):
        pyro.sample(f"of_lineage_{i}", dist.Normal(top, 1.0))


def short_plate(batch: Batch, plates: Plates, top: Tensor) -> None:
    with pyro.plate("lineage", batch.n_lineages + 1, dim=-2):
        pyro.sample("too_many", dist.Normal(top, 1.0))


def no_plate(batch: Batch, plates: Plates, top: Tensor) -> None:
    pyro.sample("bare", dist.Normal(torch.zeros(3), 1.0))


def vector(batch: Batch, plates: Plates, top: Tensor) -> None:
    pyro.sample("several", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def sgrna_scale(batch: Batch, plates: Plates, top: Tensor) -> None:
    with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-1):
        pyro.sample("sgrna_sd", dist.HalfNormal(1.0))


def sgrna_by_line(batch: Batch, plates: Plates, top: Tensor) -> None:
    with pyro.plate("sgrna", len(batch.sgrna_idx), dim=-2), plates["line"]:
        pyro.sample("cell", dist.Normal(0.0, 1.0))


def factor(batch: Batch, plates: Plates, top: Tensor) -> None:
    pyro.factor("push", -top.square())


def parameter(batch: Batch, plates: Plates, top: Tensor) -> None:
    pyro.param("free", torch.zeros(()))


def coin(batch: Batch, plates: Plates, top: Tensor) -> None:
    pyro.sample("coin", dist.Bernoulli(0.5))


def bounded(batch: Batch, plates: Plates, top: Tensor) -> None:
    pyro.sample("unit", dist.Uniform(0.0, 5.0))


def lognormal(top: Tensor, sd: Tensor) -> object:
    return dist.LogNormal(0.0, sd)


def genes_own_noise(batch: Batch) -> None:
    top = pyro.sample("top", dist.Normal(0.0, 3.0))
    common = pyro.sample("common", dist.HalfNormal(3.0))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-1):
            sigma = pyro.sample("sigma", dist.HalfNormal(common))
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(top, sigma[batch.gene]), obs=batch.lfc)


def copy_number(batch: Batch) -> Tensor:
    return batch.covariates["copy_number"]


REFUSED: dict[str, tuple[Callable[[Batch], None], str, str]] = {
    # what: (program, the site to be named, what is said of it)
    "a location squared": (program(mean=lambda g, c, b: g**2 + c), "gene_mean", "not linear"),
    "exp of a location": (program(mean=lambda g, c, b: g.exp() + c), "gene_mean", "not linear"),
    "a product of locations": (program(mean=lambda g, c, b: g * c + c), "line_mean", "not linear"),
    "a product, one of them alone too": (program(mean=lambda g, c, b: g * c + g + c), "line_mean", "not linear"),
    "a bend far out": (program(mean=lambda g, c, b: g.clamp(max=6.0) + c), "gene_mean", "not linear"),
    "a floor of a scale": (program(noise=lambda sigma, g: sigma.clamp(min=1e-3)), "lfc", "not one scale times"),
    "a kink": (program(mean=lambda g, c, b: g.clamp(min=-0.5) + c), "gene_mean", "not linear"),
    "a LogNormal location": (program(gene=lognormal), "gene_mean", "LogNormal"),
    "a LogNormal location with a parent": (
        program(gene=lambda top, sd: dist.LogNormal(top, sd)),
        "gene_mean",
        "LogNormal and its loc depends on the location 'top'",
    ),
    "a StudentT location": (program(gene=lambda top, sd: dist.StudentT(4.0, top, sd)), "gene_mean", "StudentT"),
    "a scale in a mean": (program(gene=lambda top, sd: dist.Normal(top + sd, sd)), "gene_sd", "enters the mean"),
    "a location times a scale": (
        program(mean=lambda g, c, b: g + c, gene=lambda t, sd: dist.Normal(t * sd, 1.0)),
        "top",
        "times a constant",
    ),
    "a location's sd depends on a location": (
        program(gene=lambda top, sd: dist.Normal(0.0, sd * top.exp())),
        "gene_mean",
        "its scale depends on the location 'top'",
    ),
    "the prior of a scale depends on a location": (
        program(gene_sd=lambda hyper, top: dist.HalfNormal(hyper * top.exp())),
        "gene_sd",
        "its scale depends on the location 'top'",
    ),
    "noise depends on a location": (program(noise=lambda sigma, g: sigma * g.exp()), "lfc", "depends on the location"),
    "two scales in one sd": (program(noise=lambda s, g: s + 0.1), "lfc", "not one scale times a constant"),
    "an inverse scale": (
        program(gene_sd=lambda hyper, top: dist.Exponential(1 / hyper)),
        "gene_sd",
        "its rate is not one scale times a constant",
    ),
    "the log of a scale": (
        program(gene_sd=lambda hyper, top: dist.LogNormal(2 * hyper.log(), 1.0)),
        "gene_sd",
        "its loc is not one scale times a constant, nor its logarithm",
    ),
    "noise of each gene": (genes_own_noise, "sigma", "indexed by gene"),
    "Laplace rows": (program(rows=lambda mean, sd: dist.Laplace(mean, sd)), "lfc", "Laplace, neither Normal nor"),
    "two observed sites": (program(more=second_observed), "lfc", "'earlier'"),
    "a factor": (program(more=factor), "push", "pyro.factor"),
    "a parameter": (program(more=parameter), "free", "pyro.param"),
    "an unknown plate": (program(more=unknown_plate), "of_batch", "'batch_effect'"),
    "a loop": (program(more=loop), "of_lineage_0", "loop"),
    "a plate of another length": (program(more=short_plate), "too_many", "has 3 elements, the batch 2"),
    "an axis that is no plate's": (program(more=no_plate), "bare", "its plates"),
    "a vector": (program(more=vector), "several", "to_event"),
    "a scale of each sgRNA": (program(more=sgrna_scale), "sgrna_sd", "indexed by sgrna"),
    "a location of each cell": (program(more=sgrna_by_line), "cell", "indexed by sgrna x line"),
    "a location that nothing needs": (program(mean=lambda g, c, b: g), "line_mean", "no row depends on it"),
    "a discrete site": (program(more=coin), "coin", "Bernoulli"),
    "a bounded scale": (program(more=bounded), "unit", "Uniform"),
    "a covariate of a prior mean": (
        program(gene=lambda top, sd: dist.Normal(top * torch.linspace(1, 2, 2, dtype=F64)[:, None], sd)),
        "top",
        "its own element times a constant",
    ),
    "a covariate of a location squared": (
        program(mean=lambda g, c, b: g**2 * copy_number(b) + c),
        "gene_mean",
        "not linear",
    ),
    "a slope that other rows decide": (
        program(mean=lambda g, c, b: g.cumsum(0) * copy_number(b) + c),
        "gene_mean",
        "times a constant or a covariate of rows",
    ),
    "a covariate in the noise": (
        program(
            mean=lambda g, c, b: g + c * (1 + 0 * copy_number(b)),
            rows=lambda m, s: dist.Normal(m, s.expand(len(m)) * torch.linspace(1, 2, len(m))),
        ),
        "lfc",
        "constant of its own",
    ),
    "rows weighted": (
        program(rows=lambda mean, sd: dist.Normal(mean, sd).mask(torch.arange(len(mean)) % 2 == 0)),
        "lfc",
        "mask",
    ),
    "an sgRNA's neighbours": (
        program(mean=lambda g, c, b: g.roll(1) + c),
        "gene_mean",
        "other than by its own element",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_the_name_of_the_site_in_one_line(what: str) -> None:
    model, site, said = REFUSED[what]
    # Copy numbers that are all one in the genes that are looked at, as in a screen of diploid lines.
    batch = replace(PROBE, covariates={"copy_number": torch.ones(len(PROBE.gene), dtype=F64)})
    with pytest.raises(VihierError) as caught:
        read_structure(model, batch)
    message = str(caught.value)
    assert re.match(rf"site '{site}': ", message), message
    assert said in message
    assert "mean_field" in message
    assert "\n" not in message
    pyro.clear_param_store()


def test_what_a_program_raises_is_one_line() -> None:
    # `poutine.trace` appends a table of shapes to every ValueError.
    without = replace(PROBE, lineages=0, lineages_of_lines=None)
    with pytest.raises(VihierError, match="column 'lineage'") as caught:
        read_structure(load_program("additive").model, without)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["a location squared", "a scale in a mean"])
def test_refusal_reaches_the_caller_of_fit(what: str) -> None:
    model, site, _ = REFUSED[what]
    frame = SCREEN.to_frame().assign(copy_number=1.0)
    with pytest.raises(VihierError, match=f"site '{site}'") as caught:
        vihier.fit(frame, model, guide="structured", draws=100, quiet=True)
    assert "\n" not in str(caught.value)


def test_nothing_observed_and_nothing_positive() -> None:
    with pytest.raises(VihierError, match="no observed site"):
        read_structure(program(), replace(PROBE, lfc=None))

    def known(batch: Batch) -> None:
        top = pyro.sample("top", dist.Normal(0.0, 3.0))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(top, 1.0), obs=batch.lfc)

    with pytest.raises(VihierError, match="no positive site that genes share"):
        read_structure(known, PROBE)

    def known_noise(batch: Batch) -> None:
        with batch.local():
            with pyro.plate("gene", len(batch.gene_idx), dim=-2):
                gene = pyro.sample("gene_mean", dist.Normal(0.0, pyro.sample("gene_sd", dist.HalfNormal(1.0))))
            with pyro.plate("row", len(batch.gene), dim=-1):
                pyro.sample("lfc", dist.Normal(gene[batch.gene, 0], 0.7), obs=batch.lfc)

    with pytest.raises(VihierError, match="no positive site that genes share"):
        read_structure(known_noise, PROBE)


def test_genes_that_were_not_looked_at_are_checked() -> None:
    """A prior mean that differs only for the last gene: the structure read off the first two does not hold there."""
    means = torch.tensor([0.0, 0.0, 0.0, -1.0], dtype=F64)

    def model(batch: Batch) -> None:
        sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
        with batch.local():
            with pyro.plate("gene", len(batch.gene_idx), dim=-2):
                gene = pyro.sample("gene_mean", dist.Normal(means[batch.gene_idx, None], 1.0))
            with pyro.plate("row", len(batch.gene), dim=-1):
                pyro.sample("lfc", dist.Normal(gene[batch.gene, 0], sigma), obs=batch.lfc)

    structure = read_structure(model, PROBE)
    blocks = GeneBlocks(SCREEN, 2, CPU, F64)
    check_structure(structure, model, blocks[0])
    with pytest.raises(VihierError, match=r"^site 'gene_mean': its log density[^\n]*mean_field'$"):
        check_structure(structure, model, blocks[1])
    with pytest.raises(VihierError, match=r"^site 'gene_mean': its log density[^\n]*mean_field'$"):
        vihier.fit(SCREEN, model, draws=10, quiet=True)


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_batch_gives_the_same_structure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, of the whole screen, or of so many rows that only two genes of them are looked at."""
    expected = read_structure(PROGRAMS[name], PROBE)
    single = full_batch(SCREEN, CPU, torch.float32)
    assert read_structure(PROGRAMS[name], single) == expected
    check_structure(expected, PROGRAMS[name], single)
    monkeypatch.setattr(vihier.guides.probe, "ROWS_PROBED", 10)
    cut = few_genes(single)
    assert (len(cut.gene_idx), len(cut.sgrna_idx)) == (2, 4)
    assert torch.equal(cut.gene_of_sgrna[cut.sgrna], cut.gene)
    assert read_structure(PROGRAMS[name], single) == expected


def test_reading_leaves_the_callers_state() -> None:
    torch.manual_seed(5)
    before, default = torch.get_rng_state(), torch.get_default_dtype()
    read_structure(program(), PROBE)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() == default
    assert not list(pyro.get_param_store().keys())
