"""The posterior file of a streamed fit: draws of all that is not over genes and lines, and moments of all that is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.guides.block import Block
from vihier.guides.cell_file import CellFile
from vihier.guides.draw_groups import GROUP
from vihier.guides.streamed_draws import StreamedFit
from vihier.guides.streamed_leaf import cells_of, dims_in_file, places_of, regeneration_of
from vihier.guides.structure import Structure
from vihier.inference.draws import DrawPlan
from vihier.inference.linear_probe import linear_forms
from vihier.inference.progress import Progress
from vihier.inference.threads import in_threads, one_thread
from vihier.inference.variables import GENE_LINE
from vihier.models.batch import Batch
from vihier.posterior.linear_forms import GENE, LINE, SGRNA, LinearForm, Places, Term, value_of
from vihier.posterior.mixture_moments import even_noise, even_noise_of, moments_of_even
from vihier.posterior.regeneration import Cells, Regeneration
from vihier.posterior.writer import PosteriorWriter

MOMENT_DRAWS = 2 * GROUP
"""Draws of all else that moments over genes and lines are mixtures over."""
PIECE_PAIRS = 4_000
"""Pairs of a gene and a line whose moments are worked out at once: with the draws of a group, 4 MB an array."""
ELEMENTS_AT_ONCE = 4_000_000
"""Elements of an array over genes, lines and draws, where draws of these are stored."""
CELLS = "cells"
Values = dict[str, np.ndarray]
Known = dict[str, tuple[tuple[str, ...], np.ndarray]]


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
    """What a block adds to the file: draws of all that is not over genes and lines, and moments of what is."""

    places: Places
    known: Known
    moments: Mapping[str, Mapping[str, np.ndarray]]
    cells: Cells


def write_posterior(
    writer: PosteriorWriter,
    plan: DrawPlan,
    recipe: Recipe,
    fitted: StreamedFit,
    cells: CellFile,
    progress: Progress,
    folder: Path | None,
    *,
    pairs_stored: bool,
) -> None:
    """Write draws of every variable, or of all but those over genes and lines; moments of all, and the cells.

    Parameters
    ----------
    folder : Path or None
        Where draws of sgRNAs wait until all are there: their labels come in another order than their genes'.
    pairs_stored : bool
        Whether draws of variables over genes and lines are written. Those that are made again are the same.
    """
    dims = {variable.name: variable.dims for variable in plan.variables}
    for name, its_dims in dims.items():
        writer.add(name, its_dims, stored=pairs_stored or its_dims != GENE_LINE)
    writer.add_table(CELLS, "total", GENE_LINE, np.float32)
    writer.add_table(CELLS, "line_count", GENE_LINE, np.uint16)
    by_sgrna = any(dims[term.variable] == (SGRNA,) for term in recipe.regeneration.rest.terms)
    if by_sgrna:
        writer.add_table(CELLS, "count", (SGRNA, LINE), cells.count_type)
    shared = {name: value.to(fitted.own.centre).cpu().numpy() for name, value in fitted.shared_values.items()}
    known = {
        name: (dims_in_file(fitted.structure, name), np.ascontiguousarray(value, np.float32))
        for name, value in shared.items()
    }
    noise = even_noise(min(MOMENT_DRAWS, fitted.n_draws))
    of_sgrnas = [name for name in recipe.stored if SGRNA in dims[name]]
    waiting = {name: _Waiting(cells.n_sgrnas, fitted.n_draws, folder) for name in of_sgrnas}
    counts = _Waiting(cells.n_sgrnas, cells.n_lines, folder, cells.count_type)
    progress.start("drawing", len(cells))

    def of_block(number: int) -> _Done:
        return _work_out(cells[number], recipe, fitted, known, None if pairs_stored else noise)

    with torch.no_grad(), one_thread():
        done = in_threads(of_block, range(len(cells)), cells.skeleton(0).slot.device)
        for number, block in enumerate(done):
            places = block.places
            for name in recipe.stored:
                values = block.known[name][1]
                if name in waiting:
                    waiting[name].put(places.sgrnas, values)
                elif GENE in dims[name]:
                    writer.write(name, np.moveaxis(values, -1, 0), at=places.genes)
                elif number == 0:
                    writer.write(name, np.moveaxis(values, -1, 0))
            for name, moments in block.moments.items():
                writer.write_moments(name, moments, at=places.genes)
            if pairs_stored:
                _write_pairs(writer, recipe.regeneration, block)
            writer.write_table(CELLS, "total", block.cells.total, at=places.genes)
            writer.write_table(CELLS, "line_count", block.cells.line_count, at=places.genes)
            if by_sgrna:
                counts.put(places.sgrnas, block.cells.count)
            progress.update(number + 1)
    for name, its_waiting in waiting.items():
        for at, values in its_waiting.in_order():
            writer.write(name, values.T, at=at)
    if by_sgrna:
        for at, values in counts.in_order():
            writer.write_table(CELLS, "count", values, at=at)


def _write_pairs(writer: PosteriorWriter, regeneration: Regeneration, block: _Done) -> None:
    """Write all draws of variables over a block's genes and lines."""
    n_genes, n_lines = block.cells.total.shape
    n_draws = next(iter(block.known.values()))[1].shape[-1]
    per_piece = max(1, ELEMENTS_AT_ONCE // (n_lines * n_draws))
    pieces = [slice(first, first + per_piece) for first in range(0, n_genes, per_piece)]

    def draws_of(genes: slice) -> dict[str, np.ndarray]:
        known, cells, places = _piece(block.known, block.cells, block.places, genes)
        return regeneration.draws(regeneration.variables, cells, known, places)

    for genes, drawn in zip(pieces, in_threads(draws_of, pieces, torch.device("cpu")), strict=True):
        for name, values in drawn.items():
            writer.write(name, np.moveaxis(values, -1, 0), at=block.places.genes[genes])


def _work_out(block: Block, recipe: Recipe, fitted: StreamedFit, shared: Known, noise: np.ndarray | None) -> _Done:
    drawn = fitted.draw_genes(block)
    known = dict(shared)
    for name, value in (drawn.values | drawn.scales).items():
        known[name] = dims_in_file(fitted.structure, name), np.ascontiguousarray(value.cpu().numpy(), dtype=np.float32)
    places, cells = places_of(block.batch), cells_of(block)
    regeneration = recipe.regeneration
    for name, (dims, form) in recipe.sums.items():
        known[name] = dims, _sum(form, dims, regeneration, known, cells, places)
    if noise is None:
        return _Done(places, known, {}, cells)
    moments: dict[str, dict[str, np.ndarray]] = {name: {} for name in regeneration.variables}
    some = {name: (dims, np.ascontiguousarray(value[..., : len(noise)])) for name, (dims, value) in known.items()}
    per_piece = max(1, PIECE_PAIRS // len(places.lines))
    for first in range(0, len(places.genes), per_piece):
        genes = slice(first, first + per_piece)
        for name, found in _moments(regeneration, *_piece(some, cells, places, genes), noise).items():
            for statistic, values in found.items():
                whole = moments[name].setdefault(statistic, np.empty(cells.total.shape, dtype=np.float32))
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
    return cut, Cells(cells.total[inside], cells.count[sgrnas], cells.line_count[inside]), of_genes


def _moments(
    regeneration: Regeneration, known: Known, cells: Cells, places: Places, noise: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Moments of all variables over genes and lines, each element a mixture over the draws of all else."""
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


class _Waiting:
    """Rows that arrive in any order and are wanted in their own: a nameless file, a row after another."""

    def __init__(self, n_rows: int, length: int, folder: Path | None, dtype: np.dtype | type = np.float32) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".vihier-draws-")  # noqa: SIM115
        self._dtype, self._length, self._n_rows = np.dtype(dtype), length, n_rows

    def put(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Take rows."""
        for row, each in zip(rows.tolist(), np.ascontiguousarray(values, dtype=self._dtype), strict=True):
            self._file.seek(row * each.nbytes)
            self._file.write(memoryview(each).cast("B"))

    def in_order(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield all rows, some at a time, and give the disk back."""
        self._file.seek(0)
        step = max(16, (32 << 20) // (self._length * self._dtype.itemsize) // 16 * 16)
        for first in range(0, self._n_rows, step):
            last = min(first + step, self._n_rows)
            n = (last - first) * self._length
            content = self._file.read(n * self._dtype.itemsize)
            yield slice(first, last), np.frombuffer(content, dtype=self._dtype).reshape(last - first, self._length)
        self._file.close()
