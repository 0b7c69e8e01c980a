"""The loop: what it says when cut short, when something breaks, and where it ends."""

from __future__ import annotations

import io

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from ragged import CPU, F64, ragged_screen

from vihier.errors import FitError
from vihier.inference.batches import GeneBlocks, RowParts, gene_blocks
from vihier.inference.mean_field_fit import MeanFieldFit, fit_mean_field
from vihier.inference.progress import PlainLines, Silent
from vihier.inference.svi import Schedule, run_svi
from vihier.models.batch import Batch
from vihier.models.program import load_program

QUICK = Schedule(window=80, max_windows=2)


def gene_means(batch: Batch) -> None:
    """Gene means around a shared one, and noise."""
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with batch.local():
        with pyro.plate("gene", len(batch.gene_idx), dim=-1):
            mu = pyro.sample("mu", dist.Normal(level, 0.5))
        with pyro.plate("row", len(batch.gene), dim=-1):
            pyro.sample("lfc", dist.Normal(mu[batch.gene], sigma), obs=batch.lfc)


def fitted(batches: GeneBlocks | RowParts, max_steps: int | None = None, seed: int = 0) -> MeanFieldFit:
    return fit_mean_field(
        load_program(gene_means),
        batches.screen,
        batches=batches,
        seed=seed,
        device=CPU,
        dtype=F64,
        progress=Silent(),
        max_steps=max_steps,
        schedule=QUICK,
    )


def test_a_fit_stopped_after_five_steps_says_that_it_did_not_converge() -> None:
    fit = fitted(gene_blocks(ragged_screen(), 5), max_steps=5)
    assert not fit.converged
    assert fit.reason.startswith("stopped by max_steps after 5 steps")
    assert fit.history["step"].tolist() == [1, 2, 3, 4, 5]


def test_left_alone_it_converges_and_says_by_which_rule() -> None:
    fit = fitted(gene_blocks(ragged_screen(), 5))
    assert fit.converged and "R-hat at most 1.1" in fit.reason
    history = fit.history
    assert len(history["step"]) == len(history["elbo_per_row"]) == len(history["learning_rate"])
    assert (np.diff(history["learning_rate"]) <= 0).all() and len(history["window_step"]) == len(history["r_hat"])


def test_gene_blocks_and_parts_of_the_rows_end_where_the_whole_screen_does() -> None:
    screen = ragged_screen()
    ends = []
    for batches in (gene_blocks(screen, 5), gene_blocks(screen, 2), RowParts(screen, 60, 0, dtype=F64)):
        guide = fitted(batches).guide
        tables = [(table, torch.arange(n)) for table, n in (("shared", 1), ("gene", 5))]
        values = [[x.detach().flatten() for x in guide.locations(*table)] for table in tables]
        ends.append([torch.cat(parts) for parts in zip(*values, strict=True)])
    (loc, sd), *others = ends
    for other_loc, other_sd in others:
        # The last phase's iterates spread by some 0.05 of their posterior sd, their average less; noise of batches of a
        # third of the rows is within 0.1.
        assert ((other_loc - loc) / sd).abs().max() < 0.15
        assert (other_sd / sd - 1).abs().max() < 0.15


class _Broken:
    """An optimiser whose ELBO or parameter goes wrong at a given step."""

    names = ("level",)

    def __init__(self, elbos: dict[int, float], parameter: float = 0.0) -> None:
        self.elbos, self.parameter, self.steps = elbos, parameter, 0

    def step(self, batch: Batch, number: int, rate: float) -> float:
        self.steps += 1
        return self.elbos.get(self.steps, -1.0)

    def watched(self) -> np.ndarray:
        return np.array([self.parameter])

    def start_average(self) -> None: ...

    def collect(self, batch: Batch) -> None: ...

    def use_average(self) -> None: ...


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (_Broken({7: float("nan")}), "at step 7: the ELBO is nan"),
        (_Broken({3: float("-inf")}), "at step 3: the ELBO is -inf"),
        (_Broken({12: -1e6}), "at step 12: the ELBO fell from -1 to -1e[+]06"),
        (_Broken({}, float("nan")), "at step 1: a variational parameter is not finite"),
    ],
)
def test_what_is_not_a_number_or_diverges_ends_the_fit_naming_the_step(broken: _Broken, what: str) -> None:
    batches = gene_blocks(ragged_screen(), 5)
    with pytest.raises(FitError, match=what) as error:
        run_svi(broken, batches, seed=0, progress=Silent())
    assert "\n" not in str(error.value) and "try" in str(error.value)


def test_nan_in_the_program_is_an_error_and_not_a_posterior() -> None:
    calls = 0

    def breaks(batch: Batch) -> None:
        nonlocal calls
        calls += 1
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with batch.local(), pyro.plate("row", len(batch.gene), dim=-1):
            mean = level * (float("nan") if calls > 40 else 1.0)
            pyro.sample("lfc", dist.Normal(mean, 1.0), obs=batch.lfc)

    batches = gene_blocks(ragged_screen(), 5)
    with pytest.raises(FitError, match=r"failed at step \d+: the ELBO is nan"), pytest.warns(UserWarning, match="NaN"):
        fit_mean_field(
            load_program(breaks), batches.screen, batches=batches, seed=0, device=CPU, dtype=F64, progress=Silent()
        )


def test_a_window_that_never_settles_is_named_in_the_reason() -> None:
    class Drifts(_Broken):
        def watched(self) -> np.ndarray:
            return np.array([0.01 * self.steps])

    plan = Schedule(rates=(0.1, 0.01), window=40, max_windows=2)
    outcome = run_svi(Drifts({}), gene_blocks(ragged_screen(), 5), seed=0, progress=Silent(), schedule=plan)
    assert not outcome.converged and "level still moves" in outcome.reason
    assert outcome.history["step"][-1] == 2 * 40 + 2 * 80


def test_plain_lines_say_stage_step_and_figures_now_and_then() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines.start("fitting", 1000)
    for step in range(1, 1001):
        lines.update(step, {"elbo_per_row": -0.5})
    said = stream.getvalue().splitlines()
    assert said[0] == "vihier: fitting" and said[-1].startswith("vihier: fitting 1000/1000") and len(said) <= 12
    assert "elbo per row -0.5" in said[-1]
