"""What is in a simulated screen before any number is drawn: labels, nesting, replicates, and which rows exist.

Random numbers are keyed, not consumed in turn: every stage and every block of genes has a stream of its own, spawned
from the seed (Salmon et al. 2011, counter-based generators; here numpy's ``SeedSequence`` and ``Philox``). What is
drawn for a gene therefore depends neither on how many blocks are held in memory nor on how the table is cut into row
groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

ROWS_PER_BLOCK = 1 << 17
"""Rows drawn together, about: they fix how many genes a block has, and so are part of what a seed means."""

GENES_PER_BLOCK = 1024
"""Most genes of a block."""

MAX_MISSING = 0.9
"""Beyond this share the guarantee of a row for every sgRNA would bend the design."""

LFC_LIMIT = 20.0
"""Largest |lfc| that a screen table may hold (log2 fold change)."""

TISSUES = (
    *("lung", "skin", "blood", "colorectal", "breast", "central_nervous_system", "ovary", "pancreas", "lymphocyte"),
    *("upper_aerodigestive", "gastric", "urinary_tract", "bone", "kidney", "soft_tissue", "esophagus", "liver"),
    *("uterus", "peripheral_nervous_system", "plasma_cell", "bile_duct", "fibroblast", "cervix", "thyroid"),
    *("prostate", "rhabdoid", "eye"),
)
"""Lineages in the order in which cell line collections hold them, commonest first."""


class Stage(IntEnum):
    """What a random stream is for; the first word of its spawn key."""

    SEQUENCES = 0
    LAYOUT = 1
    SHARED = 2
    BLOCK = 3
    MISSING = 4
    TORCH = 5


def stream(seed: int, stage: Stage, block: int = 0) -> np.random.Generator:
    """Return the generator of one stage and one block of genes, independent of all others.

    Examples
    --------
    >>> bool(stream(1, Stage.BLOCK, 7).random() == stream(1, Stage.BLOCK, 7).random())
    True
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(int(stage), block))))


@dataclass(frozen=True)
class GeneBlock:
    """A run of genes and the sgRNAs they own: positions in the design, half open."""

    number: int
    genes: slice
    sgrnas: slice
    gene: np.ndarray
    """Position within the block of each sgRNA's gene, int64 [S of the block]."""

    @property
    def n_genes(self) -> int:
        """Genes in the block."""
        return self.genes.stop - self.genes.start

    @property
    def n_sgrnas(self) -> int:
        """The block's sgRNAs."""
        return self.sgrnas.stop - self.sgrnas.start

    def gene_mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over each gene's sgRNAs of ``values`` [S of the block]: [genes of the block]."""
        return np.bincount(self.gene, values, self.n_genes) / np.bincount(self.gene, minlength=self.n_genes)


@dataclass(frozen=True)
class BlockDraw:
    """What is drawn for one block of genes.

    Attributes
    ----------
    lfc
        Log2 fold change, shape [rows of the block].
    columns
        Further columns of the table, name -> values of the rows; of labels, their codes.
    truth
        Variable -> values of the block, first axis its genes or its sgRNAs in the order of the design.
    """

    lfc: np.ndarray
    columns: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


