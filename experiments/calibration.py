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
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from numpy.polynomial import legendre
from run_record import machine
from scipy.stats import chi2, norm, t

import vihier
from vihier.models.program import load_program
from vihier.screen.simulate_model import SIMULATION_PRIORS

MODELS = ("gene_lineage", "additive", "crossed")
LOCATIONS = ("effect", "effect_dev", "gamma_dev", "alpha_dev", "beta_dev")
LEVELS = (0.5, 0.9)
CONTROL = 0.85
SLACK = 0.02
"""Coverage this near to nominal is good enough, however small the Monte Carlo error."""
BAND, FAMILY = 0.99, 0.01
REALISTIC_RANGE = (0.86, 0.94)
COMPONENTS = 4
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


def ranks(draws: np.ndarray, truth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return where the truth lies among draws, as a probability: exactly uniform for draws of the same distribution.

    Parameters
    ----------
    draws, truth
        Shape [D, n] and [n].
    random
        Spreads each of the D + 1 possible ranks over its share of (0, 1).
    """
    below = (draws < truth).sum(axis=0)
    return (below + random.random(truth.shape)) / (len(draws) + 1)


def shrunk(draws: np.ndarray, factor: float) -> np.ndarray:
    """Return draws [D, n] pulled towards their mean, so that every sd is multiplied by the factor."""
    mean = draws.mean(axis=0)
    return mean + factor * (draws - mean)


def rank_statistics(draws: np.ndarray, truth: np.ndarray, factor: float, key: Sequence[int]) -> list[float]:
    """Rank one element, picked at random, and count how often intervals cover.

    Draws [D, n] of the truth [n] have their sds multiplied by the factor first; the key seeds the pick. The list holds
    the picked element's rank in (0, 1), the shares of elements in the central intervals of `LEVELS`, and the shares
    below and above the wider one.
    """
    random = np.random.default_rng(list(key))
    picked = random.integers(len(truth))
    rank = ranks(shrunk(draws, factor), truth, random)
    inside = [float((np.abs(rank - 0.5) <= level / 2).mean()) for level in LEVELS]
    edge = (1 - LEVELS[-1]) / 2
    return [float(rank[picked]), *inside, float((rank < edge).mean()), float((rank > 1 - edge).mean())]


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


def read_records(path: Path, study: Study) -> list[dict[str, Any]]:
    """Read the screens that are done; a last line cut off by a killed run is left out, and removed from the file.

    Raises
    ------
    VihierError
        The file holds screens of other settings.
    """
    if not path.exists():
        path.write_text(json.dumps(study.settings) + "\n")
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    if not whole or json.loads(whole[0]) != study.settings:
        raise vihier.VihierError(f"{path}: holds screens of other settings; name another folder with --out")
    path.write_text("".join(whole))
    return [json.loads(line) for line in whole[1:]]


def run_study(study: Study, n: int, folder: Path, processes: int) -> list[dict[str, Any]]:
    """Return the records of screens 0 to n - 1, fitting those that the folder does not have."""
    path = folder / f"{study.name}.jsonl"
    records = read_records(path, study)
    done = {record["number"] for record in records}
    todo = [number for number in range(n) if number not in done]
    with path.open("a") as file:
        for count, record in enumerate(_each(one_screen, study, todo, processes), start=1):
            file.write(json.dumps(record) + "\n")
            file.flush()
            records.append(record)
            print(f"{study.name}: {len(done) + count} of {n}, {record.get('seconds', 0)} s", file=sys.stderr)
    return sorted((record for record in records if record["number"] < n), key=lambda record: record["number"])


def _each(
    task: Callable[[Study, int], dict[str, Any]], study: Study, numbers: Sequence[int], processes: int
) -> Iterator[dict[str, Any]]:
    """Yield the records as they are done. Torch's threads do not survive a fork, so workers are spawned."""
    if processes == 1:
        yield from (task(study, number) for number in numbers)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(task, study, number) for number in numbers]):
            yield future.result()


def uniformity(rank: np.ndarray) -> float:
    """P value of uniform ranks: Neyman's smooth test (1937), the chi-square of four Legendre components.

    The first component is a bias, the second an sd that is wrong: together they see what a histogram of ranks shows,
    with more power than its bins.
    """
    values = legendre.legvander(2 * rank - 1, COMPONENTS)[:, 1:] * np.sqrt(2 * np.arange(1, COMPONENTS + 1) + 1)
    return float(chi2.sf((values.sum(axis=0) ** 2).sum() / len(rank), COMPONENTS))


