"""Which covariates a fit has and how they are prepared: those of its model, and those asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks
from vihier.inference.columns import columns_read
from vihier.inference.device import run_on
from vihier.models.program import model_names
from vihier.screen.prepared import INDICATOR, OFF, Preparation, PreparedCovariate

if TYPE_CHECKING:
    from vihier.models.program import Program
    from vihier.posterior.reader import Posterior
    from vihier.posterior.writer import PosteriorWriter
    from vihier.screen import Screen
    from vihier.store.store import ScreenStore

GROUP = "covariates"


def covariates_of_model(model: object) -> dict[str, str]:
    """Return the terms that a model named has, each with how its column is prepared unless asked otherwise."""
    if not isinstance(model, str) or model not in model_names():
        return {}
    return dict(getattr(importlib.import_module(f"vihier.models.{model}"), "COVARIATES", {}))


def check_covariates(model: object, asked: Mapping[str, str | None] | None) -> None:
    """Refuse covariates that a model does not have, or whose preparation cannot be read.

    Raises
    ------
    VihierError
        Naming the column.
    """
    terms = covariates_of_model(model)
    for column, text in (asked or {}).items():
        if isinstance(model, str) and column not in terms:
            there = f"it has {', '.join(terms)}" if terms else "it has none"
            raise VihierError(f"covariate {column!r}: model {model!r} has no such term; {there}")
        if text not in (None, OFF):
            Preparation.parse(column, str(text))


def chosen_covariates(
    model: object, asked: Mapping[str, str | None] | None, columns: Iterable[str]
) -> dict[str, str] | None:
    """Return the preparations of a fit's covariates, by column; None for a model that has none.

    A term of a model is there where the screen has its column, unless it is switched off.

    Raises
    ------
    VihierError
        If no term of a model is left.
    """
    terms, asked, columns = covariates_of_model(model), asked or {}, set(columns)
    if not isinstance(model, str):
        return {column: str(text) for column, text in asked.items() if text not in (None, OFF)} or None
    if not terms:
        return None
    chosen = {column: asked.get(column, text if column in columns else OFF) for column, text in terms.items()}
    found = {column: str(text) for column, text in chosen.items() if text not in (None, OFF)}
    if not found:
        raise VihierError(
            f"model {model!r}: none of its columns {', '.join(terms)} is in the screen or left on; add one, or take "
            "--model additive"
        )
    return found


def fit_covariates(program: Program, screen: Screen) -> dict[str, PreparedCovariate]:
    """Learn the preparations of a program's covariates from a screen."""
    return {
        column: PreparedCovariate.fit(column, Preparation.parse(column, text), screen)
        for column, text in program.covariates.items()
    }


def has_row_design(program: Program, screen: Screen | ScreenStore) -> bool:
    """Whether a program, on a screen, has covariates in its rows' means, or tables by screen or batch.

    Raises
    ------
    VihierError
        If the program is outside the family of the structured guide, or reads a column that the screen does not have.
    """
    from vihier.guides.structure import read_structure

    probe = GeneBlocks(screen, 2, "cpu", torch.float64)[0]
    with run_on(torch.device("cpu"), torch.float64):
        columns_read(program.model, probe)
        return read_structure(program.model, probe).design is not None


def without_indicators(program: Program, columns: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of the screen among those that a program reads."""
    added = {column + INDICATOR for column in program.covariates}
    return tuple(column for column in columns if column not in added)


def write_covariates(writer: PosteriorWriter, covariates: Mapping[str, PreparedCovariate]) -> None:
    """Write what was learned, in a group of its own."""
    values: dict[str, Any] = {}
    dims: dict[str, tuple[str, ...]] = {}
    for column, prepared in covariates.items():
        for number, (learned, (name, _)) in enumerate(zip(prepared.learned, prepared.preparation.steps, strict=True)):
            if name == "centre":
                values[f"{column}_{number}_median"], dims[f"{column}_{number}_median"] = learned, ()
            elif name == "zscore":
                for what, each in zip(("mean", "sd"), learned, strict=True):
                    values[f"{column}_{number}_{what}"], dims[f"{column}_{number}_{what}"] = each, ("hugo_symbol",)
    if values:
        writer.write_group(GROUP, values, dims)


def read_covariates(posterior: Posterior) -> dict[str, PreparedCovariate]:
    """Read the preparations of a fit."""
    texts = posterior.config.get("covariates", {})
    if not texts:
        return {}
    group = posterior.group(GROUP) if posterior.has_group(GROUP) else {}
    genes = np.asarray(posterior.labels("hugo_symbol")).astype(object)
    found = {}
    for column, text in texts.items():
        preparation, learned = Preparation.parse(column, text), []
        for number, (name, _) in enumerate(preparation.steps):
            parts = {"centre": ("median",), "zscore": ("mean", "sd")}.get(name, ())
            read = [np.asarray(group[f"{column}_{number}_{part}"]) for part in parts]
            learned.append(read[0] if len(read) == 1 else np.stack(read) if read else np.zeros(0))
        found[column] = PreparedCovariate(column, preparation, tuple(learned), genes)
    return found
