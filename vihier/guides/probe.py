"""Run a screen's Pyro program with given values of its sites and read what it does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from pyro import poutine

from vihier.errors import VihierError
from vihier.guides.mixed_model import Plates, from_program, plates_of_batch, to_program
from vihier.guides.vectors import component_distributions, is_factor, is_vector, random_factor
from vihier.models.batch import Batch

Arguments = dict[str, torch.Tensor]
ROWS_PROBED = 20_000


def refusal(site: str, reason: str) -> VihierError:
    """Return the one-line error for a program outside the family of the structured guide."""
    return VihierError(f"site {site!r}: {reason}; guide 'structured' does not apply, use guide='mean_field'")


def base_distribution(fn: Any) -> Any:
    """Unwrap what plates, masks and `to_event` put around a distribution."""
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        fn = fn.base_dist
    return fn


def few_genes(batch: Batch) -> Batch:
    """Cut a batch of more than `ROWS_PROBED` rows down to its first two genes."""
    if len(batch.gene) <= ROWS_PROBED:
        return batch
    rows, sgrnas = batch.gene < 2, batch.gene_of_sgrna < 2
    position = sgrnas.cumsum(0) - 1
    return replace(
        batch,
        gene_idx=batch.gene_idx[:2],
        sgrna_idx=batch.sgrna_idx[sgrnas],
        gene=batch.gene[rows],
        sgrna=position[batch.sgrna[rows]],
        line=batch.line[rows],
        lfc=None if batch.lfc is None else batch.lfc[rows],
        gene_of_sgrna=batch.gene_of_sgrna[sgrnas],
        covariates={name: values[rows] for name, values in batch.covariates.items()},
        replicate=None if batch.replicate is None else batch.replicate[rows],
    )


def _on_cpu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.cpu().double() if value.is_floating_point() else value.cpu()


class Prober:
    """Runs a program with given values of its latent sites and reads the arguments of every site.

    Parameters
    ----------
    model : callable
        The Pyro program.
    batch : Batch
        What it is run on, brought to the CPU and to float64; its scales are set to 1.
    made_up : bool
        Whether its covariates are replaced by random numbers, so that a program in whose answers they matter is found
        out whatever they are in this batch.

    Attributes
    ----------
    sites : dict
        Site -> its node in a trace of the program, in the program's order; neither plates nor deterministic sites. The
        components of a vector are sites; see `vihier.guides.vectors`.
    vectors : dict
        Vector site -> its components.
    factors : dict
        LKJCholesky site -> the factor that it is held at while its value is not given.
    observed : str
        The site of the rows.
    plates, dims : dict
        Site -> its plates, in the order of `PLATES`, and their dims in the program; those of the rows are `("row",)`.

    Raises
    ------
    VihierError
        If a site has an unknown or sequential plate, an axis that is no plate's, is a `pyro.factor`, a `pyro.param` or
        a second observed site.
    """

    def __init__(self, model: Callable[[Batch], Any], batch: Batch, *, made_up: bool = True) -> None:
        self.generator = torch.Generator().manual_seed(20)
        batch = replace(batch, **{field.name: _on_cpu(getattr(batch, field.name)) for field in fields(batch)})
        batch = replace(batch, covariates={name: _on_cpu(values) for name, values in batch.covariates.items()})
        covariates = batch.covariates
        if made_up:
            covariates = {name: self._made_up(values) for name, values in covariates.items()}
        self.model, self.runs = model, 0
        self.batch = replace(batch, covariates=covariates, local_scale=1.0, row_scale=1.0)
        trace = self._trace({})
        for name, node in trace.nodes.items():
            if node["type"] == "param":
                raise refusal(name, "it is a pyro.param, which nothing would optimise; make it a sample site")
        sites = {
            name: node
            for name, node in trace.nodes.items()
            if node["type"] == "sample" and not _is_subsample(node) and not (node["infer"] or {}).get("_deterministic")
        }
        self.of_program = tuple(sites)
        self.vectors = {
            name: tuple(component_distributions(name, node["fn"])) for name, node in sites.items() if is_vector(node)
        }
        sizes = {name: node["fn"].event_shape[-1] for name, node in sites.items() if is_factor(node)}
        self.factors = {name: random_factor(size, self.generator) for name, size in sizes.items()}
        self.sites = self._components(sites)
        self.observed = self._only_observed()
        self.plates: dict[str, Plates] = {}
        self.dims: dict[str, tuple[int, ...]] = {}
        for name, node in self.sites.items():
            self._read_plates(name, node)

    def _only_observed(self) -> str:
        observed = [name for name, node in self.sites.items() if node["is_observed"]]
        for name in observed:
            if type(self.sites[name]["fn"]).__name__ == "Unit":
                raise refusal(name, "it is a pyro.factor")
        if not observed:
            raise VihierError("model: it has no observed site; give pyro.sample(..., obs=batch.lfc)")
        if len(observed) > 1:
            raise refusal(observed[1], f"it is observed, and so is {observed[0]!r}")
        return observed[0]

    def _made_up(self, values: torch.Tensor) -> torch.Tensor:
        """Return other values of the same kind: positive numbers, 0 and 1, or the codes in another order."""
        order = torch.randperm(len(values), generator=self.generator)
        if not values.is_floating_point():
            return values[order]
        if bool(((values == 0) | (values == 1) | values.isnan()).all()):
            return (order % 2).to(values.dtype)
        return torch.randn(len(values), generator=self.generator, dtype=values.dtype).exp()

    def _read_plates(self, name: str, node: Any) -> None:
        frames = {frame.name: frame for frame in node["cond_indep_stack"]}
        known = ("row",) if node["is_observed"] else plates_of_batch(self.batch)
        for plate, frame in frames.items():
            if plate not in known:
                raise refusal(name, f"its plate {plate!r} is none of {', '.join(known)}")
            if frame.dim is None:
                raise refusal(name, f"its plate {plate!r} is a loop")
            if frame.size != self.size(plate):
                raise refusal(name, f"its plate {plate!r} has {frame.size} elements, the batch {self.size(plate)}")
        self.plates[name] = tuple(plate for plate in known if plate in frames)
        self.dims[name] = tuple(frames[plate].dim for plate in self.plates[name])
        if node["fn"].event_shape:
            raise refusal(name, "it is a vector (to_event)")
        if node["fn"].batch_shape.numel() != torch.Size([frame.size for frame in frames.values()]).numel():
            raise refusal(name, f"its shape {tuple(node['fn'].batch_shape)} is not that of its plates")

    def _components(self, nodes: Mapping[str, Any]) -> dict[str, Any]:
        """Put each vector's components in its place, and leave out what correlates them."""
        found: dict[str, Any] = {}
        for name, node in nodes.items():
            if name in self.vectors:
                found |= {x: {**node, "fn": fn} for x, fn in component_distributions(name, node["fn"]).items()}
            elif name not in self.factors:
                found[name] = node
        return found

    def random(self, name: str) -> torch.Tensor:
        """Draw standard normals over a site's plates, float64."""
        shape = [self.size(plate) for plate in self.plates[name]]
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def size(self, plate: str) -> int:
        """Return the number of elements of a plate in the batch."""
        if plate in ("gene", "sgrna", "line"):
            return len(getattr(self.batch, f"{plate}_idx"))
        return len(self.batch.gene) if plate == "row" else self.batch.size_of(plate)

    def _trace(self, data: dict[str, torch.Tensor]) -> Any:
        # Another seed each time, so that a program with random numbers of its own does not look constant.
        self.runs += 1
        try:
            with poutine.block(), torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.runs)
                return poutine.trace(poutine.condition(self.model, data=data)).get_trace(self.batch)
        except VihierError as error:
            # Pyro adds a table of shapes, lines of it, to what a program raises.
            raise VihierError(str(error).splitlines()[0]) from None

    def trace(self, values: dict[str, torch.Tensor]) -> Any:
        """Trace the program with its latent sites at `values`, tables over the sites' plates, and factors."""
        data = {
            name: to_program(value, self.plates[name], self.dims[name])
            for name, value in values.items()
            if name not in self.factors
        }
        for name, components in self.vectors.items():
            data[name] = torch.stack([data.pop(component) for component in components], -1)
        return self._trace(data | {name: values.get(name, held) for name, held in self.factors.items()})

    def run(self, values: dict[str, torch.Tensor]) -> dict[str, Arguments]:
        """Site -> argument of its distribution -> value over the site's plates, with the latent sites at `values`."""
        nodes = self.trace(values).nodes
        found = {}
        for name, node in self._components({name: nodes[name] for name in self.of_program}).items():
            fn, shape = base_distribution(node["fn"]), node["fn"].batch_shape
            found[name] = {
                key: from_program(getattr(fn, key).expand(shape), self.plates[name], self.dims[name])
                for key in fn.arg_constraints
            }
        return found


def _is_subsample(node: Any) -> bool:
    """Whether a trace node is the index of a plate, not a random variable."""
    return type(node["fn"]).__name__ == "_Subsample"
