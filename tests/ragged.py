"""A tiny screen with everything that goes wrong in minibatches, and values for every site of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch

from vihier.inference.batches import full_batch
from vihier.inference.device import run_on
from vihier.models.batch import Batch
from vihier.screen import Screen, read_screen

CPU = torch.device("cpu")
F64 = torch.float64


def ragged_frame(sgrnas: Sequence[int] = (2, 5, 19, 3, 2), n_lines: int = 4, seed: int = 0) -> pd.DataFrame:
    """Genes of 2 to 19 sgRNAs, unequal replicates, two uneven lineages, missing cells, a (gene, line) without rows."""
    random = np.random.default_rng(seed)
    rows = []
    for g, n_sgrnas in enumerate(sgrnas):
        for k in range(n_sgrnas):
            for c in range(n_lines):
                for r in range(1 + c % 2):
                    if random.random() < 0.1 or (g == 1 and c == 2):
                        continue
                    lineage = "skin" if c < n_lines - 1 else "lung"
                    name = f"{'TGCA'[(7 * k + g) % 4]}{g}-{k}"  # not in the order of the genes
                    rows.append((name, f"GENE{g}", f"ACH-{c}", lineage, "AB"[r], random.normal(-0.2 * g, 0.5)))
    columns = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc"]
    return pd.DataFrame(rows, columns=columns)


def ragged_screen(sgrnas: Sequence[int] = (2, 5, 19, 3, 2), n_lines: int = 4, seed: int = 0) -> Screen:
    return read_screen(ragged_frame(sgrnas, n_lines, seed))


def site_values(model: Callable[[Batch], Any], screen: Screen, seed: int = 1) -> dict[str, torch.Tensor]:
    """A draw of every latent site for the whole screen, from moderate values: scales near 0.5, locations near 0."""
    random = np.random.default_rng(seed)
    with run_on(CPU, F64, validate=True):
        nodes = pyro.poutine.trace(model).get_trace(full_batch(screen)).nodes
    values = {}
    for name, node in nodes.items():
        if node["type"] == "sample" and not node["is_observed"] and node["value"].is_floating_point():
            noise = torch.as_tensor(random.normal(size=tuple(node["value"].shape)))
            values[name] = 0.5 * (0.3 * noise).exp() if "sigma" in name else 0.4 * noise
    return values


def part_of(values: Mapping[str, torch.Tensor], local: Mapping[str, str], batch: Batch) -> dict[str, torch.Tensor]:
    """The values of the sites of one batch; `local` says which sites are of genes and which of sgRNAs, first axis."""
    index = {"gene": batch.gene_idx, "sgrna": batch.sgrna_idx}
    return {name: value[index[local[name]]] if name in local else value for name, value in values.items()}


def log_joint(model: Callable[[Batch], Any], batch: Batch, values: Mapping[str, torch.Tensor]) -> float:
    with run_on(CPU, F64, validate=True):
        trace = pyro.poutine.trace(pyro.condition(model, data=dict(values))).get_trace(batch)
        return float(trace.log_prob_sum())


LOCAL = {
    "additive": {"mu_alpha": "gene", "sigma_alpha": "gene", "sigma_gamma": "gene", "gamma": "gene", "alpha": "sgrna"},
    "crossed": {
        **{"mu_alpha": "gene", "sigma_alpha": "gene", "sigma_gamma": "gene", "gamma": "gene", "alpha": "sgrna"},
        "eta": "gene",
    },
    "gene_lineage": {"mu_mu_gamma": "gene", "sigma_mu_gamma": "gene", "mu_gamma": "gene", "gamma": "gene"},
}
