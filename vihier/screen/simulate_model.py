"""Screens drawn from a model: its Pyro program run forward, gene block by gene block.

What genes share is drawn once, and the program is conditioned on it for every block. There is no second transcription
of a model here, so a new program needs no new simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample

from vihier.errors import VihierError
from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood
from vihier.models.priors import check_prior_names, normalise_priors
from vihier.models.program import Program, load_program
from vihier.models.trace import trace_program
from vihier.posterior.layout import ordered_dims
from vihier.screen.simulate_design import LFC_LIMIT, BlockDraw, Design, GeneBlock, Stage, stream

_ADDITIVE = {
    "sigma": "Gamma(25, 50)",
    "mu_mu_alpha": "Normal(0, 0.3)",
    "sigma_mu_alpha": "HalfNormal(0.5)",
    "sigma_sigma_alpha": "HalfNormal(0.3)",
    "mu_mu_beta": "Normal(0, 0.3)",
    "sigma_mu_beta": "HalfNormal(0.2)",
    "sigma_sigma_beta": "HalfNormal(0.3)",
    "sigma_sigma_gamma": "HalfNormal(0.3)",
}
_COVARIATE = {
    **_ADDITIVE,
    "mu_gamma": "Normal(0, 0.3)",
    "mu_kappa": "Normal(0, 0.3)",
    "mu_mu_phi": "Normal(0, 0.3)",
    "mu_mu_psi": "Normal(0, 0.3)",
}
SIMULATION_PRIORS: Mapping[str, Mapping[str, str]] = {
    "additive": {**_ADDITIVE, "mu_gamma": "Normal(0, 0.3)"},
    "crossed": {
        **_ADDITIVE,
        "mu_eta": "Normal(0, 0.3)",
        "sigma_eta": "HalfNormal(0.5)",
        "mu_mu_theta": "Normal(0, 0.3)",
        "sigma_mu_theta": "HalfNormal(0.2)",
        "sigma_sigma_theta": "HalfNormal(0.3)",
    },
    "covariate": _COVARIATE,
    "covariate_correlated": _COVARIATE,
    "multi_screen": {
        **_ADDITIVE,
        "mu_gamma": "Normal(0, 0.3)",
        "sigma_zeta": "HalfNormal(0.3)",
        "sigma_omega": "HalfNormal(0.3)",
        "sigma_sigma_rho": "HalfNormal(0.3)",
    },
    "gene_lineage": {
        "sigma": "Gamma(25, 50)",
        "mu_mu_mu_gamma": "Normal(0, 0.3)",
        "sigma_mu_mu_gamma": "HalfNormal(0.5)",
        "sigma_sigma_mu_gamma": "HalfNormal(0.4)",
        "sigma_sigma_gamma": "HalfNormal(0.4)",
    },
}
"""Hyper-priors of simulated screens, model -> site -> prior.

