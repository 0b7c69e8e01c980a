"""Batches hold the rows, genes and sgRNAs they say they hold, and one scale each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ragged import ragged_screen

from vihier.errors import VihierError
from vihier.inference.batches import RowParts, full_batch, gene_blocks, genes_in_block, row_batch
from vihier.models.batch import Batch
from vihier.screen import read_screen


def rows_of(batch: Batch) -> list[tuple[int, int, int, float]]:
    """Rows as codes of the whole screen."""
    assert batch.lfc is not None
    gene, sgrna = batch.gene_idx[batch.gene], batch.sgrna_idx[batch.sgrna]
    assert torch.equal(batch.gene_of_sgrna[batch.sgrna], batch.gene)
    return list(zip(gene.tolist(), sgrna.tolist(), batch.line.tolist(), batch.lfc.tolist(), strict=True))


def test_blocks_are_a_partition_of_rows_genes_and_sgrnas_in_label_order() -> None:
    screen = ragged_screen()
    whole = rows_of(full_batch(screen))
    expected = list(zip(screen.gene.tolist(), screen.sgrna.tolist(), screen.line.tolist(), screen.lfc.tolist(),
                        strict=True))  # fmt: skip
    assert whole == expected
    blocks = gene_blocks(screen, 2)
    assert [len(block.gene_idx) for block in blocks] == [2, 2, 1]
    assert [row for block in blocks for row in rows_of(block)] == expected
    assert sorted(i for block in blocks for i in block.sgrna_idx.tolist()) == list(range(screen.n_sgrnas))
    for block in blocks:
        assert block.local_scale == block.row_scale == 3.0
        assert torch.equal(block.line_idx, torch.arange(screen.n_lines))
        assert (block.n_genes, block.n_sgrnas, block.n_rows) == (screen.n_genes, screen.n_sgrnas, screen.n_rows)


def test_parts_of_the_rows_are_a_partition_and_scaled_by_their_number() -> None:
    screen = ragged_screen()
    parts = RowParts(screen, 60, seed=0)
    every = [row for part in parts for row in rows_of(part)]
    assert sorted(every) == sorted(rows_of(full_batch(screen))) and every != rows_of(full_batch(screen))
    assert {(part.local_scale, part.row_scale) for part in parts} == {(1.0, 3.0)}
    again = RowParts(screen, 60, seed=0)
    assert rows_of(parts[0]) == rows_of(again[0]) != rows_of(RowParts(screen, 60, seed=1)[0])


def test_a_batch_of_chosen_rows_is_scaled_by_one_over_the_chance_of_a_row() -> None:
    screen = ragged_screen()
    batch = row_batch(screen, np.array([3, 1, 0, 7]))
    assert batch.row_scale == screen.n_rows / 4 and batch.local_scale == 1.0
    assert [row[3] for row in rows_of(batch)] == screen.lfc[[3, 1, 0, 7]].tolist()


def test_covariates_travel_with_their_rows() -> None:
    frame = ragged_screen().to_frame()
    frame["copy_number"] = np.arange(len(frame)) * 0.5
    frame.loc[3, "copy_number"] = np.nan
    frame["p_dna_batch"] = np.where(frame["depmap_id"] == "ACH-1", "second", "first")
    screen = read_screen(frame)
    for block in gene_blocks(screen, 2):
        first = int(screen.gene_starts[int(block.gene_idx[0])])
        here = slice(first, first + len(block.gene))
        np.testing.assert_array_equal(block.covariates["copy_number"], screen.covariates["copy_number"][here])
        np.testing.assert_array_equal(block.covariates["p_dna_batch"], screen.covariates["p_dna_batch"][here])
        assert block.covariates["p_dna_batch"].dtype == torch.int64


def test_one_row_is_kept_where_rows_do_not_matter() -> None:
    batch = gene_blocks(ragged_screen(), 2)[1].with_one_row()
    assert batch.lfc is not None and len(batch.gene) == len(batch.sgrna) == len(batch.line) == len(batch.lfc) == 1


def test_sizes_that_cannot_be_are_refused() -> None:
    screen = ragged_screen()
    for size in (0, -3):
        with pytest.raises(VihierError, match=f"batch_size {size}"):
            gene_blocks(screen, size)
        with pytest.raises(VihierError, match=f"batch_size {size}"):
            RowParts(screen, size, seed=0)
    with pytest.raises(IndexError):
        gene_blocks(screen, 2)[3]


def test_blocks_by_default_hold_about_so_many_rows() -> None:
    screen = ragged_screen(sgrnas=[3] * 40)
    per_gene = screen.n_rows / screen.n_genes
    assert genes_in_block(screen, rows=round(20 * per_gene)) == 20
    assert genes_in_block(screen, rows=1) == 8 and genes_in_block(screen) == 40
