"""Quality of a screen, from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from vihier.diagnostics.control_genes import ControlGenes
from vihier.quality.accumulate import sum_rows
from vihier.quality.batches import batch_table
from vihier.quality.copy_number import copy_number_trend
from vihier.quality.flags import Words, flags_of, measured
from vihier.quality.limits import SCREEN_LIMITS, Limit
from vihier.quality.lines import line_quality_table
from vihier.quality.replicates import replicate_table
from vihier.quality.sgrnas import gene_quality_table, sgrna_quality_table
from vihier.screen.screen import Screen
from vihier.store.store import ScreenStore


@dataclass(frozen=True, eq=False)
class ScreenQuality:
    """Tables of a screen's quality.

    Attributes
    ----------
    replicates, lines, sgrnas, genes, batches
        See `replicate_table`, `line_quality_table`, `sgrna_quality_table`, `gene_quality_table`, `batch_table`.
    copy_number
        See `copy_number_trend`; without rows where the screen has no copy numbers.
    flags
        What is beyond a limit: `about`, `label`, `measure`, `value`, `limit`, `text`.
    overview
        Sizes of the whole, and `measured`: of each measure that has a limit its median and worst value.
    """

    replicates: pd.DataFrame
    lines: pd.DataFrame
    sgrnas: pd.DataFrame
    genes: pd.DataFrame
    batches: pd.DataFrame
    copy_number: pd.DataFrame
    flags: pd.DataFrame
    overview: dict[str, Any]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables that have rows, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: table for name, table in found.items() if isinstance(table, pd.DataFrame) and len(table)}


def screen_quality(
    screen: Screen | ScreenStore, controls: ControlGenes | None = None, limits: Sequence[Limit] = SCREEN_LIMITS
) -> ScreenQuality:
    """Judge a screen by its rows, before any fit.

    Rows are read once, by blocks of genes: 10 million of them take 1.5 s and 0.2 GB, 40 million of 560 replicates 7 s.

    Parameters
    ----------
    screen
        In memory, or a store.
    controls
        Reference genes.
    limits
        Where a measure becomes a flag.

    Raises
    ------
    VihierError
        No control gene of one kind is in the screen.

    Examples
    --------
    >>> import pandas as pd
    >>> from vihier.screen import read_screen
    >>> rows = [
    ...     {"sgrna": f"{gene}-{k}", "hugo_symbol": gene, "depmap_id": line, "replicate_id": r, "lfc": -g + 0.1 * k}
    ...     for g, gene in enumerate(["KRT1", "RPL3"]) for k in range(30) for line in ("a", "b") for r in ("A", "B")
    ... ]
    >>> quality = screen_quality(read_screen(pd.DataFrame(rows)))
    >>> quality.replicates["correlation"].round(3).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    index = screen.index
    if controls is not None:
        controls.among(index.genes)
    sums = sum_rows(screen)
    replicates = replicate_table(index, sums, controls)
    lines = line_quality_table(index, sums, replicates, controls)
    sgrnas = sgrna_quality_table(index, sums)
    genes = gene_quality_table(index, sgrnas)
    batches = batch_table(index, sums, replicates)
    has_copies = sums.gene_line_copies is not None
    trend = copy_number_trend(index, sums, controls) if has_copies else pd.DataFrame()
    tables = {"replicate": replicates, "line": lines, "sgRNA": sgrnas, "gene": genes, "batch": batches}
    labels = {"replicate": "replicate", "line": "depmap_id", "sgRNA": "sgrna", "gene": "hugo_symbol"}
    flags = pd.concat(
        [
            flags_of(
                table, [each for each in limits if each.about == about], WORDS[about], labels.get(about, "p_dna_batch")
            )
            for about, table in tables.items()
        ],
        ignore_index=True,
    )
    overview = {
        "n_rows": screen.n_rows,
        "n_genes": screen.n_genes,
        "n_sgrnas": screen.n_sgrnas,
        "n_lines": screen.n_lines,
        "n_replicates": screen.n_replicates,
        "replicates_named": index.replicate_ids is not None,
        "gene_line_pairs_measured": float(np.isfinite(sums.gene_group).sum() / sums.gene_group.size),
        "measured": measured(tables, limits),
        "n_flags": len(flags),
    }
    return ScreenQuality(replicates, lines, sgrnas, genes, batches, trend, flags, overview)


