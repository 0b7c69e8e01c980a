"""Simulated screens with their truth, of any size: drawn gene block by gene block, written as they are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from vihier.atomic import renamed_when_whole
from vihier.errors import VihierError
from vihier.posterior.writer import TruthWriter
from vihier.screen.simulate_design import MAX_MISSING, BlockDraw, Design, GeneBlock, make_design
from vihier.screen.simulate_realistic import RealisticScreen
from vihier.screen.simulate_table import TableWriter, table_suffix

ROWS_PER_GROUP = 1 << 19
"""Rows of a Parquet row group, at least; the last one is shorter. 144 million rows make 280 groups."""

LABELS = pa.dictionary(pa.int32(), pa.string())


class SimulatedScreen(NamedTuple):
    """Where a simulated screen was written."""

    table: Path
    truth: Path


class Simulator(Protocol):
    """What draws a screen: the columns and variables it has, and their values block by block.

    Attributes
    ----------
    columns
        Names of the columns that it adds to the labels and ``lfc``.
    categories
        Labels of those of its columns that hold codes.
    variables
        Variable of the truth -> its dims, in the order of the posterior file.
    dims
        Labels of further dims that its variables have.
    about
        Attributes for the truth file: what fixed the draw besides the design.
    """

    columns: tuple[str, ...]
    categories: dict[str, np.ndarray]
    variables: Mapping[str, tuple[str, ...]]
    dims: dict[str, np.ndarray]
    about: dict[str, Any]

    def shared_truth(self) -> dict[str, np.ndarray]:
        """Return the variables that no gene owns."""

    def draw(self, block: GeneBlock, sgrna: np.ndarray, replicate: np.ndarray) -> BlockDraw:
        """Draw the rows of a block; ``sgrna`` are positions within the block, ``replicate`` in the design. [N] each."""


def simulate(
    out: str | os.PathLike[str],
    *,
    genes: int = 20,
    lines: int = 140,
    lineages: int = 4,
    sgrnas: int | tuple[int, int] = 4,
    replicates: int = 2,
    seed: int = 0,
    model: str | Callable[[Any], Any] = "realistic",
    missing: float = 0.03,
    priors: Mapping[str, Any] | None = None,
    likelihood: str = "normal",
    noise: str = "global",
) -> SimulatedScreen:
    """Write a simulated screen, and beside it the truth it was drawn from.

    Memory does not grow with the rows. The same arguments give the same rows.

    Parameters
    ----------
    out
        The table: ``.parquet``, ``.csv`` or ``.tsv``, the last two also with ``.gz``. The truth of ``NAME.parquet`` is
        ``NAME.truth.h5``, laid out like a posterior file: its group ``truth`` has ``effect`` [hugo_symbol, depmap_id],
        the expected log2 fold change of a gene in a line averaged over its sgRNAs, and what else the model has.
    genes, lines, lineages
        How many. Lines are spread over the lineages at random, at least one in each.
    sgrnas, replicates
        sgRNAs of a gene, or the fewest and the most, (2, 8) say; replicates of a line. The realistic screen has one
        replicate more or fewer in 40 % of the lines.
    seed
        Seed of every random stream.
    model
        ``"realistic"``, which follows no model that can be fitted; or a model's name, or a Pyro program of your own.
    missing
        Expected share of the rows that are absent: whole (gene, line) pairs, whole (sgRNA, line) cells, single rows.
    priors
        For a model: site -> distribution or text, in the place of ``SIMULATION_PRIORS``, which are tighter than the
        model's own so that screens look like screens.
    likelihood, noise
        For a model by name: how its rows scatter, ``normal`` or ``student_t``, and what has a noise scale of its own,
        ``global``, ``line`` or ``replicate``.

    Returns
    -------
    SimulatedScreen
        Paths ``table`` and ``truth``.

    Raises
    ------
    VihierError
        Arguments that make no screen, an output that cannot be written, rows beyond |lfc| = 20.

    Examples
    --------
    >>> import tempfile
    >>> simulate(Path(tempfile.mkdtemp()) / "screen.parquet", genes=3, lines=5, seed=1).truth.name
    'screen.truth.h5'
    """
    table = Path(out)
    suffix = table_suffix(table)
    settings = _checked_settings(genes, lines, lineages, sgrnas, replicates, seed, missing)
    design = make_design(**settings, unequal=model == "realistic")
    return _write(table, suffix, design, _simulator(design, model, priors, likelihood, noise), settings)


def _checked_settings(
    genes: int, lines: int, lineages: int, sgrnas: int | tuple[int, int], replicates: int, seed: int, missing: float
) -> dict[str, Any]:
    """Refuse what makes no screen; the arguments of `make_design`."""
    few, most = sgrnas if isinstance(sgrnas, tuple | list) and len(sgrnas) == 2 else (sgrnas, sgrnas)
    given = [("genes", genes), ("lines", lines), ("lineages", lineages), ("replicates", replicates)]
    for name, number in [*given, ("sgrnas", few), ("sgrnas", most), ("seed", seed)]:
        least = 0 if name == "seed" else 1
        if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
            raise VihierError(f"{name}={number!r}: give a whole number, at least {least}")
    if most < few:
        raise VihierError(f"sgrnas={sgrnas}: the fewest come first, then the most")
    if lineages > lines:
        raise VihierError(f"lineages={lineages}: every lineage needs a line and lines={lines}; ask for fewer lineages")
    if not 0 <= missing <= MAX_MISSING:
        raise VihierError(f"missing={missing}: a share of the rows between 0 and {MAX_MISSING}")
    counts = {name: int(number) for name, number in given}
    return {**counts, "sgrnas": (int(few), int(most)), "seed": int(seed), "missing": float(missing)}


def _simulator(
    design: Design, model: str | Callable[[Any], Any], priors: Mapping[str, Any] | None, likelihood: str, noise: str
) -> Simulator:
    if likelihood not in ("normal", "student_t") or noise not in ("global", "line", "replicate"):
        raise VihierError(
            f"likelihood {likelihood!r}, noise {noise!r}: screens are simulated with normal or student_t rows, and "
            "noise by global, line or replicate"
        )
    if (likelihood, noise) != ("normal", "global") and (model == "realistic" or not isinstance(model, str)):
        raise VihierError(
            f"likelihood {likelihood!r}, noise {noise!r}: for a model by its name, such as additive; others say "
            "themselves how their rows scatter"
        )
    if model == "realistic":
        if priors:
            raise VihierError(f"prior of {next(iter(priors))!r}: model 'realistic' has none; choose one that is fitted")
        return RealisticScreen(design)
    # Pyro is slow to import, and the realistic screen does without.
    from vihier.models.likelihood import Likelihood
    from vihier.screen.simulate_model import ModelScreen

    return ModelScreen(design, model, priors, Likelihood(likelihood, noise))


def _write(
    table: Path, suffix: str, design: Design, simulator: Simulator, settings: Mapping[str, Any]
) -> SimulatedScreen:
    """Write both files; each has its name only when both are whole."""
    written = SimulatedScreen(table, table.with_name(table.name.removesuffix(suffix) + ".truth.h5"))
    attrs = {"seed": design.seed, **simulator.about, "simulation": settings}
    with renamed_when_whole(table) as partial, TruthWriter(written.truth, labels=_labels(design, simulator)) as truth:
        _stream(design, simulator, partial, suffix, truth)
        truth.finish(attrs=attrs)
    return written


def _labels(design: Design, simulator: Simulator) -> dict[str, np.ndarray]:
    """Labels of the truth file's dims, each sorted by code point."""
    return {
        "sgrna": design.sgrnas[design.sgrna_order],
        "hugo_symbol": design.genes,
        "depmap_id": design.lines,
        "lineage": design.lineages,
        **simulator.dims,
    }


