"""The distribution that a program gives each row, for many draws at once; sites that are not known are sampled.

A program samples parents before children. Run with the values of what is known, and each element that is not known
drawn from its prior given the values of its parents, it says what it predicts of rows of new sgRNAs, lines or genes:
no data bear on a new element but through its parents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger

from vihier.guides.probe import base_distribution
from vihier.inference.draws import Draws, draw_by_draw
from vihier.models.batch import Batch


@dataclass(frozen=True)
class Run:
    """What a program says of some rows, for N draws.

    Attributes
    ----------
    rows
        Distribution of each row, its batch shape [N, rows].
    completed
        The sites asked for, with a value for every element, [N, *shape].
    """

    rows: torch.distributions.Distribution
    completed: dict[str, torch.Tensor]


class _FillIn(Messenger):
    """Give sites the values that are known, and draw every other element from the prior that the program gives it."""

    def __init__(
        self,
        observed: str,
        values: Mapping[str, torch.Tensor],
        known: Mapping[str, torch.Tensor | None],
        by_icdf: bool,
    ) -> None:
        super().__init__()
        self.observed, self.values, self.known, self.by_icdf = observed, values, known, by_icdf

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name, fn = msg["name"], msg["fn"]
        if name == self.observed:
            msg["value"] = torch.zeros(fn.batch_shape + fn.event_shape)  # only its distribution is wanted
        if name not in self.known:
            return
        mask = self.known[name]
        if mask is not None and bool(mask.all()):
            msg["value"] = self.values[name]
            return
        drawn = self._draw(fn)
        msg["value"] = drawn if mask is None else torch.where(mask, self.values[name], drawn)

    def _draw(self, fn: Any) -> torch.Tensor:
        if not self.by_icdf:
            return fn()
        # Pyro's samplers fill tensors in place, which torch's vmap refuses; uniform numbers it has for each draw.
        base = base_distribution(fn)
        uniform = torch.rand(fn.batch_shape + fn.event_shape).clamp(1e-12, 1 - 1e-12)
        return base.icdf(uniform)


def run_program(
    model: Callable[[Batch], Any],
    batch: Batch,
    observed: str,
    values: Draws,
    known: Mapping[str, torch.Tensor | None],
    completed: Collection[str] = (),
    n_draws: int = 1,
) -> Run:
    """Run a program on a batch for many draws of its sites.

    Parameters
    ----------
    model
        The program.
    batch
        Which rows; its `lfc` is not looked at.
    observed
        The site of the rows.
    values
        Site -> draws, [N, *shape in the batch].
    known
        Every latent site -> which of its elements `values` knows, bool [*shape]; None where it knows none.
    completed
        Sites whose values are wanted.
    n_draws
        N; of use where no value is known.

    Returns
    -------
    Run
    """
    empty = replace(batch, lfc=None, local_scale=1.0, row_scale=1.0)
    families: list[type[Any]] = []

    def once(draw: dict[str, torch.Tensor], by_icdf: bool) -> dict[str, torch.Tensor]:
        with pyro.poutine.trace() as tracer, _FillIn(observed, draw, known, by_icdf):
            model(empty)
        nodes = tracer.trace.nodes
        fn: Any = nodes[observed]["fn"]
        base = base_distribution(fn)
        families.append(type(base))
        arguments = {key: getattr(base, key) for key in base.arg_constraints if key in vars(base)}
        found = {f"argument {key}": value.expand(fn.batch_shape) for key, value in arguments.items()}
        return found | {name: nodes[name]["value"] for name in completed}

    draws = {**values, "": torch.zeros(n_draws)}
    with torch.no_grad():
        try:
            found: Draws = torch.vmap(lambda draw: once(draw, True), randomness="different")(dict(draws))
        except RuntimeError as error:
            # A prior without an inverse distribution function, or a program that looks at its values.
            if not isinstance(error, NotImplementedError) and "vmap" not in str(error):
                raise
            found = draw_by_draw(lambda draw: once(draw, False), draws)
    arguments = {key.removeprefix("argument "): value for key, value in found.items() if key.startswith("argument ")}
    rows = families[-1](**arguments, validate_args=False)
    return Run(rows, {name: found[name] for name in completed})
