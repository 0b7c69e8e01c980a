"""How fast a fit is beside NUTS, and how well it agrees with long NUTS runs. Prints JSON.

Ours: fit, 1,000 draws and the file, in process, imports done. Theirs: nutpie's 4 chains of 1,000 + 1,000 on the same
models written in PyMC, without compilation. One screen of 22,400 rows for each model, the same number of threads for
both. nutpie is an extra (`pip install 'vihier[nuts]'`); without it ours is timed alone. `--reference` holds fits to
stored reference posteriors. Where other work shares the cores, the ratio of CPU times says more than that of the clock.
Exit status 1 where a demand is not met: ten times faster, agreement within limits.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run_record import existing, machine

import vihier

MODELS = ("gene_lineage", "additive")
CHAINS, TUNE, DRAWS = 4, 1000, 1000
REFERENCE_DRAWS = 4000
FASTER = 10
PROBABILITIES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
SHARP = ("gamma", "effect", "effect_dev", "gamma_dev")

Summary = Mapping[str, np.ndarray]


def agreement(draws: np.ndarray, reference: Summary, name: str) -> dict[str, Any]:
    """Hold draws of one variable to a reference.

    Parameters
    ----------
    draws
        Shape [D, ...].
    reference
        `mean`, `sd`, `q05`, `q50`, `q95`, shape [...] each.
    name
        The variable: says which limits it has.

    Returns
    -------
    dict
        `rms_z`, `max_z`: |mean - reference mean| / reference sd. `sd_ratio`: smallest and largest. `quantile`: largest
        error of the three quantiles, in (q95 - q05) / 3.29, the sd where the reference is Normal. `ok`: within limits.
    """
    z = np.abs(draws.mean(axis=0) - reference["mean"]) / reference["sd"]
    ratio = draws.std(axis=0) / reference["sd"]
    got = np.quantile(draws, list(PROBABILITIES.values()), axis=0)
    error = np.abs(got - np.stack([reference[q] for q in PROBABILITIES]))
    quantile = float((error / ((reference["q95"] - reference["q05"]) / 3.29)).max())
    rms, worst = float(np.sqrt((z**2).mean())), float(z.max())
    low, high = float(ratio.min()), float(ratio.max())
    if name in SHARP:
        ok = rms <= 0.08 and worst <= 0.3 and low >= 0.85 and high <= 1.15
    elif name.startswith("sigma"):
        ok = quantile <= 0.3
    else:
        ok = worst <= 0.25 and low >= 0.8 and high <= 1.25
    figures = {"rms_z": rms, "max_z": worst, "quantile": quantile}
    rounded: dict[str, Any] = {key: round(value, 3) for key, value in figures.items()}
    return rounded | {"sd_ratio": [round(low, 3), round(high, 3)], "ok": bool(ok)}


def summarised(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, sd and quantiles of draws [D, ...], as a reference has them."""
    quantiles = np.quantile(draws, list(PROBABILITIES.values()), axis=0)
    return {"mean": draws.mean(axis=0), "sd": draws.std(axis=0), **dict(zip(PROBABILITIES, quantiles, strict=True))}


