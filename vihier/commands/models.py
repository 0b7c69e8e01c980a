"""`vihier models`: the models that come with vihier, their formulas and their graphs."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Annotated

import typer

from vihier.errors import VihierError


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model, to be described.")] = None,
    graph: Annotated[
        Path | None, typer.Option(metavar="OUT.dot|OUT.svg", help="Draw the model's graph; .svg needs graphviz.")
    ] = None,
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

    if name is None:
        width = max(map(len, model_names()))
        typer.echo("\n".join(f"{each:<{width}}  {_described(each)[0]}" for each in model_names()))
        return
    program = load_program(name)
    if graph is None:
        typer.echo("\n".join(_described(name)))
        return
    from vihier.plots.graph import write_graph

    typer.echo(write_graph(program.model, graph))


def _described(name: str) -> list[str]:
    module = importlib.import_module(f"vihier.models.{name}")
    return (inspect.getdoc(module) or name).splitlines()
