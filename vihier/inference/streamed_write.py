"""The posterior file of a streamed fit: draws of all that is not over genes and lines, and moments of all that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.guides.block import Block
from vihier.guides.cell_file import CellFile
from vihier.guides.draw_groups import GROUP
from vihier.guides.kept_draws import KeptFit
from vihier.guides.streamed_draws import StreamedFit
from vihier.guides.streamed_leaf import cells_of, dims_in_file, places_of, regeneration_of
from vihier.guides.structure import Structure
from vihier.inference.draws import DrawPlan
from vihier.inference.linear_probe import linear_forms
from vihier.inference.progress import Progress
from vihier.inference.shelf import Shelf, Table
from vihier.inference.threads import in_threads, one_thread
from vihier.inference.variables import GENE_LINE
from vihier.models.batch import Batch
from vihier.posterior.linear_forms import GENE, LINE, LINEAGE, SGRNA, LinearForm, Places, Term, value_of
from vihier.posterior.mixture_moments import even_noise, even_noise_of, moments_of_even
from vihier.posterior.moments import STATISTICS
from vihier.posterior.regeneration import Cells, Regeneration, in_steps
from vihier.posterior.writer import PosteriorWriter

MOMENT_DRAWS = 2 * GROUP
"""Draws of all else that moments over genes and lines are mixtures over."""
PIECE_PAIRS = 4_000
"""Pairs of a gene and a line whose moments are worked out at once: with the draws of a group, 4 MB an array."""
ELEMENTS_AT_ONCE = 1_000_000
"""Elements of an array over genes, lines and draws, where draws of these are stored."""
CELLS = "cells"
COMMIT_SECONDS = 5.0
"""Between two times at which the disk is made to hold what blocks added."""
Values = dict[str, np.ndarray]
Known = dict[str, tuple[tuple[str, ...], np.ndarray]]


def bytes_of_kept(n_genes: int, n_lines: int, n_draws: int) -> int:
    """Return what draws of one table over genes and lines take on disk that are kept as whole steps."""
    return 2 * n_genes * n_lines * n_draws


def bytes_of_pairs(plan: DrawPlan, n_genes: int, n_lines: int, n_draws: int) -> int:
    """Return what draws of all variables over genes and lines take on disk."""
    return 4 * n_genes * n_lines * n_draws * sum(variable.dims == GENE_LINE for variable in plan.variables)


@dataclass(frozen=True)
class Recipe:
    """What is made of a block's draws: how pairs are regenerated, and the other variables of genes that are sums."""

    regeneration: Regeneration
    sums: Mapping[str, tuple[tuple[str, ...], LinearForm]]
    stored: tuple[str, ...]

    @classmethod
    def of(cls, plan: DrawPlan, structure: Structure, seed: int, batch: Batch) -> Recipe:
        """Read it off a program.

        Parameters
        ----------
        batch : Batch
            A few genes with rows, in float64.

        Raises
        ------
        VihierError
            A variable that is no sum of sites, so that its draws can only be stored.
        """
        sampled = {site.name for site in plan.sites.latent}
        computed = [variable for variable in plan.variables if variable.name not in sampled]
        forms = linear_forms(plan, batch, [variable.name for variable in computed])
        if "effect" in forms and "effect_gene" in forms:
            effect = forms["effect"]
            forms["effect_dev"] = LinearForm(effect.offset, (*effect.terms, Term("effect_gene", -1.0)))
        missing = [variable.name for variable in computed if variable.name not in forms]
        pairs = {variable.name: forms.get(variable.name) for variable in computed if variable.dims == GENE_LINE}
        made = {name: form for name, form in pairs.items() if form is not None}
        regeneration = regeneration_of(structure, made, seed)
        if missing or regeneration is None:
            what = f"variable {missing[0]!r} is" if missing else "the table over genes and lines is"
            raise VihierError(
                f"{what} not a plain sum of the program's sites: its draws cannot be made again from smaller ones, "
                "only stored; give --draws-disk-gb the room for them, or fewer --draws"
            )
        sums = {x.name: (x.dims, forms[x.name]) for x in computed if x.dims != GENE_LINE}
        stored = tuple(variable.name for variable in plan.variables if variable.dims != GENE_LINE)
        return cls(regeneration, sums, stored)


@dataclass(frozen=True)
class _Done:
    """What a block adds: draws of all that is not over genes and lines, moments of what is, and its cells."""

    places: Places
    known: Known
    moments: Mapping[str, Mapping[str, np.ndarray]]
    cells: Cells