def _of(row: pd.Series) -> str:
    """Return "in library X" where a table has libraries."""
    return f" in {row['screen']}" if "screen" in row.index and row["screen"] is not None else ""


def _sgrna_words(row: pd.Series) -> str:
    mean, others = row["mean"], row["others"]
    if row["n_others"] == 1:
        reason = "the gene has no third to say which is right"
    elif abs(mean) > abs(others):
        reason = "an effect that its gene's others do not have"
    else:
        reason = "little of the effect of its gene's others"
    count = "the other" if row["n_others"] == 1 else f"the {row['n_others']} others"
    return f"sgRNA {row['sgrna']} of {row['hugo_symbol']} has a mean lfc of {mean:.2f}, {count} {others:.2f}: {reason}"


def _correlation_words(row: pd.Series) -> str:
    others = "the line's other replicate" if row["n_others"] == 1 else f"the line's {row['n_others']} other replicates"
    return f"replicate {row['replicate']} correlates {row['correlation']:.2f} with {others}"


WORDS: dict[str, dict[str, Words]] = {
    "replicate": {
        "correlation": _correlation_words,
        "stranger": lambda row: (
            f"replicate {row['replicate']} is more like {row['most_like']} than its own line "
            f"(specific correlation {row['specific_correlation'] + row['stranger']:.2f} against "
            f"{row['specific_correlation']:.2f}): is it labelled right?"
        ),
        "coverage": lambda row: f"replicate {row['replicate']} has {row['coverage']:.0%} of the sgRNAs{_of(row)}",
        "zero_counts": lambda row: (
            f"replicate {row['replicate']} has no read of {row['zero_counts']:.0%} of its sgRNAs "
            f"({row['reads']:,.0f} reads in all)"
        ),
        "shift": lambda row: (
            f"replicate {row['replicate']} has a median lfc of {row['median_lfc']:.2f}, "
            f"{abs(row['shift']):.0f} robust sds from the others{_of(row)}"
        ),
    },
    "line": {
        "auroc": lambda row: (
            f"line {row['depmap_id']}{_of(row)} tells control genes apart with AUROC {row['auroc']:.2f}"
        ),
        "nnmd": lambda row: f"line {row['depmap_id']}{_of(row)} tells control genes apart with NNMD {row['nnmd']:.1f}",
        "shift": lambda row: (
            f"line {row['depmap_id']} has a median lfc of {row['median_lfc']:.2f}, "
            f"{abs(row['shift']):.0f} robust sds from the others{_of(row)}"
        ),
        "agreement": lambda row: (
            f"line {row['depmap_id']}{_of(row)}: only {row['agreement']:.0%} of the variance of sgRNAs is between genes"
        ),
        "n_replicates": lambda row: f"line {row['depmap_id']} has a single replicate{_of(row)}",
        "coverage": lambda row: f"line {row['depmap_id']} has {row['coverage']:.0%} of the genes{_of(row)}",
        "copy_number_correlation": lambda row: (
            f"line {row['depmap_id']}{_of(row)}: lfc falls with copy number "
            f"(correlation {row['copy_number_correlation']:.2f}, slope {row['copy_number_slope']:.2f})"
        ),
    },
    "sgRNA": {"z": _sgrna_words},
    "gene": {"n_sgrnas": lambda row: f"gene {row['hugo_symbol']} has a single sgRNA{_of(row)}"},
    "batch": {
        "excess_correlation": lambda row: (
            f"batch {row['p_dna_batch']}: different lines in it correlate {row['excess_correlation']:.2f} more than "
            f"with those of other batches{_of(row)}"
        ),
    },
}
