"""The guide against NUTS, for the genes that were refined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from vihier.errors import VihierError
from vihier.posterior.layout import SAMPLE_DIMS
from vihier.posterior.reader import Posterior
from vihier.refinement.writing import GIVEN_SHARED, NUTS, NUTS_DIAGNOSTICS

QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
# A Normal's 5 and 95 % quantiles are so many sds apart.
SDS_APART = 3.29
# A quantile agrees that is so many sds away at most, and further only by Monte Carlo error, at most so many standard
# errors: of some thousand quantiles, a few are three off by chance.
AGREES_WITHIN, AGREES_ERRORS = 0.2, 4.0


@dataclass(frozen=True)
class Compared:
    """One variable's draws by both, flattened over its elements.

    Attributes
    ----------
    name
        The variable.
    labels
        Columns that name the elements.
    guide, nuts
        Draws, [n, elements].
    khat, rhat
        Of each element: the k-hat of its gene, or of what genes share, and the R-hat of NUTS.
    """

    name: str
    labels: dict[str, np.ndarray]
    guide: np.ndarray
    nuts: np.ndarray
    khat: np.ndarray
    rhat: np.ndarray

    @property
    def statistics(self) -> dict[str, np.ndarray]:
        """Mean, sd and quantiles of both, and how far they are apart, each over the elements."""
        found: dict[str, np.ndarray] = {}
        both = {"guide": self.guide, "nuts": self.nuts}
        for source, draws in both.items():
            found |= {f"mean_{source}": draws.mean(axis=0), f"sd_{source}": draws.std(axis=0)}
        found["difference"] = (found["mean_guide"] - found["mean_nuts"]) / found["sd_nuts"]
        found["sd_ratio"] = found["sd_guide"] / found["sd_nuts"]
        for source, draws in both.items():
            quantiles = np.quantile(draws, list(QUANTILES.values()), axis=0)
            found |= {f"{name}_{source}": values for name, values in zip(QUANTILES, quantiles, strict=True)}
        unit = (found["q95_nuts"] - found["q05_nuts"]) / SDS_APART
        for name in QUANTILES:
            found[f"{name}_difference"] = (found[f"{name}_guide"] - found[f"{name}_nuts"]) / unit
        return found

    def quantile_errors(self) -> np.ndarray:
        """Monte Carlo standard errors of the differences of the quantiles, in sds, shape [3, elements]."""
        at = np.array(list(QUANTILES.values()))
        low, high = np.quantile(self.nuts, [0.05, 0.95], axis=0)
        total = np.zeros((len(at), self.nuts.shape[1]))
        # Draws of a swept guide come eight from a chain: they are worth half their number, as is usual for NUTS.
        for draws in (self.guide, self.nuts):
            step = np.sqrt(at * (1 - at) / (len(draws) / 2))
            above = np.quantile(draws, np.minimum(at + step, 1), axis=0)
            total += np.square((above - np.quantile(draws, np.maximum(at - step, 0), axis=0)) / 2)
        return np.sqrt(total) / ((high - low) / SDS_APART)


def compared(post: Posterior, variables: Sequence[str] | None = None) -> Iterator[Compared]:
    """Yield the variables that both have, one at a time.

    Parameters
    ----------
    post
        A refined fit.
    variables
        Which; when None all, or those of genes where NUTS took what genes share from the fit.

    Raises
    ------
    VihierError
        The fit was not refined, or has no such variable.
    """
    if not post.has_group(NUTS):
        raise VihierError(f"{post.path}: holds no NUTS draws; `vihier refine {post.path.name} --worst 20` adds them")
    diagnostics = post.group("diagnostics") if post.has_group("diagnostics") else xr.Dataset()
    figures = post.group(NUTS_DIAGNOSTICS)
    chosen = list(post.variables) if variables is None else variables
    if variables is None and post.group(NUTS, only=()).attrs.get(GIVEN_SHARED):
        chosen = [name for name in chosen if {"hugo_symbol", "sgrna"} & set(post.variables[name])]
    for name in chosen:
        if name not in post.variables:
            post.moments(name)  # refuses it, naming the nearest
        theirs = post.group(NUTS, only=[name])[name]
        dims = [str(dim) for dim in theirs.dims[2:]]
        ours = post.draws(name, **{dim: theirs[dim].values.tolist() for dim in dims}).transpose(*SAMPLE_DIMS, *dims)
        size = int(np.prod(theirs.shape[2:]))
        grids = np.meshgrid(*(theirs[dim].values for dim in dims), indexing="ij") if dims else []
        labels = {dim: grid.ravel() for dim, grid in zip(dims, grids, strict=True)}
        yield Compared(
            name,
            labels,
            ours.values.reshape(-1, size).astype(np.float64),
            theirs.values.reshape(-1, size).astype(np.float64),
            _khat(post, diagnostics, labels, size),
            figures[f"{name}_rhat"].values.ravel(),
        )


def _khat(post: Posterior, diagnostics: xr.Dataset, labels: dict[str, np.ndarray], n: int) -> np.ndarray:
    """K-hat of each element: its gene's, or that of what genes share; not a number where the guide has none."""
    if "khat" not in diagnostics:
        return np.full(n, np.nan)
    genes = labels.get("hugo_symbol")
    if genes is None and "sgrna" in labels:
        of_sgrna = dict(zip(post.labels("sgrna").tolist(), post.group("index")["gene_of_sgrna"].values, strict=True))
        genes = post.labels("hugo_symbol")[[of_sgrna[label] for label in labels["sgrna"].tolist()]]
    if genes is None:
        return np.full(n, float(diagnostics["khat_globals"]))
    return diagnostics["khat"].sel(hugo_symbol=list(genes)).values


