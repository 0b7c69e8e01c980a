"""A whole screen from simulation to answers, at a share of 18,000 genes x 1,000 lines: what it takes, what it gives.

Prints JSON: wall and CPU seconds of each stage, peak memory, bytes by layer, how often intervals cover the truth that
the screen was drawn from, and the machine. The floor is one pass over the store that sums its rows into cells.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from run_record import machine, peak_memory_gb
from scipy.stats import chisquare

import vihier
from vihier.guides.cell_file import CellFile
from vihier.guides.structure import read_structure
from vihier.inference.batches import GeneBlocks
from vihier.inference.streamed_run import blocks_of, genes_per_block
from vihier.models.likelihood import Likelihood
from vihier.models.program import load_program
from vihier.posterior.reader import Posterior
from vihier.store.pack import pack
from vihier.store.store import ScreenStore, open_store

RANK_BINS, FEWEST_RANKED, FAR_SDS = 20, 100, 4.5
GENES, LINES, LINEAGES, SGRNAS, REPLICATES = 18_000, 1_000, 27, 4, 2


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.01, help="share of the 18,000 genes")
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--model", default="additive")
    parser.add_argument("--likelihood", default="normal", help="normal or student_t: of the screen and of the fit")
    parser.add_argument(
        "--noise", default="global", help="global, line or replicate: what has a noise scale of its own"
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--draws-disk-gb", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where files go, and stay; else a temporary folder")
    return parser.parse_args()


class Stages:
    """Wall and CPU seconds of each stage, and the peak memory by its end."""

    def __init__(self) -> None:
        self.record: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start, before = time.perf_counter(), _cpu_seconds()
        yield
        self.record[name] = {
            "wall_s": round(time.perf_counter() - start, 2),
            "cpu_s": round(_cpu_seconds() - before, 2),
            "peak_gb": peak_memory_gb(),
        }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one_pass(store: ScreenStore, model: str, likelihood: Likelihood) -> None:
    """Read all rows and sum them into cells, or sort them by these: what no fit can do without."""
    structure = read_structure(
        load_program(model, None, likelihood).model, GeneBlocks(store, 2, "cpu", torch.float64)[0]
    )
    blocks = blocks_of(store, genes_per_block(store, None, structure.is_plain), torch.device("cpu"), torch.float64)
    CellFile(structure, blocks, torch.float32, store.path.parent).close()


def read_back(post: Posterior) -> dict[str, float]:
    """Time what a user asks first."""
    gene, line = post.labels("hugo_symbol")[0], post.labels("depmap_id")[0]
    post.draws("effect", hugo_symbol=post.labels("hugo_symbol")[-1])  # what is read once, is read
    asked = {
        "gene_draws_s": lambda: post.draws("effect", hugo_symbol=gene),
        "line_draws_s": lambda: post.draws("effect", depmap_id=line),
        "gene_summary_s": lambda: post.summary("effect", hugo_symbol=gene),
        "line_summary_s": lambda: post.summary("effect", depmap_id=line),
        "gene_arviz_s": lambda: post.to_arviz(hugo_symbol=[gene]),
    }
    found = {}
    for name, ask in asked.items():
        start = time.perf_counter()
        ask()
        found[name] = round(time.perf_counter() - start, 3)
    return found


def coverage(fit: Path, truth: Path) -> dict[str, Any]:
    """Compare a fit with the truth that its screen was drawn from.

    `in_90` is how often the 5 % and 95 % quantiles enclose the truth; of scales, `in_95` how often those of 2.5 % and
    97.5 % of the draws do, and `worst_sds` how far the worst is from the mean (`worst_log_sds`: of logarithms; a scale
    that the data cannot tell from zero may be any distance below). Posteriors of scales that few elements tell of are
    skewed: `beyond_4.5_sds` is how many are so far off, and `expected_beyond` how many would be if the truths were
    draws of the posteriors; `beyond_4.5_log_sds` and `expected_beyond_log` are those of logarithms. `ranks_p`: of a
    chi-squared test that the truths' ranks among the draws are uniform.
    """
    found: dict[str, Any] = {}
    with h5py.File(fit) as post, h5py.File(truth) as known:
        for name in ("effect", "effect_dev", "effect_gene", "gamma_dev", "alpha_dev", "beta_dev"):
            if name not in known["truth"]:
                continue
            low, high = (post["moments"][f"{name}_{quantile}"] for quantile in ("q05", "q95"))
            true = known["truth"][name]
            inside = [
                np.mean((true[at] >= low[at]) & (true[at] <= high[at]))
                for at in (slice(i, i + 1000) for i in range(0, len(true), 1000))
            ]
            sizes = [len(true[i : i + 1000]) for i in range(0, len(true), 1000)]
            found[name] = {"in_90": round(float(np.average(inside, weights=sizes)), 4)}
        for name, dataset in post["posterior"].items():
            if not (name.startswith("sigma") or name == "nu") or name not in known["truth"]:
                continue
            draws, true = dataset[0], known["truth"][name][()]
            low, high = np.quantile(draws, (0.025, 0.975), axis=0)
            worst, beyond, expected = far_off(draws, true)
            worst_log, beyond_log, expected_log = far_off(np.log(draws), np.log(true))
            found[name] = {
                "n": int(np.size(true)),
                "in_95": round(float(np.mean((true >= low) & (true <= high))), 4),
                "worst_sds": worst,
                "worst_log_sds": worst_log,
                "beyond_4.5_sds": beyond,
                "expected_beyond": expected,
                "beyond_4.5_log_sds": beyond_log,
                "expected_beyond_log": expected_log,
            }
            if np.size(true) >= FEWEST_RANKED:
                ranks = np.histogram(np.mean(draws < true, axis=0), bins=RANK_BINS, range=(0, 1))[0]
                found[name]["ranks_p"] = round(float(chisquare(ranks).pvalue), 3)
    return found


def far_off(draws: np.ndarray, true: np.ndarray) -> tuple[float, int, float]:
    """How many posterior sds the worst is off; how many are off by more than 4.5, and how many draws would be."""
    mean, sd = draws.mean(0), draws.std(0)
    sds = np.abs(true - mean) / sd
    expected = np.sum(np.mean(np.abs(draws - mean) > FAR_SDS * sd, axis=0))
    return round(float(np.max(sds)), 2), int(np.sum(sds > FAR_SDS)), round(float(expected), 1)


def layers(fit: Path) -> dict[str, float]:
    """Bytes of the groups of a posterior file, in GB; draws by their dims."""
    found: dict[str, float] = {}
    with h5py.File(fit) as file:
        for group in file:
            for node in file[group].values():
                name = group
                if group == "posterior" and not node.is_scale:
                    dims = [node.dims[axis][0].name.rsplit("/", 1)[-1] for axis in range(2, node.ndim)]
                    name = f"posterior: {' x '.join(dims) or 'scalars'}"
                found[name] = found.get(name, 0.0) + node.id.get_storage_size() / 1e9
    return {name: round(size, 4) for name, size in found.items()}


def main() -> None:
    """Simulate, pack, fit, read back, compare."""
    asked = arguments()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="genome-scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    try:
        with stages.stage("simulate"):
            made = vihier.simulate(
                folder / "screen.parquet",
                genes=max(20, round(GENES * asked.scale)),
                lines=asked.lines,
                lineages=min(LINEAGES, max(1, asked.lines // 4)),
                sgrnas=SGRNAS,
                replicates=REPLICATES,
                seed=asked.seed,
                model=asked.model,
                likelihood=asked.likelihood,
                noise=asked.noise,
            )
        with stages.stage("pack"):
            pack(made.table, folder / "screen.h5").close()
        with open_store(folder / "screen.h5") as store:
            with stages.stage("floor"):
                one_pass(store, asked.model, Likelihood(asked.likelihood, asked.noise))
            size = {"genes": store.n_genes, "lines": store.n_lines, "sgrnas": store.n_sgrnas, "rows": store.n_rows}
            with stages.stage("fit"):
                post = vihier.fit(
                    store,
                    asked.model,
                    likelihood=asked.likelihood,
                    noise=asked.noise,
                    draws=asked.draws,
                    seed=asked.seed,
                    out=folder / "fit.h5",
                    draws_disk_gb=asked.draws_disk_gb,
                    force=True,
                )
        with post:
            diagnostics = {name: float(value) for name, value in post.group("diagnostics").items() if value.ndim == 0}
            reading = read_back(post)
            about = {"converged": post.converged, "reason": post.attrs["reason"], **diagnostics}
            if "chains" in diagnostics:
                each = diagnostics["passes"] * diagnostics["chains"] * size["rows"]
                about["cpu_ns_a_row_pass_and_chain"] = round(stages.record["fit"]["cpu_s"] * 1e9 / each, 1)
        floor, run = stages.record["floor"], stages.record["fit"]
        record = {
            "asked": {name: str(value) for name, value in vars(asked).items()},
            "size": size,
            "stages": stages.record,
            "pack_and_fit_wall_s": round(stages.record["pack"]["wall_s"] + run["wall_s"], 1),
            "floors": {
                "wall": round(run["wall_s"] / floor["wall_s"], 1),
                "cpu": round(run["cpu_s"] / floor["cpu_s"], 1),
            },
            "peak_gb": peak_memory_gb(),
            "bytes_gb": {
                "table": round(made.table.stat().st_size / 1e9, 4),
                "store": round((folder / "screen.h5").stat().st_size / 1e9, 4),
                "fit": round((folder / "fit.h5").stat().st_size / 1e9, 4),
                **layers(folder / "fit.h5"),
            },
            "fit": about,
            "read_back": reading,
            "coverage": coverage(folder / "fit.h5", folder / "screen.truth.h5"),
            "machine": machine(),
        }
        print(json.dumps(record, indent=2))
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
