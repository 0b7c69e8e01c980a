"""`vihier models`: the models that come with vihier, their formulas and their graphs."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Annotated

import typer

from vihier.commands.arguments import AsJson
from vihier.errors import VihierError


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model, to be described.")] = None,
    graph: Annotated[
        Path | None, typer.Option(metavar="OUT.dot|OUT.svg", help="Draw the model's graph; .svg needs graphviz.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models, describe one, or draw its graph.

    [b]Examples[/b]

    vihier models
    vihier models additive
    vihier models additive --graph additive.dot
    """
    if graph is not None and name is None:
        raise VihierError("--graph: of which model? name it: vihier models additive --graph additive.dot")
    from vihier.models.program import load_program, model_names

    programs = {each: load_program(each) for each in (model_names() if name is None else [name])}
    about = {each: {"description": _described(each)} for each in programs}
    if name is not None and graph is not None:
        from vihier.models.made_up import with_made_up_columns
        from vihier.plots.graph import small_batch, write_graph

        batch = with_made_up_columns(small_batch(), programs[name].covariates)
        about[name]["graph"] = str(write_graph(programs[name].model, graph, batch=batch))
    if as_json:
        typer.echo(json.dumps(about, indent=2, ensure_ascii=False))
    elif name is not None:
        typer.echo(about[name]["description"] if graph is None else about[name]["graph"])
    else:
        width = max(map(len, about))
        for each, told in about.items():
            typer.echo(f"{each:<{width}}  {told['description'].splitlines()[0]}")


def _described(name: str) -> str:
    return inspect.getdoc(importlib.import_module(f"vihier.models.{name}")) or name