def agreement_table(post: Posterior, variables: Sequence[str] | None = None) -> pd.DataFrame:
    """Say for each variable how far the guide is from NUTS.

    Returns
    -------
    DataFrame
        One row a variable: `elements`; `difference_rms` and `difference_max` of the means, in NUTS sds; smallest and
        largest `sd_ratio` (guide over NUTS); `quantile_rms` and `quantile_max`, differences of the 5, 50 and 95 %
        quantiles in (q95 - q05) / 3.29, the sd of a Normal; the largest `khat` and `rhat`; `worst`, the element of the
        largest quantile difference; `agrees`: every quantile within 0.2 sds and four Monte Carlo standard errors.
        Scales are often far from Normal: look at their quantiles, not at their sds.
    """
    rows = []
    for one in compared(post, variables):
        found = one.statistics
        quantile = np.stack([found[f"{name}_difference"] for name in QUANTILES])
        beyond = np.abs(quantile) - AGREES_ERRORS * one.quantile_errors()
        worst = int(np.abs(quantile).max(axis=0).argmax())
        rows.append(
            {
                "variable": one.name,
                "elements": one.nuts.shape[1],
                "difference_rms": float(np.sqrt(np.mean(found["difference"] ** 2))),
                "difference_max": float(np.abs(found["difference"]).max()),
                "sd_ratio_min": float(found["sd_ratio"].min()),
                "sd_ratio_max": float(found["sd_ratio"].max()),
                "quantile_rms": float(np.sqrt(np.mean(quantile**2))),
                "quantile_max": float(np.abs(quantile).max()),
                "khat": float(np.max(one.khat)),
                "rhat": float(np.max(one.rhat)),
                "worst": " ".join(str(label[worst]) for label in one.labels.values()),
                "agrees": bool(beyond.max() <= AGREES_WITHIN),
            }
        )
    return pd.DataFrame(rows)


def element_table(post: Posterior, variable: str) -> pd.DataFrame:
    """Return both posteriors of each element of a variable, the most different ones first.

    Returns
    -------
    DataFrame
        `variable`, the label columns, `difference` of the means in NUTS sds, `sd_ratio`, mean, sd and quantiles by
        either, differences of the quantiles, `khat`, `rhat`.
    """
    (one,) = compared(post, [variable])
    found = one.statistics
    table = pd.DataFrame({**one.labels, **found, "khat": one.khat, "rhat": one.rhat})
    table.insert(0, "variable", variable)
    largest = np.abs(np.stack([found[f"{name}_difference"] for name in QUANTILES])).max(axis=0)
    return table.iloc[np.argsort(-largest, kind="stable")].reset_index(drop=True)
