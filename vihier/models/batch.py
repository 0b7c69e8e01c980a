"""What a Pyro program of a screen is given: one batch of rows, and the screen around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from vihier.errors import VihierError


class _LocalScale(Messenger):
    """Scale what is local to a batch: rows by `row_scale`, every other site by `local_scale`."""

    def __init__(self, local_scale: float, row_scale: float) -> None:
        super().__init__()
        self.local_scale = local_scale
        self.row_scale = row_scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        in_rows = any(frame.name == "row" for frame in msg["cond_indep_stack"])
        msg["scale"] = msg["scale"] * (self.row_scale if in_rows else self.local_scale)


@dataclass(frozen=True)
class Batch:
    """A batch of rows with the genes, sgRNAs and lines that it holds.

    Positions in `gene`, `sgrna`, `line` and `gene_of_sgrna` are positions *within the batch*: into `gene_idx`,
    `sgrna_idx` and `line_idx`, which name the elements in the order of the screen's index.

    Attributes
    ----------
    n_genes, n_sgrnas, n_lines, n_rows : int
        Sizes of the whole screen. `n_lineages`, a property, is refused where the screen has no lineages.
    gene_idx, sgrna_idx, line_idx : Tensor
        Which elements of the screen this batch holds, int64, shapes [B], [Sb], [Cb].
    gene, sgrna, line : Tensor
        The row's positions within the batch, int64, shape [N].
    lfc : Tensor or None
        Log2 fold change of each row, shape [N]; None when predicting.
    gene_of_sgrna : Tensor
        Position in `gene_idx` of each sgRNA of the batch, shape [Sb].
    covariates : mapping
        Name -> values of the rows, shape [N].
    replicate : Tensor or None
        Replicate of each row, int64, shape [N]; None where a batch was made without.
    line_screens_of_replicates : Tensor or None
        Which line in which screen each replicate is of, int64, shape [R].
    sizes : mapping
        Number of elements of what is neither gene, sgRNA, line nor lineage: `replicate`, `line_screen` (a line in
        a screen), and each categorical covariate, such as `screen`, whose codes are among `covariates`.
    local_scale, row_scale : float
        1 / Pr(a local site is in the batch), and 1 / Pr(a row is in it).
    uncut : Batch or None
        The batch with all its rows, where this one has but the first of them.
    """

    n_genes: int
    n_sgrnas: int
    n_lines: int
    n_rows: int
    gene_idx: torch.Tensor
    sgrna_idx: torch.Tensor
    line_idx: torch.Tensor
    gene: torch.Tensor
    sgrna: torch.Tensor
    line: torch.Tensor
    lfc: torch.Tensor | None
    gene_of_sgrna: torch.Tensor
    lineages: int = 0
    lineages_of_lines: torch.Tensor | None = None
    covariates: Mapping[str, torch.Tensor] = field(default_factory=dict)
    replicate: torch.Tensor | None = None
    line_screens_of_replicates: torch.Tensor | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    local_scale: float = 1.0
    row_scale: float = 1.0
    uncut: Batch | None = None

    @property
    def n_lineages(self) -> int:
        """Number of lineages of the screen.

        Raises
        ------
        VihierError
            If the screen has no lineages.
        """
        if self.lineages_of_lines is None:
            raise VihierError(
                "column 'lineage': the model needs a lineage for every line and the screen has none: add the column, "
                "or put all lines in one with --single-lineage (single_lineage=True)"
            )
        return self.lineages

    @property
    def lineage_of_line(self) -> torch.Tensor:
        """Lineage of each line of the batch, int64, shape [Cb]."""
        assert self.n_lineages and self.lineages_of_lines is not None
        return self.lineages_of_lines

    def size_of(self, plate: str) -> int:
        """Return the number of elements of a plate that genes share, such as `line`, `replicate` or `line_screen`.

        Raises
        ------
        VihierError
            If the screen has no such column.
        """
        if plate in ("line", "lineage"):
            return self.n_lines if plate == "line" else self.n_lineages
        if plate not in self.sizes:
            raise VihierError(f"column {plate!r}: the model needs it and the screen has none; add the column")
        return self.sizes[plate]

    def rows_in(self, plate: str) -> torch.Tensor:
        """Return which element of a plate each row is in, int64, shape [N].

        Raises
        ------
        VihierError
            If rows do not say.
        """
        if plate == "lineage":
            return self.lineage_of_line[self.line]
        if plate == "line_screen" and self.replicate is not None:
            return self.line_screen_of_replicate[self.replicate]
        of_row = {"gene": self.gene, "sgrna": self.sgrna, "line": self.line, "replicate": self.replicate}
        codes = of_row[plate] if plate in of_row else self.covariates[plate]
        if codes is None or (len(codes) and bool((codes < 0).any())):
            raise VihierError(f"column {plate!r}: the model needs it in every row, and some have none: fill it in")
        return codes

    @property
    def line_screen_of_replicate(self) -> torch.Tensor:
        """Which line in which screen each replicate is of, int64, shape [R].

        Raises
        ------
        VihierError
            If the batch was made without.
        """
        if self.line_screens_of_replicates is None:
            raise VihierError("column 'replicate_id': the model needs the line of each replicate; the batch has none")
        return self.line_screens_of_replicates

    def local(self) -> Messenger:
        """Return the context for everything local to a gene or a row; it carries the batch's scale.

        In a gene block every local site is scaled by the one factor 1 / Pr(block), whatever the plate: per-plate
        scales would differ between plates where genes have unequal numbers of sgRNAs, and bias the ELBO.
        """
        return _LocalScale(self.local_scale, self.row_scale)

    def with_one_row(self) -> Batch:
        """Return the same batch with its first row only: for running a program's priors and deterministic sites.

        Pyro has no plates of length zero, hence one row and not none.
        """
        lfc = None if self.lfc is None else self.lfc[:1]
        covariates = {name: values[:1] for name, values in self.covariates.items()}
        return replace(
            self,
            gene=self.gene[:1],
            sgrna=self.sgrna[:1],
            line=self.line[:1],
            lfc=lfc,
            covariates=covariates,
            replicate=None if self.replicate is None else self.replicate[:1],
            uncut=self.uncut or self,
        )

    def by_gene_line(self, name: str) -> torch.Tensor:
        """Return a covariate's mean over the rows of each gene and line, [B, Cb]; 0 where there is no row."""
        rows = self.uncut or self
        values = self.covariates[name] if self.uncut is None else rows.covariates[name]
        shape = (len(self.gene_idx), len(self.line_idx))
        pair = rows.gene * shape[1] + rows.line
        zeros = values.new_zeros(shape[0] * shape[1])
        count = zeros.index_add(0, pair, torch.ones_like(values)).clamp_min(1)
        return (zeros.index_add(0, pair, values) / count).reshape(shape)

    def mean_over_sgrnas(self, values: torch.Tensor) -> torch.Tensor:
        """Average a quantity of sgRNAs, shape [Sb], over each gene's: shape [B, 1], like the plate `gene`."""
        zeros = values.new_zeros(len(self.gene_idx))
        count = zeros.index_add(0, self.gene_of_sgrna, torch.ones_like(values))
        return (zeros.index_add(0, self.gene_of_sgrna, values) / count)[:, None]
