"""A Pyro program with what vihier knows about it beyond the code: its name and its derived variables."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import vihier.models
from vihier.errors import VihierError
from vihier.models.batch import Batch
from vihier.models.likelihood import NORMAL, Likelihood
from vihier.models.priors import normalise_priors, with_priors


@dataclass(frozen=True)
class Program:
    """A Pyro program `model(batch)` ready to be fitted.

    Attributes
    ----------
    name : str
        Name of the model, or of the user's function.
    model : callable
        The program, its priors overridden where asked for.
    priors : mapping
        The overrides: site -> text such as `Normal(3, 1)`.
    derived : callable or None
        Given one draw of the sites and a batch, the variables derived from them.
    not_identified : mapping
        Variable -> why the data do not identify it.
    likelihood : Likelihood
        How the rows of one of vihier's models scatter; a user's program says so itself.
    covariates : mapping
        Columns that are prepared before the program sees them: name -> preparation; see `vihier.screen.prepared`.
    labels : mapping
        Labels of dims that are the program's own.
    known : bool
        Whether it comes with vihier, whose tests hold it to what guides read off it for every gene.
    """

    name: str
    model: Callable[[Batch], Any]
    priors: Mapping[str, str] = field(default_factory=dict)
    derived: Callable[[Mapping[str, torch.Tensor], Batch], dict[str, torch.Tensor]] | None = None
    not_identified: Mapping[str, str] = field(default_factory=dict)
    likelihood: Likelihood = NORMAL
    covariates: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: bool = False


def model_names() -> list[str]:
    """List the models that come with vihier: the modules of `vihier.models` that define `model`."""
    names = [module.name for module in pkgutil.iter_modules(vihier.models.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"vihier.models.{name}"), "model")]


def load_program(
    model: str | Callable[[Batch], Any] | Program,
    priors: Mapping[str, Any] | None = None,
    likelihood: Likelihood | None = None,
    covariates: Mapping[str, str] | None = None,
) -> Program:
    """Return the program of a model named, or wrap a user's own `def model(batch)`.

    Parameters
    ----------
    likelihood : Likelihood, optional
        Of a model named; Normal rows with one noise scale where it is not given.
    covariates : mapping, optional
        Columns to prepare; of a model named that has such terms, those that it is to have (all where not given).

    Raises
    ------
    VihierError
        If there is no model of that name, a prior cannot be read, or a likelihood is given for a program that has one.
    """
    overrides = normalise_priors(priors)
    if likelihood is not None and not isinstance(model, str):
        raise VihierError("likelihood: a program of your own says itself how rows scatter; leave it and noise out")
    if isinstance(model, Program):
        return replace(
            model,
            model=with_priors(model.model, overrides),
            priors={**model.priors, **overrides},
            covariates={**model.covariates, **(covariates or {})},
        )
    if callable(model):
        name = getattr(model, "__name__", type(model).__name__)
        return Program(name, with_priors(model, overrides), overrides, covariates=dict(covariates or {}))
    names = model_names()
    if model not in names:
        raise VihierError(f"model {model!r}: there is none of that name; choose one of {', '.join(names)}")
    module = importlib.import_module(f"vihier.models.{model}")
    chosen = likelihood or NORMAL
    program = functools.partial(module.model, likelihood=chosen)
    terms: Mapping[str, str] = getattr(module, "COVARIATES", {})
    if terms:
        terms = terms if covariates is None else covariates
        program = functools.partial(program, terms=tuple(terms))
    return Program(
        name=model,
        model=with_priors(program, overrides),
        priors=overrides,
        derived=getattr(module, "derived", None),
        not_identified=getattr(module, "NOT_IDENTIFIED", {}),
        likelihood=chosen,
        covariates=dict(terms),
        labels=module.labels(tuple(terms)) if hasattr(module, "labels") else {},
        known=True,
    )