@dataclass(frozen=True)
class Design:
    """Labels and nesting of a simulated screen.

    sgRNAs are in the order of the table: by gene, then by sequence. Replicates are in the order of their lines.
    """

    seed: int
    missing: float
    genes: np.ndarray
    sgrnas: np.ndarray
    lines: np.ndarray
    lineages: np.ndarray
    replicates: np.ndarray
    gene_of_sgrna: np.ndarray
    lineage_of_line: np.ndarray
    line_of_replicate: np.ndarray

    @cached_property
    def sgrna_order(self) -> np.ndarray:
        """Positions of the sgRNAs by code point of their labels, the order of the truth file: int64 [S]."""
        return np.argsort(self.sgrnas, kind="stable")

    def blocks(self) -> Iterator[GeneBlock]:
        """Cut the genes into blocks of about ``ROWS_PER_BLOCK`` rows, the last one shorter."""
        n_genes = len(self.genes)
        rows_per_gene = -(-len(self.sgrnas) * len(self.replicates) // n_genes)
        size = max(1, min(GENES_PER_BLOCK, ROWS_PER_BLOCK // rows_per_gene))
        for number, start in enumerate(range(0, n_genes, size)):
            stop = min(start + size, n_genes)
            first, last = np.searchsorted(self.gene_of_sgrna, [start, stop])
            gene = self.gene_of_sgrna[first:last] - start
            yield GeneBlock(number, slice(start, stop), slice(int(first), int(last)), gene)

    def present(self, block: GeneBlock) -> np.ndarray:
        """Say which rows of a block exist: bool [S of the block, replicates].

        A tenth of the missing share falls on whole (gene, line) pairs; the rest half on whole cells, half on single
        rows. Every sgRNA keeps a row, and the screen's first sgRNA is measured in every replicate, so that no line,
        replicate or reagent of the truth is absent from the table.
        """
        shape = (block.n_sgrnas, len(self.replicates))
        if self.missing == 0:
            return np.ones(shape, dtype=bool)
        rng = stream(self.seed, Stage.MISSING, block.number)
        no_pair = 0.1 * self.missing
        no_cell = 1 - np.sqrt((1 - self.missing) / (1 - no_pair))
        n_lines = len(self.lines)
        cells = (rng.random((block.n_genes, n_lines)) >= no_pair)[block.gene]
        cells &= rng.random((block.n_sgrnas, n_lines)) >= no_cell
        chance = rng.random(shape, dtype=np.float32)
        rows = cells[:, self.line_of_replicate] & (chance >= no_cell)
        bare = np.flatnonzero(~rows.any(axis=1))
        rows[bare, chance[bare].argmax(axis=1)] = True
        if block.number == 0:
            rows[0] = True
        return rows


def make_design(
    *,
    genes: int,
    lines: int,
    lineages: int,
    sgrnas: tuple[int, int],
    replicates: int,
    unequal: bool,
    seed: int,
    missing: float,
) -> Design:
    """Lay out a screen.

    Parameters
    ----------
    genes, lines, lineages
        How many of each; every lineage has a line at least.
    sgrnas
        Fewest and most sgRNAs of a gene, uniform between them.
    replicates
        Replicates of a line; with ``unequal`` 60 % of the lines have them, the others one more or one fewer.
    unequal
        Whether lines differ in replicates, and lineages in their expected share of the lines.
    seed, missing
        Seed of all streams, and expected share of the rows that are absent.
    """
    rng = stream(seed, Stage.LAYOUT)
    count = rng.integers(sgrnas[0], sgrnas[1] + 1, size=genes)
    gene_of_sgrna = np.repeat(np.arange(genes), count)
    codes = sequence_codes(len(gene_of_sgrna), seed)
    codes = codes[np.lexsort((codes, gene_of_sgrna))]

    share = rng.dirichlet(np.full(lineages, 4.0)) if unequal else np.full(lineages, 1 / lineages)
    others = rng.choice(lineages, size=lines - lineages, p=share) if unequal else np.arange(lineages, lines) % lineages
    # Shuffled, so that the order of the lines says nothing about their lineage.
    lineage_of_line = rng.permutation(np.concatenate([np.arange(lineages), others]).astype(np.int64))

    per_line = np.full(lines, replicates)
    if unequal and replicates > 1:
        per_line += rng.choice([-1, 0, 1], size=lines, p=[0.2, 0.6, 0.2])
    line_of_replicate = np.repeat(np.arange(lines), per_line)
    number = np.arange(len(line_of_replicate)) - np.repeat(np.cumsum(per_line) - per_line, per_line)
    line_labels = numbered("SIM-", lines, 6)
    return Design(
        seed=seed,
        missing=missing,
        genes=numbered("GENE", genes, 5),
        sgrnas=sequences(codes),
        lines=line_labels,
        lineages=lineage_labels(lineages),
        replicates=line_labels[line_of_replicate] + numbered("-R", int(per_line.max()), 1)[number],
        gene_of_sgrna=gene_of_sgrna,
        lineage_of_line=lineage_of_line,
        line_of_replicate=line_of_replicate,
    )


def numbered(prefix: str, n: int, digits: int) -> np.ndarray:
    """Labels ``prefix`` + 1, 2, ... ``n``, zero-padded so that they sort by code point as they count: object [n]."""
    width = max(digits, len(str(n)))
    return np.array([f"{prefix}{i:0{width}d}" for i in range(1, n + 1)], dtype=object)


def lineage_labels(n: int) -> np.ndarray:
    """Names of ``n`` lineages, sorted: tissues, and numbers when there are more than tissues: object [n]."""
    extra = numbered("tissue_", n - len(TISSUES), 3) if n > len(TISSUES) else ()
    return np.array(sorted([*TISSUES[:n], *extra]), dtype=object)


def sequence_codes(n: int, seed: int) -> np.ndarray:
    """Distinct 40-bit codes, one a sgRNA: a keyed Feistel permutation of 0 ... n - 1, so never a collision: uint64 [n].

    Luby and Rackoff (1988): four rounds of a Feistel network permute the codes whatever the round function.
    """
    half = np.uint64(20)
    low = np.uint64((1 << 20) - 1)
    keys = stream(seed, Stage.SEQUENCES).integers(0, 1 << 63, size=(4, 2), dtype=np.uint64)
    index = np.arange(n, dtype=np.uint64)
    left, right = index >> half, index & low
    for add, multiply in keys:
        mixed = (right + add) * (multiply | np.uint64(1))
        mixed ^= mixed >> np.uint64(31)
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        left, right = right, left ^ (mixed >> np.uint64(44))
    return (left << half) | right


def sequences(codes: np.ndarray) -> np.ndarray:
    """Spell 40-bit codes as 20 letters, two bits a letter, first letter highest: object [n] of str.

    Examples
    --------
    >>> sequences(np.array([0, 27], dtype=np.uint64)).tolist()
    ['AAAAAAAAAAAAAAAAAAAA', 'AAAAAAAAAAAAAAAAACGT']
    """
    shifts = np.arange(38, -2, -2, dtype=np.uint64)
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)[(codes[:, None] >> shifts) & np.uint64(3)]
    return np.ascontiguousarray(letters).view("S20").ravel().astype("U20").astype(object)