The models' own, N(0, 3) and HN(3), are weak on purpose and make absurd screens, with |lfc| beyond 20. A fit that is to
be calibrated against simulated screens takes these as its `priors`.
"""

ROW_PRIORS: Mapping[str, str] = {
    "sigma": "Gamma(25, 100)",
    "sigma_sigma": "HalfNormal(0.2)",
    "sigma_sigma_line_screen": "HalfNormal(0.2)",
    "nu": "Gamma(80, 10)",
}
"""The same of rows that are not Normal with one noise scale; with heavier tails some would be too far out."""

# Sizes of a tiny screen, no two alike: the length of an axis then says which index it is.
_PROBE = {"lineage": 2, "hugo_symbol": 3, "sgrna": 5, "depmap_id": 7, "replicate": 13, "line_screen": 8}
_PROBE_ROWS = 11
_LOCAL_DIMS = ("sgrna", "hugo_symbol")
_GENE_LINE = ("hugo_symbol", "depmap_id")


class ModelScreen:
    """Draws a screen from a Pyro program.

    Parameters
    ----------
    design
        What is in the screen.
    model
        Name of a model, or a program ``model(batch)`` whose rows are the site ``lfc``.
    priors
        Site -> distribution or text, in the place of ``SIMULATION_PRIORS`` and of the program's own.
    likelihood
        How rows scatter.

    Raises
    ------
    VihierError
        A model or site that is not there, a prior that cannot be read, a program without rows ``lfc`` or with an index
        that a screen does not have.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self,
        design: Design,
        model: str | Callable[[Any], Any],
        priors: Mapping[str, Any] | None = None,
        likelihood: Likelihood = NORMAL,
    ) -> None:
        self.design = design
        self.categories: dict[str, np.ndarray] = {}
        self.dims: dict[str, np.ndarray] = {}
        tighter = dict(SIMULATION_PRIORS.get(model, {})) if isinstance(model, str) else {}
        if not likelihood.is_plain:
            scales = likelihood.sites
            tighter |= {name: prior for name, prior in ROW_PRIORS.items() if name in scales}
        of_model = likelihood if isinstance(model, str) else None
        self.program: Program = load_program(model, {**tighter, **normalise_priors(priors)}, of_model)
        if likelihood.noise == "replicate":
            replicates = design.lines[design.line_of_replicate] + "|" + design.replicates
            self.dims = {"replicate": replicates, "line_screen": design.lines}
        if self.program.covariates:
            raise VihierError(
                f"model {self.program.name!r}: it reads {', '.join(self.program.covariates)}, which a simulated screen "
                "lacks; simulate from --model additive, or draw from a fit with 'vihier predict --draws-out'"
            )
        self.about: dict[str, Any] = {"model": self.program.name, "priors": dict(self.program.priors)}
        probe = _run(self.program, _probe_batch(), design.seed, 0)
        check_prior_names(self.program.priors, [name for name in probe.sampled if name != "lfc"])
        if "lfc" not in probe.sampled:
            raise VihierError(f"model {self.program.name!r}: has no site 'lfc' for the rows, so no screen can be drawn")
        self._axes = {name: _axes(self.program.name, name, value) for name, value in probe.variables.items()}
        variables = {name: tuple(ordered_dims(axes)) for name, axes in self._axes.items()}
        if variables.get("effect") == _GENE_LINE:
            variables |= {"effect_gene": _GENE_LINE[:1], "effect_dev": _GENE_LINE}
        self.variables: Mapping[str, tuple[str, ...]] = variables
        first = next(design.blocks())
        one_row = np.zeros(1, dtype=np.int64)
        drawn = _run(self.program, self._batch(first, one_row, one_row), design.seed, 0)
        shared = [name for name, axes in self._axes.items() if not set(axes) & set(_LOCAL_DIMS)]
        self._shared = {name: drawn.variables[name] for name in shared}
        self._conditions = {name: drawn.sampled[name] for name in shared if name in drawn.sampled}

    def shared_truth(self) -> dict[str, np.ndarray]:
        """Return the variables that no gene owns."""
        return {name: self._shaped(name, value, None) for name, value in self._shared.items()}

    def draw(self, block: GeneBlock, sgrna: np.ndarray, replicate: np.ndarray) -> BlockDraw:
        """Draw the rows of a block, given what genes share.

        Parameters
        ----------
        block
            The genes.
        sgrna, replicate
            Of each row: the sgRNA's position within the block, and the replicate. Shape [N].

        Raises
        ------
        VihierError
            Rows beyond |lfc| = 20.
        """
        batch = self._batch(block, sgrna, replicate)
        drawn = _run(self.program, batch, self.design.seed, block.number + 1, self._conditions)
        lfc = drawn.sampled["lfc"].numpy().astype(np.float64)
        if len(lfc) and not np.abs(lfc).max() <= LFC_LIMIT:
            raise VihierError(
                f"model {self.program.name!r}: a row has lfc {lfc[np.abs(lfc).argmax()]:.4g}, beyond the {LFC_LIMIT:g} "
                "that a screen may hold; give tighter priors, or another seed"
            )
        local = {name: value for name, value in drawn.variables.items() if name not in self._shared}
        truth = {name: self._shaped(name, value, block) for name, value in local.items()}
        if "effect_dev" in self.variables:
            truth["effect_gene"] = truth["effect"].mean(axis=1)
            truth["effect_dev"] = truth["effect"] - truth["effect_gene"][:, None]
        return BlockDraw(lfc, {}, truth)

    def _batch(self, block: GeneBlock, sgrna: np.ndarray, replicate: np.ndarray) -> Batch:
        """Return a block as a program sees it, its rows still to be drawn."""
        design = self.design
        return Batch(
            n_genes=len(design.genes),
            n_sgrnas=len(design.sgrnas),
            n_lines=len(design.lines),
            n_rows=len(design.sgrnas) * len(design.replicates),
            gene_idx=torch.arange(block.genes.start, block.genes.stop),
            sgrna_idx=torch.arange(block.sgrnas.start, block.sgrnas.stop),
            line_idx=torch.arange(len(design.lines)),
            gene=torch.from_numpy(block.gene[sgrna]),
            sgrna=torch.from_numpy(sgrna),
            line=torch.from_numpy(design.line_of_replicate[replicate]),
            lfc=None,
            gene_of_sgrna=torch.from_numpy(block.gene),
            lineages=len(design.lineages),
            lineages_of_lines=torch.from_numpy(design.lineage_of_line),
            replicate=torch.from_numpy(replicate),
            line_screens_of_replicates=torch.from_numpy(design.line_of_replicate),
            sizes={"replicate": len(design.replicates), "line_screen": len(design.lines)},
        )

    def _shaped(self, name: str, value: torch.Tensor, block: GeneBlock | None) -> np.ndarray:
        """Bring a variable from the program's shape, with axes of length one, to its dims in the file's order."""
        sizes = {"lineage": len(self.design.lineages), "depmap_id": len(self.design.lines)}
        sizes |= {"replicate": len(self.design.replicates), "line_screen": len(self.design.lines)}
        if block is not None:
            sizes |= {"hugo_symbol": block.n_genes, "sgrna": block.n_sgrnas}
        axes = self._axes[name]
        plain = value.numpy().reshape([sizes[dim] for dim in axes])
        return plain.transpose([axes.index(dim) for dim in self.variables[name]])