def _stream(design: Design, simulator: Simulator, path: Path, suffix: str, truth: TruthWriter) -> None:
    """Draw every block, writing rows and truth on the way."""
    group = RowGroup(design, simulator)
    collected: dict[str, list[np.ndarray]] = {
        name: [] for name, dims in simulator.variables.items() if _collected(dims)
    }
    # One group is written while the next is drawn, never more: two groups are all the memory that rows take.
    with TableWriter(path, suffix, group.schema) as table, ThreadPoolExecutor(1) as pool:
        writing: Future[None] | None = None
        for block in design.blocks():
            sgrna, replicate = np.nonzero(design.present(block))
            drawn = simulator.draw(block, sgrna, replicate)
            group.add(block, sgrna, replicate, drawn)
            for name, values in drawn.truth.items():
                if name in collected:
                    collected[name].append(values)
                else:
                    if block.number == 0:
                        truth.add(name, simulator.variables[name])
                    truth.write(name, values, at=block.genes)
            if group.n_rows >= ROWS_PER_GROUP or block.genes.stop == len(design.genes):
                if writing is not None:
                    writing.result()
                writing = pool.submit(table.write, group.take())
        if writing is not None:
            writing.result()
    _write_collected(design, simulator, collected, truth)


def _collected(dims: tuple[str, ...]) -> bool:
    """Whether a variable is kept until all of it is there: small, or in another order in the file than in the table."""
    return dims[:1] == ("sgrna",) or dims == ("hugo_symbol",)


