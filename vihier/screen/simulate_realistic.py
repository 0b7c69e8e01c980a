"""Rows that look like a real screen, from no model that vihier fits.

The row of sgRNA s in replicate r of line c is

    lfc = efficacy[s] * potency[c] * dependency[g, c] + sgrna_offset[s] + line_effect[c] + noise_sd[r] * t

with t Student-t of 5 degrees of freedom, scaled to unit variance. Spreads follow the Avana library: noise of the
replicates log-normal (there median 0.42, sd of the log 0.44, excess kurtosis within replicates 5), relative efficacy of
an essential gene's sgRNAs with sd 0.37. `dependency` is near -1 for common essential genes and near 0 for most others;
some genes are needed in one lineage only, some where they are mutated, a few slow growth, and cutting inside an
amplified region costs fitness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from vihier.screen.simulate_design import LFC_LIMIT, BlockDraw, Design, GeneBlock, Stage, numbered, stream

T_DF = 5.0
"""Degrees of freedom of the noise: excess kurtosis 6."""


class GeneClass(IntEnum):
    """What a gene is to the cells."""

    NEUTRAL = 0
    COMMON_ESSENTIAL = 1
    LINEAGE_SPECIFIC = 2
    DRIVER = 3
    SUPPRESSOR = 4


CLASS_SHARES = {
    GeneClass.COMMON_ESSENTIAL: 0.12,
    GeneClass.LINEAGE_SPECIFIC: 0.04,
    GeneClass.DRIVER: 0.02,
    GeneClass.SUPPRESSOR: 0.02,
}
"""Shares of the genes; the rest are neutral."""


@dataclass(frozen=True)
class Segments:
    """Stretches of the genome with an altered number of copies, at positions in [0, 1)."""

    line: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    log2_ratio: np.ndarray


class RealisticScreen:
    """Draws a realistic screen: what all genes share at once, genes block by block."""

    columns: tuple[str, ...] = ("p_dna_batch", "copy_number", "rna_expr", "is_mutated")
    variables: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "effect": ("hugo_symbol", "depmap_id"),
            "effect_dev": ("hugo_symbol", "depmap_id"),
            "effect_gene": ("hugo_symbol",),
            "gene_class": ("hugo_symbol",),
            "efficacy": ("sgrna",),
            "sgrna_offset": ("sgrna",),
            "line_effect": ("depmap_id",),
            "potency": ("depmap_id",),
            "noise_sd": ("replicate",),
        }
    )

    def __init__(self, design: Design) -> None:
        self.design = design
        rng = stream(design.seed, Stage.SHARED)
        n_genes, n_lines = len(design.genes), len(design.lines)
        self.gene_class = _gene_classes(rng.permutation(n_genes))
        self.line_effect = rng.normal(0, 0.1, n_lines)
        self.line_effect += rng.normal(0, 0.05, len(design.lineages))[design.lineage_of_line]
        self.potency = np.exp(rng.normal(0, 0.15, n_lines))
        self.noise_sd = np.clip(0.4 * np.exp(rng.normal(0, 0.4, len(design.replicates))), 0.1, 2.0)
        self.has_rna = rng.random(n_lines) >= 0.05
        self.segments = _segments(rng, n_lines)
        # Lines are screened a dozen at a time against one plasmid pool.
        self.batch_of_line = rng.permutation(n_lines).astype(np.int32) // 12
        # As a screen's own index spells them.
        self.dims = {"replicate": design.lines[design.line_of_replicate] + "|" + design.replicates}
        self.about: dict[str, Any] = {"model": "realistic", "priors": {}}
        self.categories = {"p_dna_batch": numbered("batch-", int(self.batch_of_line.max()) + 1, 2)}

    def shared_truth(self) -> dict[str, np.ndarray]:
        """Return the variables that no gene owns."""
        return {"line_effect": self.line_effect, "potency": self.potency, "noise_sd": self.noise_sd}

    def draw(self, block: GeneBlock, sgrna: np.ndarray, replicate: np.ndarray) -> BlockDraw:
        """Draw one block of genes.

        Parameters
        ----------
        block
            The genes.
        sgrna, replicate
            Of each row: the sgRNA's position within the block, and the replicate. Shape [N].
        """
        rng = stream(self.design.seed, Stage.BLOCK, block.number)
        copies = self._copies(rng, block)
        mutated = self._mutated(rng, block)
        lineage = rng.integers(len(self.design.lineages), size=block.n_genes)
        here = lineage[:, None] == self.design.lineage_of_line
        dependency = self._dependency(rng, block, here, mutated, copies)
        expression = self._expression(rng, block, here)
        efficacy, offset = _sgrnas(rng, block.n_sgrnas)

        gene_line = self.potency * dependency
        effect = block.gene_mean(efficacy)[:, None] * gene_line + block.gene_mean(offset)[:, None] + self.line_effect
        effect_gene = effect.mean(axis=1)
        # One look-up a row in a table of the block's cells is faster than the sum of terms a row.
        cell_mean = efficacy[:, None] * gene_line[block.gene] + offset[:, None] + self.line_effect
        line = self.design.line_of_replicate[replicate]
        noise = rng.standard_t(T_DF, size=len(sgrna))
        noise *= (self.noise_sd * np.sqrt((T_DF - 2) / T_DF))[replicate]
        lfc = cell_mean[sgrna, line]
        lfc += noise
        np.clip(lfc, -LFC_LIMIT, LFC_LIMIT, out=lfc)

        pair = block.gene[sgrna], line
        rna = np.where(self.has_rna, expression, np.nan)
        columns = {
            "p_dna_batch": self.batch_of_line[line],
            "copy_number": np.round(np.log2(copies + 1), 3)[pair],
            "rna_expr": np.round(rna, 3)[pair],
            "is_mutated": mutated[pair],
        }
        truth = {
            "effect": effect,
            "effect_dev": effect - effect_gene[:, None],
            "effect_gene": effect_gene,
            "gene_class": self.gene_class[block.genes],
            "efficacy": efficacy,
            "sgrna_offset": offset,
        }
        return BlockDraw(lfc, columns, truth)

    def _copies(self, rng: np.random.Generator, block: GeneBlock) -> np.ndarray:
        """Relative number of copies, 1 where diploid: [B, C]."""
        segments, n_lines = self.segments, len(self.design.lines)
        position = (np.arange(block.genes.start, block.genes.stop) + 0.5)[:, None] / len(self.design.genes)
        gene, segment = np.nonzero((segments.start <= position) & (position < segments.stop))
        log2_ratio = rng.normal(0, 0.04, (block.n_genes, n_lines))
        np.add.at(log2_ratio, (gene, segments.line[segment]), segments.log2_ratio[segment])
        return 2.0 ** np.clip(log2_ratio, -4, 5)

    def _mutated(self, rng: np.random.Generator, block: GeneBlock) -> np.ndarray:
        """Where a gene is mutated: bool [B, C]; drivers in 15 % of lines, others in 1 %."""
        rate = np.where(self.gene_class[block.genes] == GeneClass.DRIVER, 0.15, 0.01)
        return rng.random((block.n_genes, len(self.design.lines))) < rate[:, None]

    def _dependency(
        self, rng: np.random.Generator, block: GeneBlock, here: np.ndarray, mutated: np.ndarray, copies: np.ndarray
    ) -> np.ndarray:
        """Log2 fold change under an sgRNA of efficacy 1 in a line of potency 1: [B, C]."""
        shape = mutated.shape
        kind = self.gene_class[block.genes]
        neutral, essential = rng.normal(0, 0.06, shape[0]), np.minimum(rng.normal(-1.05, 0.3, shape[0]), -0.3)
        base = np.where(kind == GeneClass.COMMON_ESSENTIAL, essential, neutral)
        base = np.where(kind == GeneClass.SUPPRESSOR, rng.normal(0.3, 0.08, shape[0]), base)
        need = -np.abs(rng.normal(0.9, 0.2, shape[0]))[:, None]
        spread = np.exp(rng.normal(np.log(0.1), 0.4, shape[0])) * np.where(kind == GeneClass.COMMON_ESSENTIAL, 1.5, 1.0)
        dependency = base[:, None] + spread[:, None] * rng.standard_normal(shape)
        dependency += np.where((kind == GeneClass.LINEAGE_SPECIFIC)[:, None] & here, need, 0.0)
        dependency += np.where((kind == GeneClass.DRIVER)[:, None] & mutated, need, 0.0)
        # Many cuts in an amplified region stop the cell whatever the gene (Aguirre et al. 2016; Munoz et al. 2016).
        return dependency - 0.1 * np.clip(copies - 1.5, 0, 5)

    def _expression(self, rng: np.random.Generator, block: GeneBlock, here: np.ndarray) -> np.ndarray:
        """log2(TPM + 1): [B, C]; essential genes are expressed, lineage-specific ones most in their lineage."""
        kind = self.gene_class[block.genes]
        on = (rng.random(block.n_genes) < 0.6) | (kind != GeneClass.NEUTRAL)
        mean = np.where(on, rng.normal(4, 1.2, block.n_genes), 0.1) + 1.5 * (kind == GeneClass.COMMON_ESSENTIAL)
        sd = np.where(on, 0.5, 0.1)[:, None]
        expression = mean[:, None] + sd * rng.standard_normal(here.shape)
        expression += 2.0 * ((kind == GeneClass.LINEAGE_SPECIFIC)[:, None] & here)
        return np.maximum(expression, 0)


def _gene_classes(rank: np.ndarray) -> np.ndarray:
    """Class of each gene from a permutation of the genes, so that the shares are exact: int8 [G]."""
    at = (rank + 0.5) / len(rank)
    bounds = np.cumsum(list(CLASS_SHARES.values()))
    kinds = np.array([*CLASS_SHARES, GeneClass.NEUTRAL], dtype=np.int8)
    return kinds[np.searchsorted(bounds, at, side="right")]


def _segments(rng: np.random.Generator, n_lines: int) -> Segments:
    """Per line about four broad gains or losses and one or two narrow amplifications."""
    broad, narrow = rng.poisson(4, n_lines), rng.poisson(1.5, n_lines)
    n_broad, n_narrow = int(broad.sum()), int(narrow.sum())
    line = np.concatenate([np.repeat(np.arange(n_lines), broad), np.repeat(np.arange(n_lines), narrow)])
    length = np.concatenate([rng.uniform(0.02, 0.1, n_broad), rng.uniform(0.001, 0.01, n_narrow)])
    log2_ratio = np.concatenate([rng.normal(0, 0.35, n_broad), 1 + rng.exponential(0.7, n_narrow)])
    start = rng.random(len(line)) * (1 - length)
    return Segments(line, start, start + length, log2_ratio)


def _sgrnas(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Efficacy (a multiple of the gene's dependency) and offset (log2 fold change) of ``n`` sgRNAs: [n] each.

    One in twelve is nearly dead; the others are near 1.05, so that the mean is close to 1.
    """
    dead = rng.random(n) < 1 / 12
    efficacy = np.where(dead, rng.beta(1, 9, n), np.clip(rng.normal(1.07, 0.22, n), 0.2, 1.8))
    return efficacy, rng.normal(0, 0.12, n)
