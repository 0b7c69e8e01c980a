"""Are the posteriors calibrated? Screens drawn from the priors are fitted, and their truth is ranked among the draws.

Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788): where truth and data come from the joint
distribution that the fit assumes, the rank of the truth among posterior draws is uniform and a central interval covers
as often as it says. Hyper-priors are tighter than the models' own, in simulation and fit alike, so that screens look
like screens. Each screen is one JSON line in a file; a run that was stopped goes on where it was. Prints JSON, draws
one figure; exit status 1 where calibration fails. Posteriors with sds shrunk by 15 % stand beside as a control: they
must fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from run_record import machine

import vihier
from vihier.diagnostics.calibration import LEVELS, coverage, judge, rank_statistics, ranked
from vihier.diagnostics.replicates import run_replicates
from vihier.models.program import load_program
from vihier.plots.calibration import coverage_by_variable, rank_curves
from vihier.screen.simulate_model import SIMULATION_PRIORS

MODELS = ("gene_lineage", "additive", "crossed")
CONTROL = 0.85
REALISTIC_RANGE = (0.86, 0.94)
DRAWS = 400


@dataclass(frozen=True)
class Study:
    """Screens of one model. `realistic` ones follow no model and are fitted with the model's own priors."""

    model: str
    genes: int
    lines: int
    lineages: int
    sgrnas: tuple[int, int]
    replicates: int
    draws: int
    seed: int
    shrinks: tuple[float, ...]
    realistic: bool = False

    @property
    def name(self) -> str:
        """Name of its file of records."""
        return f"realistic_{self.model}" if self.realistic else self.model

    @property
    def settings(self) -> dict[str, Any]:
        """What the records depend on, as JSON gives it back."""
        return json.loads(json.dumps(asdict(self)))


def one_screen(study: Study, number: int) -> dict[str, Any]:
    """Simulate a screen, fit it, and rank its truth; runs in a process of its own, on one thread."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    priors = None if study.realistic else SIMULATION_PRIORS[study.model]
    seed = study.seed + number
    record: dict[str, Any] = {"number": number}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # A fit that says it did not converge is counted, not hidden: the record has `converged`.
        warnings.simplefilter("ignore", vihier.FitWarning)
        try:
            written = vihier.simulate(
                Path(folder) / "screen.parquet",
                genes=study.genes,
                lines=study.lines,
                lineages=study.lineages,
                sgrnas=study.sgrnas,
                replicates=study.replicates,
                seed=seed,
                model="realistic" if study.realistic else study.model,
            )
            screen = vihier.read_screen(written.table)
        except vihier.VihierError as error:
            # Which screens are refused depends on their rows alone, so those that are left stay calibrated.
            return record | {"refused": str(error)}
        try:
            post = vihier.fit(
                screen, study.model, draws=study.draws, seed=seed, priors=priors, device="cpu", quiet=True
            )
        except vihier.FitError as error:
            return record | {"broke_down": str(error)}
        with post, xr.open_dataset(written.truth, group="truth", engine="h5netcdf") as truth:
            record |= {"converged": bool(post.converged), "ranks": _ranks_of(post, truth, study, number)}
    return record | {"seconds": round(time.perf_counter() - start, 2)}


def _ranks_of(post: vihier.Posterior, truth: xr.Dataset, study: Study, number: int) -> dict[str, dict[str, list]]:
    """Return `rank_statistics` of each identified variable that has a truth: variable -> factor -> statistics."""
    known = [name for name in post.variables if name in truth and name not in post.not_identified]
    found: dict[str, dict[str, list]] = {}
    for code, name in enumerate(["effect"] if study.realistic else sorted(known)):
        dims = post.variables[name]
        true = truth[name].sel({dim: post.labels(dim) for dim in dims}).transpose(*dims).to_numpy()
        if true.size != truth[name].size:
            raise ValueError(f"{name}: the fit lacks elements that the truth has, so contrasts are not comparable")
        draws = post.draws(name).to_numpy().reshape(-1, true.size).astype(np.float64)
        key = (study.seed, number, code)
        found[name] = {str(f): rank_statistics(draws, true.ravel(), f, key) for f in study.shrinks}
    return found


def run_study(study: Study, n: int, folder: Path, processes: int) -> list[dict[str, Any]]:
    """Return the records of screens 0 to n - 1, fitting those that the folder does not have."""

    def told(done: int, record: dict[str, Any]) -> None:
        print(f"{study.name}: {done} of {n}, {record.get('seconds', 0)} s", file=sys.stderr)

    path = folder / f"{study.name}.jsonl"
    return run_replicates(one_screen, study, study.settings, n, path, processes, told)


def describe(records: Sequence[dict[str, Any]], shrink: float) -> dict[str, Any]:
    """Describe one model's study: what was run, the verdict, and the shrunk control's."""
    fitted = [record for record in records if "ranks" in record]
    about = {
        "screens": len(records),
        "refused": sum("refused" in record for record in records),
        "broke_down": sum("broke_down" in record for record in records),
        "not_converged": sum(not record["converged"] for record in fitted),
        "seconds_a_screen": round(float(np.median([record["seconds"] for record in fitted])), 2),
    }
    verdict, control = judge(records, shrink), judge(records, CONTROL)
    verdict["calibrated"] = verdict["calibrated"] and not about["broke_down"]
    effect = {level: control["variables"]["effect"][level]["covered"] for level in ("50%", "90%")}
    return about | verdict | {"shrunk_control": {"factor": CONTROL, "fails": not control["calibrated"], **effect}}


def describe_realistic(records: Sequence[dict[str, Any]], shrink: float) -> dict[str, Any]:
    """Describe how effect's intervals cover on screens that follow no model."""
    table = np.array([record["ranks"]["effect"][str(shrink)] for record in records if "ranks" in record])
    covered = [coverage(table[:, 1 + i], level) for i, level in enumerate(LEVELS)]
    low, high = REALISTIC_RANGE
    return {
        "screens": len(table),
        **{f"{level:.0%}": entry["covered"] for level, entry in zip(LEVELS, covered, strict=True)},
        "band_99": covered[-1]["band_99"],
        "ok": bool(low <= covered[-1]["covered"] <= high),
    }