def _write_collected(
    design: Design, simulator: Simulator, collected: Mapping[str, list[np.ndarray]], truth: TruthWriter
) -> None:
    """Write what is shared, and what was kept of each block, sgRNAs by code point of their labels."""
    whole = {name: np.concatenate(parts) for name, parts in collected.items() if parts}
    for name, values in {**simulator.shared_truth(), **whole}.items():
        dims = simulator.variables[name]
        ordered = values[design.sgrna_order] if dims[:1] == ("sgrna",) else values
        truth.add(name, dims, dtype=values.dtype if values.dtype.kind == "i" else np.float32)
        truth.write(name, ordered)


class RowGroup:
    """Rows of consecutive blocks on their way to the table.

    Parameters
    ----------
    design, simulator
        Where labels and further columns come from.
    """

    def __init__(self, design: Design, simulator: Simulator) -> None:
        self._design = design
        self._simulator = simulator
        self._parts: list[dict[str, np.ndarray]] = []
        self._sgrnas = slice(0, 0)
        self.n_rows = 0
        labels = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id"]
        kinds = {"is_mutated": pa.bool_()}
        fields = [(name, LABELS) for name in labels] + [("lfc", pa.float64())]
        for name in simulator.columns:
            fields.append((name, LABELS if name in simulator.categories else kinds.get(name, pa.float64())))
        self.schema = pa.schema(fields)

    def add(self, block: GeneBlock, sgrna: np.ndarray, replicate: np.ndarray, drawn: BlockDraw) -> None:
        """Append the rows of a block."""
        start = self._sgrnas.start if self._parts else block.sgrnas.start
        self._sgrnas = slice(start, block.sgrnas.stop)
        codes = (sgrna + (block.sgrnas.start - start)).astype(np.int32)
        # Six decimals: what a text table holds is then what Parquet holds, and both read as the same screen.
        rows = {"sgrna": codes, "replicate_id": replicate.astype(np.int32), "lfc": np.round(drawn.lfc, 6)}
        self._parts.append({**rows, **drawn.columns})
        self.n_rows += len(codes)

    def take(self) -> pa.RecordBatch:
        """Return the rows, and start anew."""
        rows = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        self._parts, self.n_rows = [], 0
        design = self._design
        gene_of_sgrna = design.gene_of_sgrna[self._sgrnas]
        line = design.line_of_replicate.astype(np.int32)[rows["replicate_id"]]
        codes = {
            "sgrna": (rows["sgrna"], design.sgrnas[self._sgrnas]),
            "hugo_symbol": (
                (gene_of_sgrna - gene_of_sgrna[0]).astype(np.int32)[rows["sgrna"]],
                design.genes[gene_of_sgrna[0] : gene_of_sgrna[-1] + 1],
            ),
            "depmap_id": (line, design.lines),
            "lineage": (design.lineage_of_line.astype(np.int32)[line], design.lineages),
            "replicate_id": (rows["replicate_id"], design.replicates),
            **{name: (rows[name], labels) for name, labels in self._simulator.categories.items()},
        }
        arrays = []
        for name in self.schema.names:
            if name in codes:
                values, labels = codes[name]
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(values), pa.array(labels, pa.string())))
            else:
                arrays.append(pa.array(rows[name], from_pandas=True))
        return pa.record_batch(arrays, schema=self.schema)
