"""Writes a store: groups of genes in any order, each to its place; whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from vihier.posterior.partial import PartialFile, installed_version, set_attrs
from vihier.screen.content_hash import content_hash
from vihier.screen.report import ReadReport
from vihier.store import layout
from vihier.store.sorting import Codes, SortedRows


class StoreWriter:
    """A store in the making.

    Parameters
    ----------
    path
        The name it will have.
    codes
        The index.
    covariates
        Covariates other than ``screen``, and whether float32 would lose nothing of their values.
    lfc_in_float32
        Whether float32 would lose nothing of ``lfc``.
    source
        The tables' name, for messages.

    Raises
    ------
    VihierError
        A file that cannot be written, or a label that no file can hold.
    """

    def __init__(
        self, path: Path, codes: Codes, covariates: Mapping[str, bool], lfc_in_float32: bool, source: str
    ) -> None:
        self.codes = codes
        self._starts = np.concatenate([[0], np.cumsum(codes.rows_of_gene)])
        self._rows_of_sgrna = np.zeros(len(codes.index.sgrnas), dtype=np.int64)
        self._finished = False
        self._partial = PartialFile(path)
        try:
            with self._partial.speaking_plainly():
                self._file = self._partial.file
                set_attrs(self._file, {"kind": layout.KIND, "format_version": layout.FORMAT_VERSION})
                layout.write_index(self._file, source, codes.index, codes.screen_of_replicate, codes.rows_of_gene)
                self._make_datasets(covariates, lfc_in_float32)
        except BaseException:
            self._partial.abandon()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if not self._finished:
            self._partial.abandon()

    def _make_datasets(self, covariates: Mapping[str, bool], lfc_in_float32: bool) -> None:
        index = self.codes.index
        shape = (int(self._starts[-1]),)
        floats = {True: np.float32, False: np.float64}
        group = self._file.create_group("rows")
        self._lfc = group.create_dataset("lfc", shape, floats[lfc_in_float32])
        self._replicate = group.create_dataset("replicate", shape, layout.smallest_code(0, len(index.replicates)))
        group = self._file.create_group("covariates")
        self._covariates = {}
        for name, in_float32 in covariates.items():
            labels = index.categories.get(name)
            dtype = floats[in_float32] if labels is None else layout.smallest_code(-1, len(labels))
            self._covariates[name] = group.create_dataset(layout.written_name(name), shape, dtype)

    def add(self, rows: SortedRows) -> int:
        """Write all rows of some genes to their places, and return how many genes these are."""
        gene = self.codes.index.gene_of_sgrna[rows.sgrna]
        first = np.flatnonzero(np.append(True, gene[1:] > gene[:-1] + 1))  # of genes that follow each other
        ends = np.append(first[1:], len(gene))
        places = self._starts[gene[first]]
        columns = {self._lfc: rows.lfc, self._replicate: rows.replicate}
        columns |= {self._covariates[name]: values for name, values in rows.covariates.items()}
        self._rows_of_sgrna += np.bincount(rows.sgrna, minlength=len(self._rows_of_sgrna))
        with self._partial.speaking_plainly():
            for dataset, values in columns.items():
                stored = values.astype(dataset.dtype)
                for place, start, end in zip(places.tolist(), first.tolist(), ends.tolist(), strict=True):
                    _write(dataset, place, stored[start:end])
        return 1 + int(np.count_nonzero(gene[1:] != gene[:-1]))

    def finish(self, report: ReadReport, ties: bool) -> str:
        """Complete the file, give it its name, and return the content hash.

        Parameters
        ----------
        report
            What reading the tables did.
        ties
            Whether there are rows equal in key and lfc.
        """
        with self._partial.speaking_plainly():
            self._file.create_dataset("rows_of_sgrna", data=self._rows_of_sgrna)
            set_attrs(self._file, {"ties": ties, "vihier_version": installed_version("vihier")})
            rows = layout.read_rows(self._file)
            lineage = [] if rows.index.lineages is None else ["lineage"]
            content = content_hash(rows.index, rows.names, [*lineage, *rows.names], rows)
            set_attrs(self._file, {"screen_hash": content, "report": asdict(report)})
        self._partial.publish()
        self._finished = True
        return content


def _write(dataset: h5py.Dataset, place: int, values: np.ndarray) -> None:
    # What `dataset[place:] = values` comes to, without its Python: where genes are in no order, there are 18,000 of
    # these for each column.
    space = dataset.id.get_space()
    space.select_hyperslab((place,), values.shape)
    dataset.id.write(h5py.h5s.create_simple(values.shape), space, values)