def read_reference(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read a `reference.npz`: variable -> statistic -> values."""
    with np.load(path, allow_pickle=False) as stored:
        names = sorted(key.removesuffix(".mean") for key in stored.files if key.endswith(".mean"))
        return {name: {kind: stored[f"{name}.{kind}"] for kind in ("mean", "sd", *PROBABILITIES)} for name in names}


def plain(post: vihier.Posterior, name: str) -> np.ndarray:
    """Draws of a variable as float64, [D, ...]."""
    draws = post.draws(name).to_numpy().astype(np.float64)
    return draws.reshape(-1, *draws.shape[2:])


def hold_to_reference(folder: Path, draws: int = REFERENCE_DRAWS) -> dict[str, Any]:
    """Fit a reference case, `CASE.MODEL` with `data.csv.gz` and `reference.npz`, and compare every variable it has."""
    model = folder.name.rpartition(".")[2]
    reference = read_reference(folder / "reference.npz")
    start = time.perf_counter()
    with vihier.fit(folder / "data.csv.gz", model, draws=draws, quiet=True) as post:
        seconds = time.perf_counter() - start
        missing = sorted(set(reference) - set(post.variables))
        table = {name: agreement(plain(post, name), reference[name], name) for name in reference if name not in missing}
    off = [name for name, entry in table.items() if not entry["ok"]]
    ok = not off and not missing
    return {"seconds": round(seconds, 2), "draws": draws, "ok": ok, "off": off, "missing": missing, "table": table}


def pymc_gene_lineage(screen: vihier.Screen) -> Any:
    """Return `gene_lineage` in PyMC, site for site."""
    import pymc as pm

    n_genes, n_lineages, of_line = screen.n_genes, screen.n_lineages, screen.index.lineage_of_line
    with pm.Model() as model:
        sigma = pm.HalfNormal("sigma", 3)
        top = pm.Normal("mu_mu_mu_gamma", 0, 3)
        spread = pm.HalfNormal("sigma_mu_mu_gamma", 3)
        of_genes = pm.HalfNormal("sigma_sigma_mu_gamma", 3)
        of_lineages = pm.HalfNormal("sigma_sigma_gamma", 3)
        sigma_gamma = pm.HalfNormal("sigma_gamma", of_lineages, shape=n_lineages)
        mu_mu_gamma = pm.Normal("mu_mu_gamma", top, spread, shape=n_genes)
        sigma_mu_gamma = pm.HalfNormal("sigma_mu_gamma", of_genes, shape=n_genes)
        mu_gamma = pm.Normal("mu_gamma", mu_mu_gamma[:, None], sigma_mu_gamma[:, None], shape=(n_genes, n_lineages))
        gamma = pm.Normal("gamma", mu_gamma[:, of_line], sigma_gamma[of_line], shape=(n_genes, screen.n_lines))
        pm.Normal("lfc", gamma[screen.gene, screen.line], sigma, observed=screen.lfc)
    return model


def pymc_additive(screen: vihier.Screen) -> Any:
    """Return `additive` in PyMC, site for site."""
    import pymc as pm

    index, n_genes, n_lineages = screen.index, screen.n_genes, screen.n_lineages
    with pm.Model() as model:
        sigma = pm.HalfNormal("sigma", 3)
        mu_mu_alpha = pm.Normal("mu_mu_alpha", 0, 3)
        sigma_mu_alpha = pm.HalfNormal("sigma_mu_alpha", 3)
        sigma_sigma_alpha = pm.HalfNormal("sigma_sigma_alpha", 3)
        mu_mu_beta = pm.Normal("mu_mu_beta", 0, 3)
        sigma_mu_beta = pm.HalfNormal("sigma_mu_beta", 3)
        sigma_sigma_beta = pm.HalfNormal("sigma_sigma_beta", 3)
        mu_gamma = pm.Normal("mu_gamma", 0, 5)
        sigma_sigma_gamma = pm.HalfNormal("sigma_sigma_gamma", 1)
        mu_beta = pm.Normal("mu_beta", mu_mu_beta, sigma_mu_beta, shape=n_lineages)
        sigma_beta = pm.HalfNormal("sigma_beta", sigma_sigma_beta, shape=n_lineages)
        of_line, of_sgrna = index.lineage_of_line, index.gene_of_sgrna
        beta = pm.Normal("beta", mu_beta[of_line], sigma_beta[of_line], shape=screen.n_lines)
        mu_alpha = pm.Normal("mu_alpha", mu_mu_alpha, sigma_mu_alpha, shape=n_genes)
        sigma_alpha = pm.HalfNormal("sigma_alpha", sigma_sigma_alpha, shape=n_genes)
        sigma_gamma = pm.HalfNormal("sigma_gamma", sigma_sigma_gamma, shape=n_genes)
        alpha = pm.Normal("alpha", mu_alpha[of_sgrna], sigma_alpha[of_sgrna], shape=screen.n_sgrnas)
        gamma = pm.Normal("gamma", mu_gamma, sigma_gamma[:, None], shape=(n_genes, screen.n_lines))
        mean = alpha[screen.sgrna] + beta[screen.line] + gamma[screen.gene, screen.line]
        pm.Normal("lfc", mean, sigma, observed=screen.lfc)
    return model


PYMC: Mapping[str, Callable[[vihier.Screen], Any]] = {"gene_lineage": pymc_gene_lineage, "additive": pymc_additive}


def effect_of(draws: Mapping[str, np.ndarray], screen: vihier.Screen) -> np.ndarray:
    """Return the expected lfc of each gene in each line over its sgRNAs, from draws of the sites: [D, G, C]."""
    if "alpha" not in draws:
        return draws["gamma"]
    of_sgrna = screen.index.gene_of_sgrna
    weights = np.eye(screen.n_genes)[of_sgrna] / np.bincount(of_sgrna)[of_sgrna][:, None]
    return (draws["alpha"] @ weights)[:, :, None] + draws["beta"][:, None, :] + draws["gamma"]


def missing_packages(names: Sequence[str] = ("nutpie", "pymc")) -> str | None:
    """Say which packages are missing; None where all are there."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed; pip install 'vihier[nuts]'" if absent else None


def time_nutpie(screen: vihier.Screen, model: str, threads: int, seed: int) -> tuple[dict[str, Any], dict]:
    """Sample with nutpie; return what it took and its draws, site -> [D, ...]."""
    import arviz as az
    import nutpie

    start = time.perf_counter()
    compiled = nutpie.compile_pymc_model(PYMC[model](screen))
    compiled_at = time.perf_counter()
    cpu = time.process_time()
    trace = nutpie.sample(compiled, draws=DRAWS, tune=TUNE, chains=CHAINS, cores=threads, seed=seed, progress_bar=False)
    seconds, cpu = time.perf_counter() - compiled_at, time.process_time() - cpu
    posterior = trace["posterior"]
    # PyMC keeps the logarithm of a scale beside it.
    sites = [str(name) for name in posterior.data_vars if not str(name).endswith("__")]
    rhat = {name: float(az.rhat(posterior, var_names=[name])[name].max()) for name in sites}
    worst = max(rhat, key=lambda name: rhat[name])
    about = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "compilation_seconds": round(compiled_at - start, 2),
        "divergences": int(trace["sample_stats"]["diverging"].sum()),
        "max_rhat": round(rhat[worst], 3),
        "max_rhat_of": worst,
    }
    draws = {name: posterior[name].to_numpy().astype(np.float64) for name in sites}
    return about, {name: values.reshape(-1, *values.shape[2:]) for name, values in draws.items()}


