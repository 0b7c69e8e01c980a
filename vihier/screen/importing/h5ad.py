"""AnnData files (``.h5ad``): replicates are observations, sgRNAs are variables. Needs the extra ``anndata``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from vihier.atomic import renamed_when_whole
from vihier.errors import ScreenWarning, VihierError
from vihier.screen.faults import fault, one_line, shown
from vihier.screen.importing.depmap import AS_THEY_ARE
from vihier.screen.importing.library import Library
from vihier.screen.importing.long_table import OWN, check_out, write_long
from vihier.screen.importing.maps import GUIDE_MAP, SAMPLE_SHEET, carried_values, map_of
from vihier.screen.importing.matrix import Matrix, Quantity, check_values, refuse_repeats
from vihier.screen.importing.normalise import Centring, Normalisation
from vihier.screen.importing.report import ImportReport
from vihier.screen.importing.samples import from_sheet
from vihier.screen.importing.sgrnas import from_guide_map
from vihier.screen.importing.spool import BLOCK_BYTES, Spool
from vihier.screen.read import refuse_no_file
from vihier.screen.screen import Screen
from vihier.screen.sources import FrameSource


def require_anndata() -> ModuleType:
    """Return the package anndata.

    Raises
    ------
    VihierError
        It is not installed.
    """
    try:
        import anndata
    except ImportError as error:
        raise VihierError(
            "AnnData files need the package anndata, which is an extra: pip install 'vihier[anndata]'"
        ) from error
    return anndata


def import_h5ad(
    path: Path,
    out: Path,
    *,
    how: Normalisation | Centring | None = None,
    layer: str | None = None,
    line_map: Path | None = None,
    copy_number: Path | None = None,
) -> ImportReport:
    """Write an AnnData file as a long table; the file is held in memory.

    Parameters
    ----------
    path
        Observations are replicates: ``obs`` has ``depmap_id``, and optionally ``replicate_id`` (else their names),
        ``lineage``, ``screen`` and what is to be carried along. Variables are sgRNAs: ``var`` has ``hugo_symbol`` (or
        ``gene``). Other layers of numbers are carried along.
    out
        ``.parquet``, ``.csv`` or ``.tsv`` (also ``.gz``).
    how
        A ``Centring`` (by default none) where the values are log2 fold changes; a ``Normalisation`` where they are
        counts, and ``obs`` then has ``role`` and ``p_dna_batch`` as a sample sheet does.
    layer
        The layer that holds the values; ``X`` where it is not given.
    line_map, copy_number
        As in ``import_chronos``.

    Raises
    ------
    VihierError
        The package anndata is missing, or any fault of the file, in one line.
    """
    anndata = require_anndata()
    folder = check_out(out)
    refuse_no_file(path)
    how = how or Centring()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata's own future
            data = anndata.read_h5ad(path)
    except Exception as error:
        problem = f"not a readable AnnData file ({one_line(str(error))[:120]})"
        raise fault(str(path), problem, cure="write it again with anndata") from error
    library = _library(data, path, folder, "count" if isinstance(how, Normalisation) else "log fold change", layer)
    try:
        what = how.describe()
        if isinstance(how, Centring):
            what = ", ".join(filter(None, [AS_THEY_ARE, what]))
        return write_long([library], out, how, what, line_map=line_map, copy_number=copy_number)
    finally:
        for spool in (library.matrix.values, *library.layers.values()):
            spool.close()


def write_h5ad(screen: Screen, path: Path) -> None:
    """Write a screen as an AnnData file.

    ``X`` is lfc [replicates, sgRNAs], NaN where a replicate has no row of an sgRNA. A covariate that is the same in all
    rows of a replicate is a column of ``obs``, of an sgRNA of ``var``; other numbers are layers. The matrix is dense:
    8 bytes for each pair.

    Parameters
    ----------
    screen
        The screen.
    path
        The file.

    Raises
    ------
    VihierError
        The package anndata is missing, several rows are of one replicate and sgRNA, or the file cannot be written.

    Warns
    -----
    ScreenWarning
        For covariates that are labels of single rows, which AnnData has no place for.
    """
    anndata = require_anndata()
    index, shape = screen.index, (screen.n_replicates, screen.n_sgrnas)
    pair = screen.replicate.astype(np.int64) * screen.n_sgrnas + screen.sgrna
    if len(np.unique(pair)) < len(pair):
        problem = "several rows are of one sgRNA and replicate, and AnnData holds one value for them"
        raise fault(screen.report.source, problem, cure="add the column 'replicate_id'")
    obs = pd.DataFrame({"depmap_id": index.lines[index.line_of_replicate]}, index=index.replicates.astype(str))
    if index.lineages is not None and index.lineage_of_line is not None:
        obs["lineage"] = index.lineages[index.lineage_of_line[index.line_of_replicate]]
    if index.replicate_ids is not None:
        obs["replicate_id"] = index.replicate_ids
    var = pd.DataFrame({"hugo_symbol": index.genes[index.gene_of_sgrna]}, index=index.sgrnas.astype(str))
    layers: dict[str, np.ndarray] = {}
    for name, values in screen.covariates.items():
        labels = index.categories.get(name)
        for frame, group in ((obs, screen.replicate), (var, screen.sgrna)):
            constant = _of_group(values, group, len(frame))
            if constant is not None:
                frame[name] = constant if labels is None else pd.Categorical.from_codes(constant, pd.Index(labels))
                break
        else:
            if labels is None:
                layers[name] = _matrix(values, screen, shape)
            else:
                text = f"column {name!r} has labels of single rows, for which AnnData has no place; it was left out"
                warnings.warn(text, ScreenWarning, stacklevel=2)
    with warnings.catch_warnings(), renamed_when_whole(path) as partial:
        warnings.simplefilter("ignore")
        data = anndata.AnnData(X=_matrix(screen.lfc, screen, shape), obs=obs, var=var, layers=layers)
        data.write_h5ad(partial, compression="gzip")


def _library(data: Any, path: Path, folder: Path, quantity: Quantity, layer: str | None) -> Library:
    source = str(path)
    values = data.X if layer is None else data.layers.get(layer)
    if values is None:
        there = ", ".join(shown(name) for name in data.layers) or "no layers"
        what = "X is empty" if layer is None else f"there is no layer {shown(layer)}"
        raise fault(source, f"{what}; the file has {there}", cure="name the layer with --layer")
    samples = np.array([str(name).strip() for name in data.obs_names], dtype=object)
    sgrnas = np.array([str(name).strip() for name in data.var_names], dtype=object)
    for labels in (samples, sgrnas):
        refuse_repeats(source, labels)
    spools: list[Spool] = []
    try:
        spools.append(_spool(source, values, folder, samples, sgrnas, quantity))
        matrix = Matrix(source, sgrnas, samples, spools[0])
        layers = {name: each for name, each in data.layers.items() if name != layer and _is_carried(name, each)}
        for each in layers.values():
            spools.append(_spool(source, each, folder, samples, sgrnas, "copy number"))
        obs = map_of(_frame(f"{source} (obs)", data.obs, "sample", samples), SAMPLE_SHEET, ("sample", "depmap_id"))
        var = map_of(_frame(f"{source} (var)", data.var, "sgrna", sgrnas), GUIDE_MAP, ("sgrna", "hugo_symbol"))
        of_samples = from_sheet(obs, list(samples), source)
        of_sgrnas = from_guide_map(var, matrix, all_sgrnas=False, on_conflict="error")
        for name, column in var.others.items():
            read = carried_values(column)
            if read is not None and name not in OWN and name not in of_samples.columns:
                of_sgrnas.columns[name] = read
        return Library(matrix, of_samples, of_sgrnas, None, (path.name,), dict(zip(layers, spools[1:], strict=True)))
    except BaseException:
        for spool in spools:
            spool.close()
        raise


def _is_carried(name: str, values: Any) -> bool:
    own = OWN - {"counts_final", "counts_initial", "counts_expected", "copy_number"}
    return name not in own and getattr(values, "dtype", np.dtype(object)).kind in "iufb"


def _frame(name: str, frame: pd.DataFrame, label: str, labels: np.ndarray) -> FrameSource:
    """Return a table of the names and the annotations of observations or variables."""
    others: Mapping[Any, pd.Series] = {each: frame[each].reset_index(drop=True) for each in frame if each != label}
    source = FrameSource(pd.DataFrame({label: labels, **others}))
    source.name = name
    return source


def _spool(
    source: str, values: Any, folder: Path, samples: np.ndarray, sgrnas: np.ndarray, quantity: Quantity
) -> Spool:
    spool = Spool(folder, len(samples))
    try:
        width = max(1, BLOCK_BYTES // (8 * max(1, len(samples))))
        for start in range(0, len(sgrnas), width):
            part = values[:, start : start + width]
            block = np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64).T
            check_values(source, block, sgrnas[start : start + width], samples, quantity)
            spool.append(block)
    except BaseException:
        spool.close()
        raise
    return spool


def _of_group(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray | None:
    """Return the value of each group where it is the same in all its rows, else None."""
    first = np.zeros(n_groups, dtype=np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    of_row = values[first][group]
    same = values == of_row
    if values.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(of_row)
    return values[first] if same.all() else None


def _matrix(values: np.ndarray, screen: Screen, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.full(shape, np.nan)
    matrix[screen.replicate, screen.sgrna] = values
    return matrix
