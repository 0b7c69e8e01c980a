"""A program of Normal and positive sites as one dense multivariate Normal, by running the program and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vihier.inference.batches import full_batch
from vihier.inference.device import run_on
from vihier.models.batch import Batch
from vihier.screen import Screen, read_screen

CPU, F64 = torch.device("cpu"), torch.float64
CORRELATION = torch.distributions.transforms.CorrCholeskyTransform()
Model = Callable[[Batch], Any]


def uneven_screen(
    sgrnas: tuple[int, ...] = (1, 3, 2, 4), n_lines: int = 5, keep: float = 0.85, seed: int = 0, screens: bool = False
) -> Screen:
    """Genes of 1 to 4 sgRNAs, unequal replicates, two uneven lineages, missing cells, one (gene, line) without rows.

    Every sgRNA and line keeps a row. With `screens`, second replicates are of another screen than first ones.
    """
    random = np.random.default_rng(seed)
    rows = []
    for g, n_sgrnas in enumerate(sgrnas):
        for k in range(n_sgrnas):
            for c in range(n_lines):
                missing = g == 1 and c == 2
                if missing or (random.random() > keep and k != c % n_sgrnas):
                    continue
                lineage = "skin" if c < n_lines - 2 else "lung"
                for r in range(1 + (c + k) % 2):
                    lfc = random.normal(-0.3 * g, 0.7)
                    rows.append((f"{'TGCA'[(7 * k + g) % 4]}{g}-{k}", f"GENE{g}", f"ACH-{c}", lineage, "AB"[r], lfc))
    columns = ["sgrna", "hugo_symbol", "depmap_id", "lineage", "replicate_id", "lfc"]
    table = pd.DataFrame(rows, columns=columns)
    return read_screen(
        table.assign(screen=table["replicate_id"].map({"A": "broad", "B": "sanger"})) if screens else table
    )


def whole(screen: Screen) -> Batch:
    return full_batch(screen, CPU, F64)


def traced(model: Model, batch: Batch, values: Mapping[str, Tensor]) -> Any:
    with run_on(CPU, F64):
        return pyro.poutine.trace(pyro.condition(model, data=dict(values))).get_trace(batch)


def sample_sites(model: Model, batch: Batch) -> dict[str, Any]:
    """Site -> node of a trace, without plates and deterministic sites."""
    return {
        name: node
        for name, node in traced(model, batch, {}).nodes.items()
        if node["type"] == "sample"
        and type(node["fn"]).__name__ != "_Subsample"
        and not (node["infer"] or {}).get("_deterministic")
    }


@dataclass(frozen=True)
class DenseModel:
    """Given scales and correlations: log p(rows), and the posterior mean [P] and covariance [P, P] of all locations.

    `shapes` says which sites the P values are, in order, and their shapes in the program. `log_prior` is that of the
    logarithms of the scales, and of what correlations are made of.
    """

    log_evidence: Tensor
    log_prior: Tensor
    shapes: dict[str, torch.Size]
    mean: Tensor
    covariance: Tensor


def dense_model(model: Model, batch: Batch, log_scales: Mapping[str, Tensor]) -> DenseModel:
    """Condition a program on its rows by dense linear algebra.

    The means of its Normal sites are affine in its locations; the matrix is the derivative of one run.
    """
    batch = replace(batch, local_scale=1.0, row_scale=1.0)
    sites = sample_sites(model, batch)
    observed = next(name for name, node in sites.items() if node["is_observed"])
    latent = [name for name in sites if name not in log_scales and name != observed]
    shapes = {name: sites[name]["value"].shape for name in latent}
    sizes = [shape.numel() for shape in shapes.values()]
    factors = [name for name in log_scales if isinstance(sites[name]["fn"], dist.LKJCholesky)]
    scales = {
        name: CORRELATION(value) if name in factors else value.exp().reshape(sites[name]["value"].shape)
        for name, value in log_scales.items()
    }

    def answers(flat: Tensor) -> tuple[Tensor, Tensor]:
        parts = {name: x.reshape(shapes[name]) for name, x in zip(latent, flat.split(sizes), strict=True)}
        nodes = traced(model, batch, scales | parts).nodes
        fns = [nodes[name]["fn"] for name in [*latent, observed]]
        means = torch.cat([fn.mean.expand(fn.batch_shape + fn.event_shape).reshape(-1) for fn in fns])
        return means, torch.block_diag(*(_root(fn) for fn in fns))

    zero = torch.zeros(sum(sizes), dtype=F64)
    jacobian = torch.autograd.functional.jacobian(lambda flat: answers(flat)[0], zero)
    constant, roots = answers(zero)
    n = len(zero)
    solve = torch.linalg.inv(torch.eye(n, dtype=F64) - jacobian[:n])
    prior_mean, root = solve @ constant[:n], solve @ roots[:n, :n]
    prior = root @ root.T
    design = jacobian[n:]
    rows = design @ prior @ design.T + roots[n:, n:].square()
    lfc = sites[observed]["value"]
    predicted = constant[n:] + design @ prior_mean
    gain = torch.linalg.solve(rows, design @ prior).T
    log_prior = torch.zeros((), dtype=F64)
    nodes = traced(model, batch, scales | {name: torch.zeros(shapes[name], dtype=F64) for name in latent}).nodes
    for name, value in scales.items():
        own = CORRELATION.log_abs_det_jacobian(log_scales[name], value) if name in factors else value.log()
        log_prior = log_prior + (nodes[name]["fn"].log_prob(value) + own).sum()
    return DenseModel(
        log_evidence=dist.MultivariateNormal(predicted, rows).log_prob(lfc),
        log_prior=log_prior,
        shapes=shapes,
        mean=prior_mean + gain @ (lfc - predicted),
        covariance=prior - gain @ design @ prior,
    )


def _root(fn: Any) -> Tensor:
    """Factor of the covariance of all elements of a site."""
    if isinstance(fn, dist.MultivariateNormal):
        return torch.block_diag(*fn.scale_tril.expand(fn.batch_shape + fn.scale_tril.shape[-2:]).flatten(0, -3))
    return torch.diag(fn.stddev.expand(fn.batch_shape).reshape(-1))


def random_log_scales(model: Model, batch: Batch, n_draws: int, seed: int = 3) -> dict[str, Tensor]:
    """Log-scales near log 0.6 for every positive site, over its one plate or none, draws last.

    Of an LKJCholesky site, the real numbers that torch makes a factor of.
    """
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, node in sample_sites(model, batch).items():
        if isinstance(node["fn"], dist.LKJCholesky):
            size = node["value"].shape[-1]
            found[name] = 0.5 * torch.randn((size * (size - 1) // 2, n_draws), generator=random, dtype=F64)
        elif not node["is_observed"] and not isinstance(node["fn"], dist.Normal | dist.MultivariateNormal):
            shape = (node["value"].numel(), n_draws) if node["value"].dim() else (n_draws,)
            found[name] = 0.5 * torch.randn(shape, generator=random, dtype=F64) + math.log(0.6)
    return found
