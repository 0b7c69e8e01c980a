"""A small ragged block as dense linear algebra: one matrix for all rows, a column for every element of each table."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vihier.kernels.cells import GeneData, gene_data
from vihier.kernels.elimination import Variances

F64 = torch.float64
LINEAGE_OF_LINE = torch.tensor([0, 1, 1, 2, 0])
LINEAGE = torch.nn.functional.one_hot(LINEAGE_OF_LINE, 3).to(F64)
TABLES = list(itertools.product([False, True], repeat=4))
RESOLUTIONS = ["line", "lineage", "one"]
CASES = [
    pytest.param(*tables, shared, id="-".join(map(str, map(int, tables))) + f"-{shared}")
    for tables in TABLES
    for shared in RESOLUTIONS
]


@dataclass(frozen=True)
class Rows:
    """Rows of a block, and the cells that they are summed into."""

    gene: Tensor
    slot: Tensor
    line: Tensor
    lfc: Tensor
    data: GeneData


def make_rows(sgrnas: tuple[int, ...] = (1, 3, 30), replicates: int = 3, seed: int = 0) -> Rows:
    """Genes of 1, 3 and 30 sgRNAs in 5 lines: 0 to 3 replicates a cell, gene 1 without line 3, gene 0 in two lines."""
    random = torch.Generator().manual_seed(seed)
    n_lines = len(LINEAGE_OF_LINE)
    cells = [(g, k, c) for g, n in enumerate(sgrnas) for k in range(n) for c in range(n_lines)]
    missing = {(1, 3), (0, 0), (0, 2), (0, 4)}
    rows = [
        cell
        for cell in cells
        if (cell[0], cell[2]) not in missing
        for _ in range(int(torch.randint(0, replicates + 1, (), generator=random)))
    ]
    gene, slot, line = torch.tensor(rows).T
    lfc = torch.randn(len(rows), generator=random, dtype=F64) + 0.5
    return Rows(gene, slot, line, lfc, gene_data(gene, slot, line, lfc, (len(sgrnas), max(sgrnas), n_lines), LINEAGE))


ROWS = make_rows()


def make_variances(
    sgrna: bool, gene: bool, gene_lineage: bool, gene_line: bool, n_draws: int, seed: int = 1
) -> Variances:
    """Variances between 0.1 and 1.1, of each element on its own."""
    random = torch.Generator().manual_seed(seed)
    n_genes, n_slots, n_lines = ROWS.data.count.shape

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, n_draws, generator=random, dtype=F64) + 0.1

    return Variances(
        noise=drawn(),
        sgrna=drawn(n_genes, n_slots) if sgrna else None,
        gene=drawn(n_genes) if gene else None,
        gene_lineage=drawn(n_genes, 3) if gene_lineage else None,
        gene_line=drawn(n_genes, n_lines) if gene_line else None,
    )


def one_draw(variances: Variances, draw: int) -> Variances:
    """Return variances with one draw only."""
    return Variances(*(None if x is None else x[..., draw : draw + 1] for x in vars(variances).values()))


def repeated(variances: Variances, times: int) -> Variances:
    """Return variances with one draw, that many times."""
    return Variances(
        *(None if x is None else x[..., :1].expand(*x.shape[:-1], times) for x in vars(variances).values())
    )


@dataclass(frozen=True)
class Shared:
    """The shared tables at a resolution: what `solve_shared` needs, and the columns of lines they make, [C, P]."""

    resolution: Tensor | None
    coarse: Tensor
    columns: Tensor


def make_shared(resolution: str) -> Shared:
    ones = torch.ones(len(LINEAGE_OF_LINE), 1, dtype=F64)
    if resolution == "line":
        coarse = torch.cat([LINEAGE, ones], 1)
        return Shared(None, coarse, torch.cat([torch.eye(5, dtype=F64), coarse], 1))
    if resolution == "lineage":
        return Shared(LINEAGE, torch.ones(3, 1, dtype=F64), torch.cat([LINEAGE, ones], 1))
    return Shared(ones, torch.zeros(1, 0, dtype=F64), ones)


def shared_sds(shared: Shared, n_draws: int, seed: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(n_draws, shared.columns.shape[1], generator=random, dtype=F64) + 0.3


def design_of(rows: Rows, variances: Variances) -> tuple[Tensor, Tensor]:
    """Columns of the rows' design for every element of d and e, gene by gene, and the elements' prior variances.

    The order is that of `draw_genes`: for each gene a, m, b, then e.
    """
    columns, prior = [], []
    n_genes, n_slots, n_lines = rows.data.count.shape

    def indicator(chosen: Tensor, size: int) -> Tensor:
        return torch.nn.functional.one_hot(chosen, size).to(F64)

    for g in range(n_genes):
        mine = (rows.gene == g).to(F64)[:, None]
        tables = [
            (variances.sgrna, indicator(rows.slot, n_slots)),
            (variances.gene_lineage, indicator(LINEAGE_OF_LINE[rows.line], 3)),
            (None if variances.gene is None else variances.gene[:, None], torch.ones(len(rows.gene), 1, dtype=F64)),
            (variances.gene_line, indicator(rows.line, n_lines)),
        ]
        for variance, table in tables:
            if variance is not None:
                columns.append(mine * table)
                prior.append(variance[g, :, 0].expand(table.shape[1]))
    if not columns:
        return torch.zeros(len(rows.gene), 0, dtype=F64), torch.zeros(0, dtype=F64)
    return torch.cat(columns, 1), torch.cat(prior)


def dense_log_evidence(rows: Rows, variances: Variances, mean: Tensor, extra: Tensor | float = 0.0) -> Tensor:
    """Log density of the rows: Normal with covariance noise + design x prior x design' + extra."""
    design, prior = design_of(rows, variances)
    covariance = variances.noise[0] * torch.eye(len(mean), dtype=F64) + design @ (prior[:, None] * design.T) + extra
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(rows.lfc)


def draws_by_gene(dense: Tensor, leaf: Tensor, variances: Variances) -> Tensor:
    """Bring draws of d [B, N, D] and e [B, C, N] to the order of `design_of`, [elements, N]."""
    parts = [dense.transpose(1, 2)] + ([leaf] if variances.gene_line is not None else [])
    return torch.cat(parts, 1).flatten(0, 1)