def simulated(model: str, folder: Path, sizes: Mapping[str, int], seed: int) -> vihier.Screen:
    """Draw a screen from the model, no row missing."""
    written = vihier.simulate(folder / f"{model}.parquet", **sizes, seed=seed, model=model, missing=0)
    return vihier.read_screen(written.table)


def race(model: str, screen: vihier.Screen, folder: Path, threads: int, seed: int, nutpie: bool) -> dict[str, Any]:
    """Time ours and, where it is there, nutpie on one screen, and compare the two posteriors."""
    start, cpu = time.perf_counter(), time.process_time()
    with vihier.fit(
        screen, model, draws=DRAWS, seed=seed, device="cpu", out=folder / f"{model}.h5", quiet=True
    ) as post:
        ours, cpu = time.perf_counter() - start, time.process_time() - cpu
        times = {"seconds": round(ours, 2), "cpu_seconds": round(cpu, 2)}
        record: dict[str, Any] = {
            "rows": screen.n_rows,
            "ours": times | {"converged": bool(post.converged), "draws": DRAWS},
        }
        if not nutpie:
            return record
        about, draws = time_nutpie(screen, model, threads, seed)
        draws["effect"] = effect_of(draws, screen)
        # Their R-hat says how far this comparison can be trusted; the stored references are the ones that count.
        table = {name: agreement(plain(post, name), summarised(values), name) for name, values in draws.items()}
    faster = {"times_faster": round(about["seconds"] / ours, 1), "of_cpu_time": round(about["cpu_seconds"] / cpu, 1)}
    return record | {"nutpie": about, **faster, "fast_enough": about["seconds"] >= FASTER * ours, "agreement": table}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS, help="none: references alone")
    parser.add_argument("--reference", type=Path, action="append", default=[], metavar="CASE.MODEL", help="repeatable")
    parser.add_argument("--threads", type=int, default=2, help="of ours, and chains at once of nutpie")
    parser.add_argument("--genes", type=int, default=20)
    parser.add_argument("--lines", type=int, default=140)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Race, compare, print."""
    given = arguments()
    references = [existing(folder, "reference data") for folder in given.reference]
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", vihier.FitWarning)
    absent = missing_packages()
    record: dict[str, Any] = {"threads": given.threads, "machine": machine(), "models": {}, "reference": {}}
    record["nutpie_skipped"] = absent
    if absent:
        print(f"nuts_agreement: nutpie is skipped: {absent}", file=sys.stderr)
    sizes = {"genes": given.genes, "lines": given.lines, "lineages": 4, "sgrnas": 4, "replicates": 2}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # What is imported on first use is not timed.
        tiny = simulated("additive", folder, {"genes": 3, "lines": 4, "lineages": 2}, given.seed)
        vihier.fit(tiny, draws=10, max_steps=2, device="cpu", quiet=True).close()
        for model in given.models:
            screen = simulated(model, folder, sizes, given.seed)
            record["models"][model] = race(model, screen, folder, given.threads, given.seed, absent is None)
            print(f"nuts_agreement: {model} done", file=sys.stderr)
    for case in references:
        record["reference"][case.name] = hold_to_reference(case)
    slow = [model for model, entry in record["models"].items() if not entry.get("fast_enough", True)]
    off = [case for case, entry in record["reference"].items() if not entry["ok"]]
    record |= {"too_slow": slow, "disagree": off}
    print(json.dumps(record, indent=2))
    return 1 if slow or off else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vihier.VihierError as error:
        sys.exit(f"nuts_agreement: {error}")