def coverage(share: np.ndarray, level: float) -> dict[str, Any]:
    """Judge the coverage of one interval, the screen being the unit.

    `share` is the share of a variable's elements covered in each screen, shape [n]; `level` the nominal probability.
    """
    n = len(share)
    if np.isin(share, (0.0, 1.0)).all():
        error, wide = np.sqrt(level * (1 - level) / n), norm.ppf((1 + BAND) / 2)
    else:
        error, wide = share.std(ddof=1) / np.sqrt(n), t.ppf((1 + BAND) / 2, n - 1)
    off = float(share.mean()) - level
    return {
        "covered": round(level + off, 4),
        "band_99": round(float(wide * error), 4),
        "z": round(float(off / error), 2) if error > 0 else 0.0,
        "ok": bool(abs(off) <= max(SLACK, wide * error)),
    }


def ranked(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ranks of the screens that were fitted."""
    return [record["ranks"] for record in records if "ranks" in record]


def judge(records: Iterable[dict[str, Any]], factor: float) -> dict[str, Any]:
    """Judge one model's screens at one shrinkage.

    Coverage is held to nominal for the locations named in `LOCATIONS` and for every scale; rank uniformity for every
    identified variable, at `FAMILY` over them all.
    """
    fitted = ranked(records)
    variables: dict[str, dict[str, Any]] = {}
    for name in fitted[0]:
        table = np.array([each[name][str(factor)] for each in fitted])
        entry: dict[str, Any] = {f"{level:.0%}": coverage(table[:, 1 + i], level) for i, level in enumerate(LEVELS)}
        entry |= {"below": round(float(table[:, 3].mean()), 4), "above": round(float(table[:, 4].mean()), 4)}
        entry["mean_rank"] = round(float(table[:, 0].mean()), 4)
        entry["uniform_p"] = float(f"{uniformity(table[:, 0]):.3g}")
        variables[name] = entry
    judged = [name for name in variables if name in LOCATIONS or name.startswith("sigma")]
    off = [f"{name} {lv:.0%}" for name in judged for lv in LEVELS if not variables[name][f"{lv:.0%}"]["ok"]]
    uneven = [name for name, entry in variables.items() if entry["uniform_p"] * len(variables) < FAMILY]
    return {
        "coverage_off": off,
        "coverage_checks": len(judged) * len(LEVELS),
        "ranks_not_uniform": uneven,
        "calibrated": not off and not uneven,
        "variables": variables,
    }


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
        _coverage_axes(column[0], fitted, factor)
        column[0].set_title(f"{model}: {len(fitted)} screens")
        _rank_axes(column[1], fitted, factor)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    axes[1, 0].set_ylabel("share of screens below - rank")
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def _coverage_axes(ax: Axes, fitted: Sequence[dict[str, Any]], factor: float) -> None:
    names = sorted(fitted[0], key=lambda name: (name.startswith("sigma"), name))[::-1]
    height = np.arange(len(names))
    for level, colour, i in ((0.5, "#22567d", 1), (0.9, "#c2410c", 2)):
        for size, marker, label in ((factor, "o", " intervals"), (CONTROL, "|", ", sds shrunk by 15 %")):
            got = [coverage(np.array([each[name][str(size)][i] for each in fitted]), level) for name in names]
            off = 100 * (np.array([each["covered"] for each in got]) - level)
            error = 100 * np.array([each["band_99"] for each in got]) if marker == "o" else None
            shift = 0.12 if i == 1 else -0.12
            look: dict[str, Any] = {"color": colour, "ms": 4, "lw": 1, "label": f"{level:.0%}{label}"}
            ax.errorbar(off, height + shift, xerr=error, fmt=marker, **look)
    ax.axvspan(-100 * SLACK, 100 * SLACK, color="0.9", zorder=0)
    ax.axvline(0, color="0.4", lw=0.8)
    ax.set(yticks=height, yticklabels=names, xlabel="coverage - nominal (points; 99 % bars)")


def _rank_axes(ax: Axes, fitted: Sequence[dict[str, Any]], factor: float) -> None:
    grid = np.linspace(0, 1, 201)
    n = len(fitted)
    for name in fitted[0]:
        rank = np.sort([each[name][str(factor)][0] for each in fitted])
        colour = "#c2410c" if name.startswith("sigma") else "#22567d"
        ax.plot(grid, np.searchsorted(rank, grid) / n - grid, color=colour, lw=0.8, alpha=0.6)
    # Kolmogorov's band at FAMILY over all variables: P(sup > k / sqrt(n)) is about 2 exp(-2 k^2).
    bound = np.sqrt(np.log(2 * len(fitted[0]) / FAMILY) / 2 / n)
    ax.axhline(bound, color="0.5", ls=":")
    ax.axhline(-bound, color="0.5", ls=":")
    ax.set(xlabel="rank (blue: locations, orange: scales; dotted: 1 %)", xlim=(0, 1))


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
