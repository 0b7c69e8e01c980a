"""Rows that a fit has not seen, predicted by its posterior whatever their likelihood."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import gammaln, logsumexp, stdtr

import vihier


def noise_of_rows(post: vihier.Posterior, test: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """Return the noise scale of each row in each draw, [draws, N or 1].

    One that the fit has not seen (a new replicate) is drawn from what the noise scales are around.
    """
    sigma = post.draws("sigma").to_numpy().reshape(-1, 1).astype(np.float64)
    noise = post.config.get("noise", "global")
    if noise == "global":
        return sigma
    spread = post.draws("sigma_sigma").to_numpy().reshape(-1, 1).astype(np.float64)
    wanted = labels_of_rows(test, noise)
    known = pd.Index(post.labels("depmap_id" if noise == "line" else noise))
    names, first, codes = np.unique(wanted, return_index=True, return_inverse=True)
    at = known.get_indexer(names)
    if noise == "replicate":  # around its line's
        of_line = pd.Index(post.labels("line_screen")).get_indexer(labels_of_rows(test.iloc[first], "line_screen"))
        there = post.draws("sigma_line_screen").to_numpy()[0].astype(np.float64)
        wide = post.draws("sigma_sigma_line_screen").to_numpy().reshape(-1, 1).astype(np.float64)
        new = sigma * np.exp(wide * random.standard_normal((len(sigma), len(names))))
        sigma = np.where(of_line >= 0, there[:, of_line], new)
    table = sigma * np.exp(spread * random.standard_normal((len(sigma), len(names))))
    values = post.draws(f"sigma_{noise}").to_numpy()[0].astype(np.float64)
    table[:, at >= 0] = values[:, at[at >= 0]]
    return table[:, codes]


def labels_of_rows(test: pd.DataFrame, noise: str) -> np.ndarray:
    """Label of the noise scale of each row, as a posterior file has it: LINE|REPLICATE|SCREEN, LINE|SCREEN."""
    columns = {"replicate": ["depmap_id", "replicate_id", "screen"], "line_screen": ["depmap_id", "screen"]}
    names = columns.get(noise, ["depmap_id" if noise == "line" else noise])
    parts = [test[name].astype(str) for name in names if name in test]
    return parts[0].str.cat(parts[1:], sep="|").to_numpy(str)


def freedom_of_rows(post: vihier.Posterior, test: pd.DataFrame) -> np.ndarray | None:
    """Return the degrees of freedom of each row in each draw, [draws, N or 1]; None where rows are Normal."""
    config = post.config
    if config.get("likelihood", "normal") == "normal":
        return None
    if "nu" not in post.variables:
        return np.full((1, 1), float(config["nu"]))
    values = post.draws("nu").to_numpy()[0].astype(np.float64)
    if values.ndim == 1:
        return values[:, None]
    return values[:, pd.Index(post.labels("screen")).get_indexer(test["screen"])]


def log_density(z: np.ndarray, sigma: np.ndarray, nu: np.ndarray | None) -> np.ndarray:
    """Log density of rows with residuals z, in units of their noise scale sigma."""
    if nu is None:
        return -0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
    return constant - np.log(sigma) - (nu + 1) / 2 * np.log1p(z**2 / nu)


def predict_rows(post: vihier.Posterior, test: pd.DataFrame, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predict rows by a posterior of `additive` (or `crossed`, or `gene_lineage`), gene by gene.

    Returns
    -------
    tuple
        Log predictive density [N], the density averaged over draws; and the predictive probability of a lower value,
        [N], uniform where the model is right.
    """
    sites = [name for name in ("alpha", "beta") if name in post.variables]
    flat = {name: post.draws(name).to_numpy()[0].astype(np.float64) for name in sites}
    where = {dim: pd.Index(post.labels(dim)) for dim in ("sgrna", "depmap_id") if dim in post.dims}
    density, lower = np.empty(len(test)), np.empty(len(test))
    y, groups = test["lfc"].to_numpy(), test.groupby("hugo_symbol", sort=True, observed=True).indices
    for gene, rows in groups.items():
        of_gene = test.iloc[rows]
        line = where["depmap_id"].get_indexer(of_gene["depmap_id"])
        mean = post.draws("gamma", hugo_symbol=str(gene)).to_numpy()[0, :, 0][:, line].astype(np.float64)
        if sites:
            sgrna = where["sgrna"].get_indexer(of_gene["sgrna"])
            mean = mean + flat["alpha"][:, sgrna] + flat["beta"][:, line]
        # The same draws of a new replicate's noise for every gene.
        sigma = noise_of_rows(post, of_gene, np.random.default_rng(seed))
        nu = freedom_of_rows(post, of_gene)
        z = (y[rows] - mean) / sigma
        density[rows] = logsumexp(log_density(z, sigma, nu), axis=0) - np.log(len(z))
        lower[rows] = (stdtr(1e9 if nu is None else np.broadcast_to(nu, z.shape), z)).mean(axis=0)
    return density, lower