class FinalPass:
    """The last pass over the blocks, and the file that is made of it.

    Parameters
    ----------
    plan, recipe, fitted, cells
        What is written, how it follows, from which draws, for which genes.
    folder : Path
        Where what blocks add waits until all are there.
    pairs_stored : bool
        Whether draws of variables over genes and lines are written. Those that are made again are the same.
    """

    def __init__(
        self,
        plan: DrawPlan,
        recipe: Recipe,
        fitted: StreamedFit | KeptFit,
        cells: CellFile,
        folder: Path,
        *,
        pairs_stored: bool,
    ) -> None:
        self.plan, self.recipe, self.fitted, self.cells = plan, recipe, fitted, cells
        self.dims = {variable.name: variable.dims for variable in plan.variables}
        self.pairs_stored = pairs_stored
        self.local = [name for name in recipe.stored if GENE in self.dims[name] or SGRNA in self.dims[name]]
        terms = recipe.regeneration.rest.terms
        self.by_sgrna = any(self.dims[term.variable] == (SGRNA,) for term in terms)
        shared = {name: value.to(fitted.dtype).cpu().numpy() for name, value in fitted.shared_values.items()}
        self.known: Known = {
            name: (dims_in_file(fitted.structure, name), np.ascontiguousarray(value, np.float32))
            for name, value in shared.items()
        }
        self.noise = even_noise(min(MOMENT_DRAWS, fitted.n_draws))
        self.shelf = Shelf(folder, self._tables(), cells.workers.rank)

    def _tables(self) -> dict[str, Table]:
        cells, n_draws = self.cells, self.fitted.n_draws
        rows = {GENE: cells.n_genes, SGRNA: cells.n_sgrnas}
        others = {LINE: cells.n_lines, LINEAGE: self.cells.skeleton(0).data.lineage.shape[1]}
        tables = {}
        for name in self.local:
            first, *rest = self.dims[name]
            tables[f"draws.{name}"] = Table(rows[first], (*(others[dim] for dim in rest), n_draws), np.dtype("f4"))
        if not self.pairs_stored:
            for name in self.recipe.regeneration.variables:
                for statistic in STATISTICS:
                    tables[f"moments.{name}.{statistic}"] = Table(cells.n_genes, (cells.n_lines,), np.dtype("f4"))
        if self.recipe.regeneration.kept:
            return tables
        tables["cells.total"] = Table(cells.n_genes, (cells.n_lines,), np.dtype("f4"))
        tables["cells.line_count"] = Table(cells.n_genes, (cells.n_lines,), np.dtype("u2"))
        if self.by_sgrna:
            tables["cells.count"] = Table(cells.n_sgrnas, (cells.n_lines,), cells.count_type)
        return tables

    def run(self, progress: Progress, after_block: Callable[[], None] = lambda: None) -> None:
        """Work out every block of this worker that is not there yet.

        Parameters
        ----------
        after_block : callable
            Called after each; what it raises ends the pass, with what is done so far kept.
        """
        left = [number for number in self.cells.mine if number not in self.shelf.finished]
        progress.start("drawing", len(left))

        def of_block(number: int) -> _Done:
            noise = None if self.pairs_stored else self.noise
            return _work_out(self.cells[number], self.recipe, self.fitted, self.known, noise)

        since = time.monotonic()
        try:
            device = self.cells.skeleton(0).slot.device
            with torch.no_grad(), one_thread(), closing(in_threads(of_block, left, device)) as blocks:
                for done, (number, block) in enumerate(zip(left, blocks, strict=True)):
                    self._put(block)
                    self.shelf.done(number)
                    if time.monotonic() - since > COMMIT_SECONDS:
                        self.shelf.commit()
                        since = time.monotonic()
                    progress.update(done + 1)
                    after_block()
        finally:
            self.shelf.commit()

    def _put(self, block: _Done) -> None:
        shelf, places = self.shelf, block.places
        for name in self.local:
            rows = places.sgrnas if SGRNA in self.dims[name] else places.genes
            shelf.put(f"draws.{name}", rows, block.known[name][1])
        for name, moments in block.moments.items():
            for statistic, values in moments.items():
                shelf.put(f"moments.{name}.{statistic}", places.genes, values)
        if block.cells.deviation is not None:
            return
        shelf.put("cells.total", places.genes, block.cells.total)
        shelf.put("cells.line_count", places.genes, block.cells.line_count)
        if self.by_sgrna:
            shelf.put("cells.count", places.sgrnas, block.cells.count)

    def write(self, writer: PosteriorWriter, gene_of_sgrna: np.ndarray, progress: Progress) -> None:
        """Write the file's variables, from what all blocks of all workers added."""
        for name, dims in self.dims.items():
            writer.add(name, dims, stored=self.pairs_stored or dims != GENE_LINE)
        progress.start("writing", len(self.shelf.tables))
        places = places_of(self.cells.skeleton(0).batch)
        for name in self.recipe.stored:
            if name not in self.local:
                dims, values = self.known.get(name) or (self.dims[name], self._shared_sum(name, places))
                writer.write(name, np.moveaxis(values, -1, 0))
        for number, name in enumerate(self.shelf.tables):
            kind, variable, *_ = name.split(".")
            if kind == "draws":
                for at in self.shelf.slabs(name):
                    writer.write(variable, np.moveaxis(self.shelf.read(name, at.start, at.stop), -1, 0), at=at)
            elif kind == "cells":
                self._write_cells(writer, variable)
            progress.update(number + 1)
        if self.pairs_stored:
            self._write_pairs(writer, gene_of_sgrna, places, progress)
            return
        if self.recipe.regeneration.kept:
            self._write_deviations(writer)
        for variable in self.recipe.regeneration.variables:
            names = {statistic: f"moments.{variable}.{statistic}" for statistic in STATISTICS}
            for at in self.shelf.slabs(names["mean"]):
                moments = {key: self.shelf.read(name, at.start, at.stop) for key, name in names.items()}
                writer.write_moments(variable, moments, at=at)

    def _shared_sum(self, name: str, places: Places) -> np.ndarray:
        dims, form = self.recipe.sums[name]
        return np.asarray(value_of(form, self.known, dims, places))

    def _write_cells(self, writer: PosteriorWriter, variable: str) -> None:
        if self.pairs_stored:  # they are only there to make draws again
            return
        name = f"{CELLS}.{variable}"
        table = self.shelf.tables[name]
        writer.add_table(CELLS, variable, (SGRNA, LINE) if variable == "count" else GENE_LINE, table.dtype)
        for at in self.shelf.slabs(name):
            writer.write_table(CELLS, variable, self.shelf.read(name, at.start, at.stop), at=at)

    def _write_deviations(self, writer: PosteriorWriter) -> None:
        """Write the kept draws of the gene x line table's deviations."""
        writer.add_table(CELLS, "deviation", (*GENE_LINE, "draw"), np.dtype(np.int16))
        writer.add_table(CELLS, "deviation_step", (GENE,), np.dtype(np.float32))
        for genes, deviation in self._kept_deviations():
            steps, step = in_steps(deviation)
            writer.write_table(CELLS, "deviation", steps, at=genes)
            writer.write_table(CELLS, "deviation_step", step, at=genes)

    def _kept_deviations(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield genes of one block after another, of all workers, and the kept deviations of these."""
        assert isinstance(self.fitted, KeptFit)
        first = 0
        for number, (n_genes, _, _) in enumerate(self.cells.sizes):
            yield np.arange(first, first + n_genes), self.fitted.leaf_of(number).cpu().numpy()
            first += n_genes

    def _write_pairs(
        self, writer: PosteriorWriter, gene_of_sgrna: np.ndarray, whole: Places, progress: Progress
    ) -> None:
        """Write all draws of variables over genes and lines, made of the others as a reader would make them."""
        cells, regeneration = self.cells, self.recipe.regeneration
        per_piece = max(1, ELEMENTS_AT_ONCE // (cells.n_lines * self.fitted.n_draws))
        pieces = [
            np.arange(first, min(first + per_piece, cells.n_genes)) for first in range(0, cells.n_genes, per_piece)
        ]
        if regeneration.kept:
            ends = np.cumsum([n_genes for n_genes, _, _ in cells.sizes])
            pieces = np.split(np.arange(cells.n_genes), ends[:-1])
        progress.start("writing draws", len(pieces))

        def draws_of(genes: np.ndarray) -> dict[str, np.ndarray]:
            sgrnas = np.flatnonzero(np.isin(gene_of_sgrna, genes))
            of_gene = gene_of_sgrna[sgrnas] - genes[0]
            places = Places(genes, whole.lines, sgrnas, of_gene, whole.lineage_of_line, whole.lineage_of_all)
            known = dict(self.known)
            for name in self.local:
                rows = sgrnas if SGRNA in self.dims[name] else genes
                known[name] = self.dims[name], self.shelf.rows(f"draws.{name}", rows)
            return regeneration.draws(regeneration.variables, self._cells_of(genes, sgrnas), known, places)

        drawn = in_threads(draws_of, pieces, torch.device("cpu"))
        for number, (genes, values) in enumerate(zip(pieces, drawn, strict=True)):
            for name, each in values.items():
                writer.write(name, np.moveaxis(each, -1, 0), at=genes)
            progress.update(number + 1)

    def _cells_of(self, genes: np.ndarray, sgrnas: np.ndarray) -> Cells:
        """Return the cells of some genes; of a whole block, where draws are kept."""
        if isinstance(self.fitted, KeptFit):
            return Cells.of_kept(self.fitted.leaf_of(self.fitted.number_of[int(genes[0])]).cpu().numpy())
        tables = [self.shelf.rows("cells.total", genes), self.shelf.rows("cells.line_count", genes)]
        count = self.shelf.rows("cells.count", sgrnas) if self.by_sgrna else np.zeros((0, self.cells.n_lines), "u1")
        return Cells(tables[0], count, tables[1])


def _work_out(
    block: Block, recipe: Recipe, fitted: StreamedFit | KeptFit, shared: Known, noise: np.ndarray | None
) -> _Done:
    drawn = fitted.draw_genes(block)
    known = dict(shared)
    for name, value in (drawn.values | drawn.scales).items():
        known[name] = dims_in_file(fitted.structure, name), np.ascontiguousarray(value.cpu().numpy(), dtype=np.float32)
    places = places_of(block.batch)
    cells = cells_of(block) if drawn.leaf is None else Cells.of_kept(drawn.leaf.cpu().numpy())
    regeneration = recipe.regeneration
    for name, (dims, form) in recipe.sums.items():
        known[name] = dims, _sum(form, dims, regeneration, known, cells, places)
    if noise is None:
        return _Done(places, known, {}, cells)
    moments: dict[str, dict[str, np.ndarray]] = {name: {} for name in regeneration.variables}
    n_draws = len(noise) if cells.deviation is None else fitted.n_draws
    some = {name: (dims, np.ascontiguousarray(value[..., :n_draws])) for name, (dims, value) in known.items()}
    per_piece, shape = max(1, PIECE_PAIRS // len(places.lines)), (len(places.genes), len(places.lines))
    for first in range(0, len(places.genes), per_piece):
        genes = slice(first, first + per_piece)
        for name, found in _moments(regeneration, *_piece(some, cells, places, genes), noise).items():
            for statistic, values in found.items():
                whole = moments[name].setdefault(statistic, np.empty(shape, dtype=np.float32))
                whole[genes] = values
    return _Done(places, known, moments, cells)


def _sum(
    form: LinearForm, dims: tuple[str, ...], regeneration: Regeneration, known: Known, cells: Cells, places: Places
) -> np.ndarray:
    """Draws of a sum; where the gene x line table's mean over lines is in it, from that of its posterior and noise."""
    leaf = [term for term in form.terms if term.variable == regeneration.leaf]
    if leaf:
        mean = regeneration.mean_over_lines(cells, known, places)
        known = {**known, "": ((GENE,), mean)}
        terms = tuple(Term("", t.coefficient) if t in leaf else t for t in form.terms)
        form = LinearForm(form.offset, terms)
    values = value_of(form, known, dims, places)
    at = [places.of_dim(dim) for dim in dims]
    sizes = [n if positions is None else len(positions) for positions, n in zip(at, values.shape, strict=False)]
    return np.ascontiguousarray(np.broadcast_to(values, (*sizes, values.shape[-1])), dtype=np.float32)


def _piece(known: Known, cells: Cells, places: Places, genes: slice) -> tuple[Known, Cells, Places]:
    """Cut some genes out of a block's."""
    inside = np.arange(len(places.genes))[genes]
    sgrnas = np.flatnonzero(np.isin(places.gene_of_sgrna, inside))
    cut: Known = {}
    for name, (dims, values) in known.items():
        if SGRNA in dims:
            values = values[sgrnas]
        elif GENE in dims:
            values = values[inside]
        cut[name] = dims, values
    of_genes = Places(
        places.genes[inside],
        places.lines,
        places.sgrnas[sgrnas],
        places.gene_of_sgrna[sgrnas] - inside[0],
        places.lineage_of_line,
        places.lineage_of_all,
    )
    return cut, cells.of_genes(inside, sgrnas), of_genes


def _moments(
    regeneration: Regeneration, known: Known, cells: Cells, places: Places, noise: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Moments of all variables over genes and lines, each element a mixture over the draws of all else."""
    if cells.deviation is not None:
        values = regeneration.draws_of_leaf(cells, known, places)
    else:
        values, sd = regeneration.posterior(cells, known, places)
        step = even_noise_of(noise, places.genes, places.lines, np.broadcast_to(sd[:, 0], (len(values), len(noise))))
        step *= sd
        values += step
    known = {**known, regeneration.leaf: (GENE_LINE, values)}
    found = {}
    for name, form in regeneration.variables.items():
        if name == regeneration.leaf:
            continue
        drawn = np.array(np.broadcast_to(value_of(form, known, GENE_LINE, places), values.shape))
        found[name] = moments_of_even(drawn)
    found[regeneration.leaf] = moments_of_even(values)
    return found
