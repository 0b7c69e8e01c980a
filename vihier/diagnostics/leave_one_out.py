"""Leave-one-out predictive densities of a fit's rows or cells, block by block.

`conditional`: a row is predicted from all other rows with everything of its gene but the scales integrated out in
closed form; PSIS (`vihier.diagnostics.psis`) then only has to correct the draws of the scales and of what genes share
for having seen one row. `draws`: PSIS over whole draws, as ArviZ's `loo` does; a gene x line effect that rests on one
or two rows then makes for k-hats above 0.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor

from vihier.diagnostics.psis import KHAT_LIMIT, leave_one_out
from vihier.guides.mixed_model import Location, Plates, Structure, from_program, index_of
from vihier.guides.probe import base_distribution
from vihier.guides.structure import read_structure
from vihier.inference.batches import GeneBlocks
from vihier.inference.device import generator, run_on
from vihier.inference.draws import Draws
from vihier.inference.predictor import CPU, Predictor, RowBlock
from vihier.inference.threads import in_threads
from vihier.kernels import gene_conditional as kernel
from vihier.models.batch import Batch
from vihier.models.trace import trace_program

By = Literal["row", "cell"]
Method = Literal["conditional", "draws"]


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """Log predictive density of every row, or of all rows of every (sgRNA, line) cell, given all others.

    Attributes
    ----------
    elpd, khat
        Of each unit, in the order of the screen's rows, nats; float64.
    lpd
        Log density of each unit given all rows, itself included.
    by
        `row` or `cell`.
    method
        `conditional` or `draws`.
    """

    elpd: np.ndarray
    khat: np.ndarray
    lpd: np.ndarray
    by: str
    method: str

    @property
    def total(self) -> float:
        """Sum over units, nats."""
        return float(self.elpd.sum())

    @property
    def se(self) -> float:
        """Standard error of the sum, units taken as independent."""
        return standard_error(self.elpd)

    @property
    def p_loo(self) -> float:
        """Effective number of parameters: how much better a unit is predicted by itself too."""
        return float((self.lpd - self.elpd).sum())

    @property
    def share_bad(self) -> float:
        """Share of units whose k-hat is above 0.7."""
        return float((self.khat > KHAT_LIMIT).mean())


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of a sum of independent values."""
    return float(np.sqrt(len(values) * values.var()))


def leave_rows_out(predictor: Predictor, by: By = "row", method: Method = "conditional") -> LeaveOneOut:
    """Compute leave-one-out densities of the rows of a fit's own screen.

    Parameters
    ----------
    predictor
        The fit, on the screen that it is of.
    by
        Leave out single rows, or all replicate rows of an (sgRNA, line) cell.
    method
        `conditional`, or `draws` for programs outside the family of the structured guide.

    Raises
    ------
    VihierError
        A program outside that family, with `conditional`.
    """
    structure = None
    if method == "conditional":
        with run_on(CPU, torch.float64):
            structure = read_structure(predictor.program.model, GeneBlocks(predictor.screen, 2)[0])
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for block in predictor.blocks():
        densities = _of_draws(block, by) if structure is None else _of_conditional(structure, block, by)
        parts += in_threads(_summed, list(densities), CPU)
    elpd, khat, lpd = (np.concatenate(each) for each in zip(*parts, strict=True))
    return LeaveOneOut(elpd, khat, lpd, by, method)


