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

from vihier.diagnostics.designed_genes import DesignedGenes
from vihier.diagnostics.prior_tables import GenePriors, shared_part
from vihier.diagnostics.psis import KHAT_LIMIT, leave_one_out
from vihier.errors import VihierError
from vihier.guides.mixed_model import Structure
from vihier.guides.probe import base_distribution
from vihier.guides.structure import read_structure
from vihier.inference.batches import GeneBlocks
from vihier.inference.device import generator, run_on
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
        if structure.counts is not None:
            raise VihierError(
                "method 'conditional': rows that are read counts are not Gaussian given the scales; use --method draws "
                "(method='draws')"
            )
        if structure.design is not None and by == "cell":
            raise VihierError(
                "by 'cell': rows of one sgRNA and line can differ in their covariates or batches; leave out single rows"
            )
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
    if structure.design is not None:
        return _of_design(structure, block)
    rows = _Rows.of(block)
    shared = shared_part(structure, values, batch)
    priors = GenePriors.of(structure, values, batch)
    lfc = batch.lfc
    assert lfc is not None
    jobs = [(slice_, int(batch.gene[slice_.start])) for slice_ in _genes(batch)]

    def of_gene(job: tuple[slice, int]) -> tuple[np.ndarray, np.ndarray]:
        at, gene = job
        y = (lfc[at] - shared[:, batch.line[at]] - structure.row_offset).T
        return _of_gene(rows.take(at), y, priors.gene(gene), batch.sgrna[at], batch.line[at], batch.n_lines, by)

    return in_threads(of_gene, jobs, CPU)


def _of_design(structure: Structure, block: RowBlock) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the same for programs whose rows have covariates, row by row."""
    batch, rows = block.batch, _Rows.of(block)
    genes = DesignedGenes.of(structure, block.known[0], batch)

    def of_gene(job: tuple[slice, int]) -> tuple[np.ndarray, np.ndarray]:
        at, gene = job
        part, y = rows.take(at), genes.value[at]
        mean, variance = genes.conditional(at, gene, part.noise)
        without = kernel.cavity(mean, variance, 1 / part.noise, y / part.noise)
        both = [_row_density(part, y, *f) for f in (without, (mean, variance))]
        return both[0].numpy(), both[1].numpy()

    return in_threads(of_gene, [(at, int(batch.gene[at.start])) for at in _genes(batch)], CPU)


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
