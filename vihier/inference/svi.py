"""Stochastic variational inference: phases of falling learning rate, then an average of iterates.

A phase lasts until its iterates are stationary by the rule of `vihier.inference.convergence`, or its share of the steps
is used up; the last one also yields the average. After Hoffman, Blei, Wang and Paisley (2013), JMLR 14, and, for rule
and averaging, Dhaka et al. (2020) and Welandawe, Andersen, Vehtari and Huggins (2022), "Robust, automated, and accurate
black-box variational inference".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vihier.errors import FitError
from vihier.inference.convergence import MOVE_LIMIT, Verdict, judge
from vihier.inference.device import seed_of
from vihier.inference.optimiser import Optimiser
from vihier.inference.progress import Progress
from vihier.models.batch import Batch

# An ELBO this many nats a row below where it started will not come back.
DIVERGED = 20.0


@dataclass(frozen=True)
class Schedule:
    """Learning rates, and how long they are kept.

    Attributes
    ----------
    rates
        Of each phase, in starting standard deviations a step (mean field), or in the parameters' own unit.
    window
        Steps of the window that is judged.
    epochs_in_window
        The window holds at least this many epochs.
    max_windows
        Windows after which a phase ends whether settled or not. The windows of the last phase, whose iterates are
        averaged, are twice as long.
    move_limit
        See `vihier.inference.convergence.judge`.
    """

    rates: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003)
    window: int = 150
    epochs_in_window: int = 8
    max_windows: int = 3
    move_limit: float = MOVE_LIMIT


@dataclass
class Outcome:
    """What a run of SVI says of itself.

    Attributes
    ----------
    history
        Per epoch: `step` (steps so far), `elbo_per_row` (mean over the epoch's batches, nats), `learning_rate`; per
        window `window_step`, `r_hat` and `moved`.
    converged, reason
        Whether the stated rule was met in the last phase, and one sentence.
    """

    history: dict[str, np.ndarray]
    converged: bool
    reason: str


@dataclass
class _Records:
    step: list[int] = field(default_factory=list)
    elbo_per_row: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    window_step: list[int] = field(default_factory=list)
    r_hat: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(values) for name, values in vars(self).items()}


class _Run:
    """The state of one run: batches in random order epoch by epoch, records, and the limit on steps."""

    def __init__(
        self, optimiser: Optimiser, batches: Sequence[Batch], seed: int, max_steps: int, progress: Progress
    ) -> None:
        self.optimiser, self.batches, self.seed = optimiser, batches, seed
        self.max_steps, self.progress = max_steps, progress
        self.steps = self.epochs = 0
        self.records = _Records()
        self.first_elbo = math.nan

    @property
    def over(self) -> bool:
        return self.steps >= self.max_steps

    def epoch(self, rate: float, iterates: list[np.ndarray], average: bool) -> None:
        """Visit every batch once, in random order, as far as the limit allows."""
        order = np.random.default_rng(seed_of(self.seed, "order", self.epochs)).permutation(len(self.batches))
        elbos: list[float] = []
        for number in order:
            if self.over:
                break
            batch = self.batches[int(number)]
            elbos.append(self.optimiser.step(batch, int(number), rate))
            self.steps += 1
            if not math.isfinite(elbos[-1]):
                raise FitError(self._broken(f"the ELBO is {elbos[-1]}"))
            iterates.append(self.optimiser.watched())
            if average:
                self.optimiser.collect(batch)
        if not np.isfinite(iterates[-1]).all():
            raise FitError(self._broken("a variational parameter is not finite"))
        self._record(float(np.mean(elbos, dtype=np.float64)), rate, whole=len(elbos) == len(order))

    def _record(self, elbo: float, rate: float, whole: bool) -> None:
        self.epochs += 1
        if math.isnan(self.first_elbo):
            self.first_elbo = elbo
        if elbo < self.first_elbo - DIVERGED * (1 + abs(self.first_elbo)):
            raise FitError(self._broken(f"the ELBO fell from {self.first_elbo:.4g} to {elbo:.4g} nats a row"))
        if whole or not self.records.step:
            self.records.step.append(self.steps)
            self.records.elbo_per_row.append(elbo)
            self.records.learning_rate.append(rate)
        self.progress.update(self.steps, {"elbo_per_row": elbo, "learning_rate": rate})

    def _broken(self, what: str) -> str:
        return (
            f"fit failed at step {self.steps}: {what}; look for extreme lfc values or priors, or try dtype float64, "
            "another seed or a larger batch_size"
        )

    def note(self, verdict: Verdict) -> None:
        self.records.window_step.append(self.steps)
        self.records.r_hat.append(verdict.r_hat)
        self.records.moved.append(verdict.moved)


def run_svi(
    optimiser: Optimiser,
    batches: Sequence[Batch],
    *,
    seed: int,
    progress: Progress,
    schedule: Schedule | None = None,
    max_steps: int | None = None,
) -> Outcome:
    """Train until the rule is met in every phase, or the steps are used up.

    Parameters
    ----------
    optimiser
        Takes the steps.
    batches
        The epoch's batches, visited in an order drawn for each epoch from `seed`.
    seed
        Of the order of batches. Noise comes from torch's global state: see `vihier.inference.device.seeded`.
    progress
        Is told of each epoch.
    schedule
        Learning rates and windows.
    max_steps
        Largest number of steps; by default what the schedule allows at most.

    Raises
    ------
    FitError
        If the ELBO or a parameter is not finite, or the ELBO falls beyond recovery; it names the step.
    """
    plan = schedule or Schedule()
    short = max(plan.epochs_in_window, -(-plan.window // len(batches)))
    epochs = [short] * (len(plan.rates) - 1) + [2 * short]
    allowed = sum(epochs) * plan.max_windows * len(batches)
    run = _Run(optimiser, batches, seed, allowed if max_steps is None else max_steps, progress)
    progress.start("fitting", run.max_steps)
    verdict: Verdict | None = None
    for phase, rate in enumerate(plan.rates):
        last = phase == len(plan.rates) - 1
        for _ in range(plan.max_windows):
            iterates: list[np.ndarray] = []
            before = len(run.records.elbo_per_row)
            if last:
                optimiser.start_average()
            for _ in range(epochs[phase]):
                if not run.over:
                    run.epoch(rate, iterates, average=last)
            if len(iterates) < epochs[phase] * len(batches):
                verdict = None
                break
            elbos = np.asarray(run.records.elbo_per_row[before:])
            verdict = judge(np.stack(iterates), elbos, optimiser.names, plan.move_limit)
            run.note(verdict)
            if verdict.settled:
                break
        if run.over and not last:
            verdict = None
            break
    optimiser.use_average()
    return _outcome(run, verdict, plan)


def _outcome(run: _Run, verdict: Verdict | None, plan: Schedule) -> Outcome:
    if verdict is None:
        phase = len({*run.records.learning_rate})
        reason = (
            f"stopped by max_steps after {run.steps} steps, in phase {phase} of {len(plan.rates)}, before the rule of "
            "convergence could be applied"
        )
    else:
        reason = f"after {run.steps} steps: {verdict.reason}"
    return Outcome(run.records.arrays(), verdict is not None and verdict.settled, reason)