def figure(studies: dict[str, list[dict[str, Any]]], factor: float, path: Path) -> None:
    """Draw coverage of every variable (above) and how far its ranks are from uniform (below), a column a model."""
    size = (5.2 * len(studies), 9)
    drawn, axes = plt.subplots(2, len(studies), figsize=size, layout="constrained", squeeze=False, height_ratios=(2, 1))
    for column, (model, records) in zip(axes.T, studies.items(), strict=True):
        fitted = ranked(records)
        coverage_by_variable(fitted, column[0], factor=factor, control=CONTROL)
        column[0].set_title(f"{model}: {len(fitted)} screens")
        rank_curves(fitted, column[1], factor=factor)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    axes[1, 0].set_ylabel("share of screens below - rank")
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--screens", type=int, default=400, help="screens of each model")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--realistic", type=int, default=0, metavar="N", help="realistic screens of each model as well")
    parser.add_argument("--shrink", type=float, default=1.0, help="multiply every posterior sd; 0.85 must fail")
    parser.add_argument("--processes", type=int, default=1, help="screens fitted at once, each on one thread")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/calibration"), help="folder of records and figure")
    return parser.parse_args()


def studies_of(given: argparse.Namespace) -> list[Study]:
    """Return the studies asked for, realistic ones last."""
    shrinks = tuple(sorted({1.0, CONTROL, given.shrink}, reverse=True))
    small = [Study(m, 8, 12, 3, (2, 4), 2, DRAWS, given.seed, shrinks) for m in given.models]
    large = [Study(m, 20, 40, 4, (4, 4), 2, DRAWS, given.seed, shrinks, True) for m in given.models]
    return small + (large if given.realistic else [])


def main() -> int:
    """Run what is missing, judge, print."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    records: dict[str, list[dict[str, Any]]] = {}
    realistic: dict[str, Any] = {}
    for study in studies_of(given):
        n = given.realistic if study.realistic else given.screens
        found = run_study(study, n, given.out, given.processes)
        if study.realistic:
            realistic[study.model] = describe_realistic(found, given.shrink)
        else:
            records[study.model] = found
    figure(records, given.shrink, given.out / "calibration.png")
    models = {model: describe(found, given.shrink) for model, found in records.items()}
    calibrated = all(each["calibrated"] for each in models.values()) and all(each["ok"] for each in realistic.values())
    record = {
        "calibrated": calibrated,
        "shrink": given.shrink,
        "models": models,
        "realistic": realistic,
        "priors": {model: dict(load_program(model, SIMULATION_PRIORS[model]).priors) for model in models},
        "machine": machine(),
        "figure": str(given.out / "calibration.png"),
    }
    print(json.dumps(record, indent=2))
    return 0 if calibrated else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"calibration: {error}")
