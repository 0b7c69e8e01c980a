"""One row for each cell line in each library: control genes, agreement of sgRNAs, level, coverage, copy number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.diagnostics.control_genes import ControlGenes, precision_recall, separation
from vihier.quality.accumulate import Sums
from vihier.quality.copy_number import copy_number_by_line
from vihier.quality.limits import robust_z
from vihier.quality.replicates import median_and_spread, named
from vihier.screen.screen import ScreenIndex


def line_quality_table(
    index: ScreenIndex, sums: Sums, replicates: pd.DataFrame, controls: ControlGenes | None = None
) -> pd.DataFrame:
    """Return a table of the lines, a row for each library that a line is in.

    Parameters
    ----------
    index
        Labels of the screen.
    sums
        Its `sum_rows`.
    replicates
        Its `replicate_table`.
    controls
        Reference genes.

    Returns
    -------
    DataFrame
        `depmap_id`, and where the screen has them `screen` and `lineage`;

        - `n_replicates`; `correlation`, the mean of its replicates';
        - `coverage`, genes measured as a share of the library's;
        - `median_lfc`, `spread` (1.4826 MAD) and `shift`, as for replicates, of the non-essential genes where they are
          given;
        - `agreement`, the intraclass correlation of a gene's sgRNAs: the share of the variance of sgRNAs in the line
          that lies between genes;
        - with control genes `auroc`, `nnmd`, `average_precision`, `recall` (see `precision_recall`), of the mean lfc of
          each gene;
        - with copy numbers `copy_number_slope` and `copy_number_correlation` (see `copy_number_by_line`).
    """
    values, library = sums.gene_group, sums.screen_of_group
    measured = np.isfinite(values)
    in_library = np.stack([measured[:, library == code].any(axis=1).sum() for code in range(library.max() + 1)])
    quiet = values if controls is None else values[controls.among(index.genes)[1]]
    median, spread = median_and_spread(quiet)
    by_group = replicates["correlation"].groupby(sums.group_of_replicate).mean()
    columns: dict[str, np.ndarray] = {"depmap_id": index.lines[sums.line_of_group]} | named("screen", index, library)
    if index.lineages is not None and index.lineage_of_line is not None:
        columns["lineage"] = index.lineages[index.lineage_of_line[sums.line_of_group]]
    columns |= {
        "n_replicates": np.bincount(sums.group_of_replicate, minlength=len(library)),
        "correlation": by_group.reindex(range(len(library))).to_numpy(),
        "coverage": measured.sum(axis=0) / in_library[library],
        "median_lfc": median,
        "spread": spread,
        "shift": robust_z(median, library),
        "agreement": sums.agreement.icc(),
    }
    if controls is not None:
        effect = pd.DataFrame(values.T, columns=index.genes)
        for judged in (separation(effect, controls), precision_recall(effect, controls)):
            columns |= {str(name): judged[name].to_numpy() for name in judged}
    if sums.gene_line_copies is not None:
        columns |= copy_number_by_line(index, sums, controls)
    return pd.DataFrame(columns)
