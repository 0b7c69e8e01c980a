"""A table, in a file or a frame, -> a screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from vihier.screen.assemble import assemble
from vihier.screen.report import ReadReport
from vihier.screen.screen import Screen, ScreenIndex

if TYPE_CHECKING:
    from os import PathLike


def read_screen(
    source: str | PathLike[str] | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    single_lineage: bool = False,
    on_conflict: Literal["error", "drop"] = "error",
    sgrna_per_screen: bool = True,
) -> Screen:
    """Read a screen (happy path only for now)."""
    if isinstance(source, pd.DataFrame):
        frame, name = source, "DataFrame"
    else:
        path, name = Path(source), str(source)
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep="\t" if ".tsv" in path.name else ",")
    frame = frame.rename(
        columns={"pdna_batch": "p_dna_batch"} | {theirs: ours for ours, theirs in (columns or {}).items()}
    )
    n_read = len(frame)
    frame = frame[frame["lfc"].notna()]

    def encode(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        codes, labels = pd.factorize(values.astype(str), sort=True)
        return np.asarray(codes), np.asarray(labels, dtype=object)

    sgrna, sgrnas = encode(frame["sgrna"])
    gene, genes = encode(frame["hugo_symbol"])
    line, lines = encode(frame["depmap_id"])
    gene_of_sgrna = np.zeros(len(sgrnas), dtype=np.int64)
    gene_of_sgrna[sgrna] = gene
    lineages = lineage_of_line = None
    if "lineage" in frame or single_lineage:
        lineage, lineages = encode(frame["lineage"] if "lineage" in frame else pd.Series("all", index=frame.index))
        lineage_of_line = np.zeros(len(lines), dtype=np.int64)
        lineage_of_line[line] = lineage
    ids = frame["replicate_id"].astype(str) if "replicate_id" in frame else pd.Series("all", index=frame.index)
    names = frame["depmap_id"].astype(str) + "|" + ids
    if "screen" in frame:
        names = names + "|" + frame["screen"].astype(str)
    replicate, replicates = encode(names)
    line_of_replicate = np.zeros(len(replicates), dtype=np.int64)
    line_of_replicate[replicate] = line
    replicate_ids = np.empty(len(replicates), dtype=object)
    replicate_ids[replicate] = ids.to_numpy(dtype=object)
    covariates: dict[str, np.ndarray] = {}
    categories: dict[str, np.ndarray] = {}
    for column in frame.columns.difference(["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc"]):
        values = frame[column]
        if pd.api.types.is_numeric_dtype(values) and column not in ("screen", "p_dna_batch"):
            covariates[column] = values.to_numpy(dtype=np.float64)
        else:
            covariates[column], categories[column] = encode(values)
    index = ScreenIndex(
        sgrnas,
        genes,
        lines,
        lineages,
        replicates,
        gene_of_sgrna,
        lineage_of_line,
        line_of_replicate,
        categories,
        replicate_ids if "replicate_id" in frame else None,
    )
    report = ReadReport(name, n_read, len(frame), {"missing lfc": n_read - len(frame)})
    return assemble(index, sgrna, line, replicate, frame["lfc"].to_numpy(dtype=np.float64), covariates, report)
