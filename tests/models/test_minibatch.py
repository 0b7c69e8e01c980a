"""In minibatches a program stays the program: unbiased, and blind to what is not in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ragged import CPU, F64, LOCAL, log_joint, part_of, ragged_screen, site_values

from vihier.errors import VihierError
from vihier.guides.mean_field import MeanField
from vihier.inference.batches import RowParts, full_batch, gene_blocks
from vihier.inference.device import run_on, seeded
from vihier.models.program import load_program
from vihier.screen import read_screen

MODELS = ["additive", "crossed", "gene_lineage"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("genes_per_block", [1, 2, 3, 4])
def test_mean_over_gene_blocks_is_the_full_value(name: str, genes_per_block: int) -> None:
    # Five genes of 2, 5, 19, 3 and 2 sgRNAs; blocks of 2, 3 and 4 end in a short one.
    screen = ragged_screen()
    model = load_program(name).model
    values = site_values(model, screen)
    blocks = gene_blocks(screen, genes_per_block)
    parts = [log_joint(model, batch, part_of(values, LOCAL[name], batch)) for batch in blocks]
    full = log_joint(model, full_batch(screen), values)
    assert np.mean(parts) == pytest.approx(full, rel=1e-12)
    assert np.std(parts) > 1  # the blocks do differ


@pytest.mark.parametrize("name", MODELS)
def test_mean_over_parts_of_the_rows_is_the_full_value(name: str) -> None:
    screen = ragged_screen()
    model = load_program(name).model
    values = site_values(model, screen)
    parts = RowParts(screen, 60, seed=3)
    assert len({len(batch.gene) for batch in parts}) == 2  # the rows cannot be split evenly
    full = log_joint(model, full_batch(screen), values)
    assert np.mean([log_joint(model, batch, values) for batch in parts]) == pytest.approx(full, rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_block_gives_gradients_to_its_own_genes_and_sgrnas_only(name: str) -> None:
    screen = ragged_screen()
    model = load_program(name).model
    batch = gene_blocks(screen, 2, dtype=torch.float32)[1]
    with run_on(CPU, torch.float32), seeded(CPU, 0):
        from pyro.infer import Trace_ELBO

        guide = MeanField(model, batch, sparse=True)
        Trace_ELBO().differentiable_loss(model, guide, batch).backward()
    assert set(guide.gene.grad.coalesce().indices()[0].tolist()) == {2, 3}
    if guide.columns["sgrna"]:
        touched = set(guide.sgrna.grad.coalesce().indices()[0].tolist())
        of_gene = screen.index.gene_of_sgrna
        assert touched == set(np.flatnonzero((of_gene == 2) | (of_gene == 3)).tolist())


@pytest.mark.parametrize("name", MODELS)
def test_nothing_in_a_block_depends_on_rows_elsewhere(name: str) -> None:
    screen = ragged_screen()
    model = load_program(name).model
    frame = screen.to_frame()
    frame.loc[frame["hugo_symbol"] == "GENE0", "lfc"] += 1.0
    values = site_values(model, screen)
    blocks, changed = gene_blocks(screen, 2), gene_blocks(read_screen(frame), 2)
    for number in (1, 2):
        part = part_of(values, LOCAL[name], blocks[number])
        assert log_joint(model, changed[number], part) == log_joint(model, blocks[number], part)


def test_a_screen_without_lineages_is_refused_with_the_cure() -> None:
    screen = read_screen(ragged_screen().to_frame().drop(columns="lineage"))
    with pytest.raises(VihierError, match="--single-lineage"), run_on(CPU, F64):
        load_program("additive").model(full_batch(screen))