@dataclass(frozen=True)
class _Run:
    """One run of a program: what it sampled, rows included, and its variables, derived ones included."""

    sampled: dict[str, torch.Tensor]
    variables: dict[str, torch.Tensor]


@torch.no_grad()
def _run(
    program: Program, batch: Batch, seed: int, number: int, conditions: Mapping[str, torch.Tensor] | None = None
) -> _Run:
    """Run a program forward, given the values of some sites, on the random stream of that number."""
    model = poutine.condition(program.model, data=dict(conditions)) if conditions else program.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, Stage.TORCH, number).integers(1 << 63)))
        nodes = trace_program(model, batch).nodes
    sites = {name: node for name, node in nodes.items() if node["type"] == "sample" and not site_is_subsample(node)}
    fixed = {name for name, node in sites.items() if (node["infer"] or {}).get("_deterministic")}
    values: dict[str, Any] = {name: node["value"] for name, node in sites.items()}
    sampled = {name: value for name, value in values.items() if name not in fixed}
    variables = {name: value for name, value in values.items() if name != "lfc"}
    if program.derived is not None:
        variables |= program.derived(variables, batch)
    return _Run(sampled, variables)


def _probe_batch() -> Batch:
    """Return a tiny screen whose genes, sgRNAs, lines, lineages and rows differ in number."""
    n_genes, n_sgrnas, n_lines = _PROBE["hugo_symbol"], _PROBE["sgrna"], _PROBE["depmap_id"]
    gene_of_sgrna = torch.arange(n_sgrnas) % n_genes
    sgrna = torch.arange(_PROBE_ROWS) % n_sgrnas
    return Batch(
        n_genes=n_genes,
        n_sgrnas=n_sgrnas,
        n_lines=n_lines,
        n_rows=_PROBE_ROWS,
        gene_idx=torch.arange(n_genes),
        sgrna_idx=torch.arange(n_sgrnas),
        line_idx=torch.arange(n_lines),
        gene=gene_of_sgrna[sgrna],
        sgrna=sgrna,
        line=torch.arange(_PROBE_ROWS) % n_lines,
        lfc=None,
        gene_of_sgrna=gene_of_sgrna,
        lineages=_PROBE["lineage"],
        lineages_of_lines=torch.arange(n_lines) % _PROBE["lineage"],
        replicate=torch.arange(_PROBE_ROWS) % _PROBE["replicate"],
        line_screens_of_replicates=torch.arange(_PROBE["replicate"]) % _PROBE["line_screen"],
        sizes={name: _PROBE[name] for name in ("replicate", "line_screen")},
    )


def _axes(model: str, name: str, value: torch.Tensor) -> tuple[str, ...]:
    """Read the dims of a variable's axes, those of length one left out, off its shape in the probe."""
    dim_of_size = {size: dim for dim, size in _PROBE.items()}
    sizes = [size for size in value.shape if size != 1]
    if any(size not in dim_of_size for size in sizes) or len(set(sizes)) != len(sizes):
        raise VihierError(
            f"model {model!r}: site {name!r} has the shape {tuple(value.shape)} on a screen of {_PROBE}, {_PROBE_ROWS} "
            "rows; only sites indexed by these (not by rows) can be drawn gene block by gene block"
        )
    return tuple(dim_of_size[size] for size in sizes)
