"""Elimination in float32, at the size of a block, over thousands of genes, and on one device only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dense_rows import (
    F64,
    ROWS,
    make_variances,
)
from torch import Tensor
from torch._subclasses import FakeTensorMode

from vihier.kernels.cells import GeneData, gene_data
from vihier.kernels.elimination import (
    Variances,
    draw_genes,
    draw_shared,
    eliminate,
    natural_parameters,
    solve_shared,
)


def made_block(
    n_genes: int, n_slots: int, n_lines: int, n_lineages: int, dtype: torch.dtype, seed: int = 0
) -> GeneData:
    """Complete cells of one or two rows, with lfc of sd 1, as an unpadded block; lineages of equal size."""
    random = torch.Generator().manual_seed(seed)
    shape = (n_genes, n_slots, n_lines)
    count = torch.randint(1, 3, shape, generator=random).to(F64)
    effects = torch.randn(n_genes, 1, n_lines, generator=random, dtype=F64) * 0.3
    effects = effects + torch.randn(n_genes, n_slots, 1, generator=random, dtype=F64) * 0.8
    noise = torch.randn(shape, generator=random, dtype=F64) * 0.5
    total = count * effects + count.sqrt() * noise
    square = (count * effects.square() + 2 * effects * count.sqrt() * noise + count * noise.square()).sum((1, 2))
    i, j = torch.tril_indices(n_slots, n_slots)
    lineage = torch.nn.functional.one_hot(torch.arange(n_lines) % n_lineages, n_lineages)
    parts = (count, total, count[:, i] * count[:, j], square, lineage)
    return GeneData(*(x.to(dtype) for x in parts))


def cast(variances: Variances, dtype: torch.dtype) -> Variances:
    return Variances(*(None if x is None else x.to(dtype) for x in vars(variances).values()))


def test_float32_at_the_size_of_a_block() -> None:
    """64 genes x 1,000 lines x 4 sgRNAs: what float32 costs, beside float64 of the same rounded data."""
    single = made_block(64, 4, 1000, 20, torch.float32)
    double = single.double()
    logs = torch.linspace(-3, 0, 4, dtype=F64)
    variances = Variances(
        noise=torch.full((4,), 0.25, dtype=F64),
        sgrna=logs.exp().expand(64, 1, 4),
        gene=logs.flip(0).exp().expand(64, 4),
        gene_lineage=None,
        gene_line=(2 * logs).exp().expand(64, 1, 4),
    )
    t = 0.3 * torch.randn(1000, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
    exact = eliminate(double, variances, t)
    rounded = eliminate(single, cast(variances, torch.float32), t.float())
    # A difference of two sums of some 6,000 squares, one of them through a Cholesky factor of a matrix with condition
    # number 1e4: of the larger sum, 1e-6 to 1.2e-5 were lost on processors that add up in another order.
    larger = 0.5 * double.square[:, None] / variances.noise
    assert float(((rounded.log_evidence - exact.log_evidence) / larger).abs().max()) < 2e-5
    noise, leaf_noise = torch.zeros_like(exact.scale), torch.zeros_like(exact.weight)
    dense, leaf = draw_genes(double, variances, exact, noise, leaf_noise)
    dense32, leaf32 = draw_genes(single, cast(variances, torch.float32), rounded, noise.float(), leaf_noise.float())
    # Conditional means in units of their sds: a batched product of 1,000 terms loses 2e-7 to 1.6e-6, by processor, and
    # what the sgRNAs and the gene share is a difference of such; up to 0.03 of an sd was seen, where 0.08 is allowed.
    covariance = exact.scale[..., :, None] * torch.cholesky_inverse(exact.chol) * exact.scale[..., None, :]
    sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert float(((dense32 - dense) / sd).abs().max()) < 0.05
    assert variances.gene_line is not None
    leaf_sd = (variances.gene_line * exact.leaf_shrink).sqrt()
    assert float(((leaf32 - leaf) / leaf_sd).abs().max()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_common_offset_of_thousands_of_genes(dtype: torch.dtype) -> None:
    """The level of all lines together: precision 5 beside entries of 2e4, and its sd still right.

    With complete, balanced data the mean of a gene's rows is what the gene says of the level; it has variance
    gene + sgrna / K + gene_line / C + noise / (K C), so with lineages of equal size all is in closed form.
    """
    n_genes, n_slots, n_lines, n_lineages = 3000, 4, 50, 5
    noise, sgrna, gene, gene_line = 0.1, 0.5, 60.0, 0.05
    line, lineage, top = 0.3, 0.2, 3.0
    count = torch.ones(500, n_slots, n_lines, dtype=dtype)
    labels = torch.nn.functional.one_hot(torch.arange(n_lines) % n_lineages, n_lineages).to(dtype)
    pairs = torch.ones(500, n_slots * (n_slots + 1) // 2, n_lines, dtype=dtype)
    data = GeneData(count, 0 * count, pairs, torch.zeros(500, dtype=dtype), labels)

    def constant(value: float, *shape: int) -> Tensor:
        return torch.full((*shape, 1), value, dtype=dtype)

    variances = Variances(constant(noise), constant(sgrna, 1, 1), constant(gene, 1), None, constant(gene_line, 1, 1))
    total = None
    for _ in range(n_genes // 500):
        part = natural_parameters(data, variances, eliminate(data, variances), None)
        total = part if total is None else total + part
    assert total is not None
    assert total.precision.dtype == F64
    sd = torch.tensor([line] * n_lines + [lineage] * n_lineages + [top], dtype=F64)[None]
    coarse = torch.cat([labels, torch.ones(n_lines, 1, dtype=dtype)], 1).to(F64)
    posterior = solve_shared(total, sd, coarse)
    inverse = torch.linalg.solve_triangular(posterior.chol, torch.diag(sd[0])[None], upper=False)[0]
    covariance = inverse.T @ inverse
    of_level = torch.cat([torch.eye(n_lines, dtype=F64), coarse], 1).mean(0)

    of_gene = gene + sgrna / n_slots + gene_line / n_lines + noise / (n_slots * n_lines)
    below = line**2 / n_lines + lineage**2 / n_lineages
    level = 1 / (1 / (top**2 + below) + n_genes / of_gene)
    known = top**2 / (top**2 + below)
    entries = total.precision[0].diagonal()
    offset_precision = float(total.precision.sum())
    assert offset_precision == pytest.approx(n_genes / of_gene, rel=1e-4)
    assert float(entries.min()) > 300 * offset_precision
    # Float64 keeps 16 digits of entries near 2e4 and their sum over 2,500 of them is 50: 10 digits are left.
    assert float(of_level @ covariance @ of_level) == pytest.approx(level, rel=1e-6)
    assert float(covariance[-1, -1]) == pytest.approx(top**2 * (1 - known) + known**2 * level, rel=1e-6)


def on_meta(dtype: torch.dtype) -> tuple[GeneData, Tensor]:
    line = torch.zeros(60, dtype=torch.int64, device="meta")
    lineage = torch.zeros(5, 3, dtype=dtype, device="meta")
    data = gene_data(line, line, line, torch.zeros(60, dtype=dtype, device="meta"), (3, 4, 5), lineage)
    return data, lineage


@pytest.mark.parametrize(
    ("n_draws", "shared", "dtype"),
    [(2, "line", F64), (8, "line", torch.float32), (2, "lineage", torch.float32), (8, "one", F64)],
)
def test_no_tensor_is_made_on_another_device(n_draws: int, shared: str, dtype: torch.dtype) -> None:
    """Under fake tensors on the device `meta` an operation that mixes devices raises; forward, backward and draws."""
    with FakeTensorMode():
        data, lineage = on_meta(dtype)
        logs = {
            name: torch.zeros(*shape, n_draws, dtype=dtype, device="meta", requires_grad=True)
            for name, shape in {
                "noise": (),
                "sgrna": (3, 1),
                "gene": (3,),
                "gene_lineage": (3, 1),
                "gene_line": (1, 1),
            }.items()
        }
        variances = Variances(*(logs[name].exp() for name in Variances.__dataclass_fields__))
        resolution = {"line": None, "lineage": lineage, "one": lineage[:, :1]}[shared]
        size = 5 if resolution is None else resolution.shape[1]
        block = eliminate(data, variances)
        natural = natural_parameters(data, variances, block, resolution)
        sd = torch.ones(n_draws, size + 1, dtype=dtype, device="meta", requires_grad=True)
        posterior = solve_shared(natural, sd, torch.ones(size, 1, dtype=dtype, device="meta"))
        column = torch.zeros(5, n_draws, dtype=dtype, device="meta", requires_grad=True)
        given = eliminate(data, variances, column)
        (given.log_evidence.sum() + posterior.log_evidence.sum()).backward()
        assert all(
            value.grad is not None and value.grad.device.type == "meta" for value in [*logs.values(), sd, column]
        )
        u = draw_shared(posterior, torch.zeros_like(posterior.scale))
        dense, leaf = draw_genes(data, variances, given, torch.zeros_like(given.scale), torch.zeros_like(given.weight))
        assert (u.device.type, dense.device.type, leaf.device.type) == ("meta", "meta", "meta")
        with pytest.raises(RuntimeError, match="device"):
            eliminate(data, replace(variances, noise=torch.ones(n_draws, dtype=dtype)))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_answers_of_the_cpu() -> None:
    def moved(x: object, device: str) -> object:
        return x.to(device) if isinstance(x, Tensor) else x

    variances = make_variances(True, True, True, True, 3)
    data = GeneData(*(moved(x, "cuda") for x in vars(ROWS.data).values()))  # type: ignore[arg-type]
    there = Variances(*(moved(x, "cuda") for x in vars(variances).values()))  # type: ignore[arg-type]
    expected, found = eliminate(ROWS.data, variances), eliminate(data, there)
    torch.testing.assert_close(found.log_evidence.cpu(), expected.log_evidence, atol=1e-9, rtol=0)