def _summed(densities: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left_out, given_all = densities
    elpd, khat = leave_one_out(left_out)
    top = given_all.max(-1, keepdims=True)
    return elpd, khat, (np.log(np.exp(given_all - top).mean(-1)) + top[:, 0])


def cells_of(sgrna: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each row, of rows sorted by sgRNA and line, and each cell's first row."""
    if not len(sgrna):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    starts = np.r_[True, (sgrna[1:] != sgrna[:-1]) | (line[1:] != line[:-1])]
    return np.cumsum(starts) - 1, np.flatnonzero(starts)


def _of_draws(block: RowBlock, by: By) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield log densities of the units of each gene in each draw, [units, N], twice."""
    batch = block.batch
    observed = observed_values(block.predictor, batch)
    log_p = np.concatenate([run.rows.log_prob(observed).numpy() for _, run in block.runs()])
    for rows in _genes(batch):
        values = log_p[:, rows].T
        if by == "cell":
            _, first = cells_of(batch.sgrna[rows].numpy(), batch.line[rows].numpy())
            values = np.add.reduceat(values, first) if len(first) else values
        yield values, values


def observed_values(predictor: Predictor, batch: Batch) -> Tensor:
    """Return what the program observes of a batch's rows: their `lfc`, or what it makes of them."""
    value: Tensor = _observed_site(predictor, batch)["value"]
    return value


def _observed_site(predictor: Predictor, batch: Batch) -> Any:
    with run_on(CPU, torch.float64), pyro.poutine.block():
        return trace_program(predictor.program.model, batch).nodes[predictor.sites.observed[0]]


def _genes(batch: Batch) -> Iterator[slice]:
    """Yield where the rows of each gene are; rows are sorted by gene."""
    ends = np.searchsorted(batch.gene.numpy(), np.arange(len(batch.gene_idx)), side="right")
    start = 0
    for end in ends:
        if end > start:
            yield slice(start, int(end))
        start = int(end)


def _of_conditional(structure: Structure, block: RowBlock, by: By) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    batch, values = block.batch, block.known[0]
    rows = _Rows.of(block)
    shared = _shared_part(structure, values, batch)
    priors = _Priors.of(structure, values, batch)
    lfc = batch.lfc
    assert lfc is not None
    jobs = [(slice_, int(batch.gene[slice_.start])) for slice_ in _genes(batch)]

    def of_gene(job: tuple[slice, int]) -> tuple[np.ndarray, np.ndarray]:
        at, gene = job
        y = (lfc[at] - shared[:, batch.line[at]] - structure.row_offset).T
        return _of_gene(rows.take(at), y, priors.gene(gene), batch.sgrna[at], batch.line[at], batch.n_lines, by)

    return in_threads(of_gene, jobs, CPU)


@dataclass(frozen=True)
class _Rows:
    """Noise of rows, [n, N]: variance given the row's weight; and, of Student-t rows, scale and degrees of freedom."""

    noise: Tensor
    scale: Tensor
    freedom: Tensor | None

    @staticmethod
    def of(block: RowBlock) -> _Rows:
        """Read the rows' distribution off the program; weights of Student-t rows are drawn given all else."""
        assert block.batch.lfc is not None
        scales, freedoms, noises = [], [], []
        for at, run in block.runs():
            base = base_distribution(run.rows)
            scale = base.scale.T
            scales.append(scale)
            noise = scale.square()
            if hasattr(base, "df"):
                freedom = base.df.T
                shape, rate = (freedom + 1) / 2, (freedom + ((block.batch.lfc - base.loc).T / scale).square()) / 2
                random = generator(CPU, block.predictor.seed, "weights", int(block.batch.gene_idx[0]), at.start)
                noise = noise * rate / torch._standard_gamma(shape, generator=random)
                freedoms.append(freedom)
            noises.append(noise)
        freedom = torch.cat(freedoms, 1) if freedoms else None
        return _Rows(torch.cat(noises, 1), torch.cat(scales, 1), freedom)

    def take(self, at: slice) -> _Rows:
        """Return some rows."""
        return _Rows(self.noise[at], self.scale[at], None if self.freedom is None else self.freedom[at])


def _of_gene(
    rows: _Rows, y: Tensor, prior: kernel.GenePrior, sgrna: Tensor, line: Tensor, n_lines: int, by: By
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of a gene's units left out, and given all, [units, N]; y is lfc less the shared part, [n, N]."""
    _, slot = sgrna.unique(return_inverse=True)
    n_draws = y.shape[1]
    if prior.sgrna is not None:
        n_slots = len(prior.sgrna)
    else:
        n_slots, slot = 1, torch.zeros_like(slot)
    place = slot * n_lines + line
    zeros = y.new_zeros(n_slots * n_lines, n_draws)
    weight, weighted = zeros.index_add(0, place, 1 / rows.noise), zeros.index_add(0, place, y / rows.noise)
    shape = (n_slots, n_lines, n_draws)
    mean, variance = kernel.conditional(prior, weight.reshape(shape), weighted.reshape(shape))
    mean, variance = mean.reshape(-1, n_draws)[place], variance.reshape(-1, n_draws)[place]
    if by == "row":
        without = kernel.cavity(mean, variance, 1 / rows.noise, y / rows.noise)
        both = [_row_density(rows, y, *f) for f in (without, (mean, variance))]
        return both[0].numpy(), both[1].numpy()
    codes, firsts = cells_of(sgrna.numpy(), line.numpy())
    cell, first = torch.as_tensor(codes), torch.as_tensor(firsts)
    zeros = y.new_zeros(len(first), n_draws)
    sums = zeros.index_add(0, cell, 1 / rows.noise), zeros.index_add(0, cell, y / rows.noise)
    mean, variance = mean[first], variance[first]
    both = [_cell_density(rows, cell, y, *f) for f in (kernel.cavity(mean, variance, *sums), (mean, variance))]
    return both[0].numpy(), both[1].numpy()


def _row_density(rows: _Rows, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if rows.freedom is None:
        return kernel.normal_density(y, rows.noise, mean, variance)
    return kernel.student_density(y, rows.freedom, rows.scale, mean, variance)


def _cell_density(rows: _Rows, cell: Tensor, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if rows.freedom is None:
        return kernel.normal_cells(cell, len(mean), y, rows.noise, mean, variance)
    return kernel.student_cells(cell, len(mean), y, rows.freedom, rows.scale, mean, variance)


@dataclass(frozen=True)
class _Priors:
    """Prior variances of a block's tables, draws first: [N, Sb], [N, B], [N, B, L], [N, B, C]."""

    tables: dict[Plates, Tensor]
    batch: Batch

    @classmethod
    def of(cls, structure: Structure, values: Draws, batch: Batch) -> _Priors:
        tables: dict[Plates, Tensor] = {}
        for plates in (("sgrna",), ("gene",), ("gene", "lineage"), ("gene", "line")):
            for location in structure.table(plates):
                variance = _variance(structure, location, values, batch)
                tables[plates] = variance + tables[plates] if plates in tables else variance
        return cls(tables, batch)

    def gene(self, gene: int) -> kernel.GenePrior:
        """Return those of one gene, draws last."""
        tables = self.tables
        sgrnas = (self.batch.gene_of_sgrna == gene).nonzero()[:, 0]
        of_gene = {plates: table[:, gene].movedim(0, -1) for plates, table in tables.items() if plates[0] == "gene"}
        return kernel.GenePrior(
            sgrna=tables[("sgrna",)][:, sgrnas].T if ("sgrna",) in tables else None,
            gene=of_gene.get(("gene",)),
            gene_lineage=of_gene.get(("gene", "lineage")),
            gene_line=of_gene.get(("gene", "line")),
            lineage=self.batch.lineages_of_lines,
        )


def _variance(structure: Structure, location: Location, values: Draws, batch: Batch) -> Tensor:
    """Prior variance that a location's own deviation gives a row's mean, draws first, over its plates."""
    sizes = {"sgrna": len(batch.sgrna_idx), "gene": len(batch.gene_idx), "line": batch.n_lines}
    sizes |= {"lineage": batch.lineages}
    n_draws = len(next(iter(values.values())))
    shape = (n_draws, *(sizes[plate] for plate in location.plates))
    sd = torch.full((n_draws, *(1 for _ in location.plates)), location.factor, dtype=torch.float64)
    if location.scale is not None:
        sd = location.factor * _gathered(structure, location.scale, location.plates, values, batch)
    return (location.reach * sd).square().expand(shape)


def _gathered(structure: Structure, source: str, child: Plates, values: Draws, batch: Batch) -> Tensor:
    """Bring draws of a site to the elements of another table, draws first."""
    site = structure.site(source)
    tables = torch.vmap(lambda value: from_program(value, site.plates, site.dims))(values[source])
    index = index_of(site.plates, child, batch)
    assert index is not None
    everything: tuple[Any, ...] = (slice(None), *index)
    found = tables[everything] if index else tables
    return found.reshape(len(found), *found.shape[1:], *(1 for _ in range(len(child) - found.dim() + 1)))


def _shared_part(structure: Structure, values: Draws, batch: Batch) -> Tensor:
    """Sum of the own deviations of what genes share in each line, [N, C]."""
    n_draws = len(next(iter(values.values())))
    total = torch.zeros(n_draws, batch.n_lines, dtype=torch.float64)
    for location in structure.locations:
        if set(location.plates) & {"gene", "sgrna"}:
            continue
        deviation = _gathered(structure, location.name, ("line",), values, batch) - location.offset
        for parent, coefficient in location.parents:
            deviation = deviation - coefficient * _gathered(structure, parent, ("line",), values, batch)
        total = total + location.reach * deviation
    return total


def likelihood_unit(predictor: Predictor) -> str:
    """Say what a program gives a density to: log densities of different units are not to be compared."""
    batch = GeneBlocks(predictor.screen, 1)[0]
    assert batch.lfc is not None
    site, name = _observed_site(predictor, batch), predictor.sites.observed[0]
    observed = site["value"]
    if site["fn"].support.is_discrete:
        return f"counts of {name!r}"
    same = observed.shape == batch.lfc.shape and torch.allclose(observed, batch.lfc)
    return "log2 fold change" if same else f"{name!r}, which is not lfc itself"
