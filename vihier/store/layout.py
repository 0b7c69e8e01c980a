"""How a store is laid out: one HDF5 file.

| where | what |
| --- | --- |
| ``index/`` | labels, sorted by code point, and the maps between them: ``sgrna``, ``hugo_symbol``, ``depmap_id``, \
``lineage``, ``replicate``, ``replicate_id``, ``gene_of_sgrna``, ``lineage_of_line``, ``line_of_replicate``, \
``screen_of_replicate`` |
| ``categories/NAME`` | labels of a covariate that holds codes |
| ``rows_of_gene`` [G], ``rows_of_sgrna`` [S] | how many rows each has |
| ``rows/lfc``, ``rows/replicate`` [N] | rows in canonical order: by gene, sgRNA, line, screen, replicate, then lfc |
| ``covariates/NAME`` [N] | values, or codes (-1 is missing) |

Floats are float32 where that loses nothing, else float64; codes are of the smallest integers that hold them.
Names are percent-encoded where they hold what a path cannot.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import h5py
import numpy as np

from vihier.posterior.layout import LABEL_TYPE
from vihier.screen.faults import fault, shown
from vihier.screen.screen import ScreenIndex
from vihier.store.rows import StoredRows

KIND = "vihier screen store"
FORMAT_VERSION = 1

LABELS = {
    "sgrna": "sgrnas",
    "hugo_symbol": "genes",
    "depmap_id": "lines",
    "lineage": "lineages",
    "replicate": "replicates",
    "replicate_id": "replicate_ids",
}
"""Dataset of ``index`` to attribute of `ScreenIndex`."""
MAPS = ("gene_of_sgrna", "lineage_of_line", "line_of_replicate")


def written_name(name: str) -> str:
    """Return the name of a covariate's dataset.

    Examples
    --------
    >>> written_name("copy_number"), written_name("a/b"), written_name(".")
    ('copy_number', 'a%2Fb', '%2E')
    """
    return quote(name, safe=" ").replace(".", "%2E")


def read_name(written: str) -> str:
    """Return the covariate that a dataset holds."""
    return unquote(written)


def smallest_code(least: int, end: int) -> np.dtype:
    """Return the smallest integer type for codes from `least`, 0 or -1, to `end`, excluded.

    Examples
    --------
    >>> smallest_code(0, 256), smallest_code(-1, 128), smallest_code(-1, 129)
    (dtype('uint8'), dtype('int8'), dtype('int16'))
    """
    return np.min_scalar_type(-max(end, 1)) if least < 0 else np.min_scalar_type(max(end - 1, 0))


def write_index(
    file: h5py.File, source: str, index: ScreenIndex, screen_of_replicate: np.ndarray | None, rows_of_gene: np.ndarray
) -> None:
    """Write labels and maps.

    Raises
    ------
    VihierError
        A label that no file can hold.
    """
    group = file.create_group("index")
    for name, attribute in LABELS.items():
        _write_labels(group, name, source, name, getattr(index, attribute))
    maps = {name: getattr(index, name) for name in MAPS} | {"screen_of_replicate": screen_of_replicate}
    for name, codes in maps.items():
        if codes is not None:
            group.create_dataset(name, data=codes)
    group = file.create_group("categories")
    for name, labels in index.categories.items():
        _write_labels(group, written_name(name), source, name, labels)
    file.create_dataset("rows_of_gene", data=rows_of_gene)


def _write_labels(group: h5py.Group, written: str, source: str, name: str, labels: np.ndarray | None) -> None:
    if labels is None:
        return
    wrong = next((label for label in labels if "\0" in label), None)
    if wrong is not None:
        problem = f"label {shown(wrong)} holds a NUL, which no file can keep"
        raise fault(source, f"column {name!r}", problem, cure="take it out")
    group.create_dataset(written, data=labels, dtype=LABEL_TYPE)


def read_index(file: h5py.File) -> ScreenIndex:
    """Read labels and maps.

    Raises
    ------
    KeyError, ValueError
        What a store needs is not there, or does not fit together.
    """
    group = file["index"]
    labels = {attribute: _labels(group, name) for name, attribute in LABELS.items()}
    maps = {name: group[name][()] if name in group else None for name in MAPS}
    categories = {read_name(name): _labels(file["categories"], name) for name in file["categories"]}
    index = ScreenIndex(**labels, **maps, categories=dict(sorted(categories.items())))  # type: ignore[arg-type]
    _check_map("gene_of_sgrna", index.gene_of_sgrna, index.sgrnas, index.genes)
    _check_map("line_of_replicate", index.line_of_replicate, index.replicates, index.lines)
    if index.lineages is not None:
        _check_map("lineage_of_line", index.lineage_of_line, index.lines, index.lineages)
    return index


def _labels(group: h5py.Group, name: str) -> np.ndarray | None:
    return np.asarray(group[name].asstr()[()], dtype=object) if name in group else None


def _check_map(name: str, codes: np.ndarray | None, children: np.ndarray | None, parents: np.ndarray | None) -> None:
    if codes is None or children is None or parents is None:
        raise ValueError(f"{name} or its labels are missing")
    if codes.shape != (len(children),) or codes.dtype != np.int64 or not ((codes >= 0) & (codes < len(parents))).all():
        raise ValueError(f"{name} does not fit its labels")


def read_rows(file: h5py.File) -> StoredRows:
    """Return the rows of an open file.

    Raises
    ------
    KeyError, ValueError
        What a store needs is not there, or does not fit together.
    """
    index = read_index(file)
    per_label = {"rows_of_gene": len(index.genes), "rows_of_sgrna": len(index.sgrnas)}
    counts = {name: file[name][()] for name in per_label}
    for name, length in per_label.items():
        if counts[name].shape != (length,) or counts[name].dtype != np.int64 or (counts[name] < 1).any():
            raise ValueError(f"{name} does not fit its labels")
    of_gene = np.zeros(len(index.genes), dtype=np.int64)
    np.add.at(of_gene, index.gene_of_sgrna, counts["rows_of_sgrna"])
    columns = {name: file["rows"][name] for name in ("lfc", "replicate")}
    covariates = {read_name(name): dataset for name, dataset in file["covariates"].items()}
    if not np.array_equal(of_gene, counts["rows_of_gene"]):
        raise ValueError("rows_of_sgrna does not fit rows_of_gene")
    for name, dataset in {**columns, **covariates}.items():
        if dataset.shape != (of_gene.sum(),):
            raise ValueError(f"column {name!r} has not as many rows as there are")
    screen = None
    if "screen_of_replicate" in file["index"]:
        screen = file["index"]["screen_of_replicate"][()].astype(np.int32)
        _check_map("screen_of_replicate", screen.astype(np.int64), index.replicates, index.categories["screen"])
    readers = {name: dataset.__getitem__ for name, dataset in columns.items()}
    others = {name: dataset.__getitem__ for name, dataset in covariates.items()}
    return StoredRows(index, of_gene, counts["rows_of_sgrna"], screen, readers, others, bool(file.attrs["ties"]))
