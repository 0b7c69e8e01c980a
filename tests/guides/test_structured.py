"""The structured guide as a Pyro guide: exact locations, whatever the draw."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from ragged import CPU, F64, ragged_screen

from vihier.guides.evidence import collapsed_log_joint
from vihier.guides.structured import StructuredGuide
from vihier.inference.batches import GeneBlocks, full_batch
from vihier.inference.device import run_on
from vihier.models.program import load_program

MODELS = ("additive", "gene_lineage", "crossed")


def log_weight(model, guide, batch, seed: int) -> tuple[float, dict[str, torch.Tensor]]:
    """log p - log q of the locations at one draw of all sites, and the log-scales drawn."""
    pyro.set_rng_seed(seed)
    drawn = poutine.trace(guide).get_trace(batch)
    joint = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(batch)
    drawn.compute_log_prob()
    of_locations = sum(float(drawn.nodes[name]["log_prob_sum"]) for name in ("_shared", "_locals"))
    sizes = {"gene": batch.n_genes, "line": batch.n_lines, "lineage": batch.n_lineages}
    scales = {}
    for scale in guide.structure.scales:
        shape = [sizes[plate] for plate in scale.plates]
        scales[scale.name] = drawn.nodes[scale.name]["value"].log().reshape([*shape, 1])
    return float(joint.log_prob_sum()) - of_locations, scales


@pytest.mark.parametrize("name", MODELS)
def test_trace_elbo_terms_equal_the_closed_form_for_every_draw_of_the_locations(name: str) -> None:
    screen = ragged_screen()
    model = load_program(name).model
    with run_on(CPU, F64):
        batch = full_batch(screen)
        guide = StructuredGuide(model, [batch])
        with torch.no_grad():
            for seed in range(3):
                weight, scales = log_weight(model, guide, batch, seed)
                jacobian = float(sum(x.sum() for x in scales.values()))
                closed = float(collapsed_log_joint(guide.structure, scales, guide._block(batch)))
                # Rounding of float64 sums of some hundred terms of size 1 to 1e3.
                assert weight == pytest.approx(closed - jacobian, abs=1e-8)


def test_plain_svi_in_gene_blocks_reaches_the_elbo_of_the_full_batch() -> None:
    screen = ragged_screen(sgrnas=(2, 3, 4, 3, 2), n_lines=6)
    model = load_program("additive").model
    ends = {}
    for size in (5, 3):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        blocks = GeneBlocks(screen, size)
        guide = StructuredGuide(model, blocks)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        losses = [np.mean([svi.step(batch) for batch in blocks]) for _ in range(70)]
        assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 10
        ends[size] = losses[-25:]
    spread = np.sqrt(sum(np.var(x) / len(x) for x in ends.values()))
    # Four standard errors, doubled for the correlation of successive losses, and a nat for the moving parameters.
    assert abs(np.mean(ends[5]) - np.mean(ends[3])) < 8 * spread + 1.0
