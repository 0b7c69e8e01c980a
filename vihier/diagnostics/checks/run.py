"""Go through the list for one fit; its rows are looked at block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri
from torch.distributions import constraints

from vihier.diagnostics.checks import controls as control_check
from vihier.diagnostics.checks import fitting, hyperparameters, predictive, residuals, shrinkage
from vihier.diagnostics.checks.deviations import scatter_of_block
from vihier.diagnostics.checks.items import Item, Status
from vihier.diagnostics.control_genes import ControlGenes
from vihier.inference.predict import Model, draw_rows, program_of
from vihier.inference.predictor import Predictor
from vihier.inference.screen_of_fit import fitted_part
from vihier.models.counts import COUNTS, EXPECTED, log2_ratio
from vihier.posterior.reader import Posterior
from vihier.screen import Screen

PRIOR_DRAWS = 4000
# Covariates with more labels than this are not batches.
MOST_LABELS = 100


@dataclass(frozen=True, eq=False)
class Checked:
    """The list, gone through.

    Attributes
    ----------
    items
        Every item, in order.
    p_values
        Posterior predictive p-values by grouping; none without the screen.
    """

    items: tuple[Item, ...]
    p_values: tuple[predictive.PValues, ...]

    @property
    def status(self) -> Status:
        """The worst of the items'."""
        found = {item.status for item in self.items}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    def table(self) -> pd.DataFrame:
        """Return the items as rows: ``item``, ``status``, ``sentence``."""
        return pd.DataFrame(
            [(item.name, item.status, item.sentence) for item in self.items], columns=["item", "status", "sentence"]
        )

    def p_value_table(self) -> pd.DataFrame:
        """Return the p-values as rows: ``grouping``, ``label``, and one column a statistic."""
        parts = [pd.DataFrame({"grouping": x.grouping, "label": x.labels, **x.values}) for x in self.p_values]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["grouping", "label"])


def check_fit(
    posterior: Posterior,
    screen: Screen | None = None,
    *,
    controls: ControlGenes | None = None,
    draws: int = 200,
    seed: int = 0,
    model: Model | None = None,
) -> Checked:
    """Ask of a fit what a referee would.

    Parameters
    ----------
    posterior
        The fit.
    screen
        The screen that it is of, or one that holds it; without it only the fit's own diagnostics are looked at.
    controls
        Reference genes, for a model with `effect`.
    draws
        Draws of the posterior that rows are drawn from.
    seed
        Of the rows drawn.
    model
        The program, for a fit of one's own.

    Returns
    -------
    Checked

    Raises
    ------
    VihierError
        The screen is another one than the fit's; control genes that are not in it.
    """
    items = fitting.of_fit(posterior)
    p_values: list[predictive.PValues] = []
    if screen is None:
        items.append(Item("rows", "warn", "what the fit says of its rows was not looked at; give the screen"))
    else:
        program = program_of(posterior, model)
        screen = fitted_part(posterior, program, screen)
        n_draws = min(draws, posterior.n_draws * posterior.n_chains)
        predictor = Predictor.of(posterior, screen, program, draws=n_draws, seed=seed)
        of_rows, p_values = _of_rows(predictor, posterior)
        prior = Predictor.of(None, screen, program, draws=PRIOR_DRAWS, seed=seed)
        items += [*of_rows, *_of_hyperparameters(posterior, prior)]
    if controls is not None:
        items.append(control_check.of_fit(posterior, controls))
    return Checked(tuple(items), tuple(p_values))


def _of_rows(predictor: Predictor, posterior: Posterior) -> tuple[list[Item], list[predictive.PValues]]:
    screen = predictor.screen
    measured, of_counts = screen.lfc, predictor.program.likelihood.is_of_counts
    if of_counts:
        measured = log2_ratio(screen.covariates[COUNTS], screen.covariates[EXPECTED])
    groups = [predictive.Groups(name, code, labels, measured) for name, code, labels in _groupings(screen)]
    rank = np.empty(screen.n_rows)
    scatters: dict[str, shrinkage.Scatter] = {}
    for number, block in enumerate(predictor.blocks()):
        lfc = measured[block.rows]
        drawn = np.empty((predictor.n_draws, len(lfc)))
        for at, run in block.runs():
            drawn[at] = draw_rows(run.rows, predictor.seed, int(block.batch.gene_idx[0]), at.start)[0]
        if of_counts:
            drawn = log2_ratio(drawn, screen.covariates[EXPECTED][block.rows])
        rank[block.rows] = (drawn < lfc).sum(0) + 0.5 * (drawn == lfc).sum(0)
        for each in groups:
            each.add(block.rows, drawn)
        for name, scatter in scatter_of_block(block, number == 0):
            scatters[name] = scatters[name] + scatter if name in scatters else scatter
    items, p_values = predictive.judge_all(groups)
    # Quantile residuals (Dunn & Smyth 1996, J. Comput. Graph. Stat. 5, 236): standard Normal whatever the likelihood.
    residual = ndtri((rank + 0.5) / (predictor.n_draws + 1))
    items += [residuals.structure(name, residual, code, labels) for name, code, labels in _batches(screen)]
    told = {name: scatter for name, scatter in scatters.items() if name not in posterior.not_identified}
    return [*items, shrinkage.judge(told, predictor.n_draws)], p_values


def _groupings(screen: Screen) -> list[tuple[str, np.ndarray, np.ndarray]]:
    index = screen.index
    found = [("gene", screen.gene, index.genes), ("line", screen.line, index.lines)]
    if index.lineages is not None and index.lineage_of_line is not None:
        found.append(("lineage", index.lineage_of_line[screen.line], index.lineages))
    return [*found, ("replicate", screen.replicate, index.replicates)]


def _batches(screen: Screen) -> list[tuple[str, np.ndarray, np.ndarray]]:
    index = screen.index
    found = [
        (name, screen.covariates[name], labels)
        for name, labels in index.categories.items()
        if 2 <= len(labels) <= MOST_LABELS
    ]
    return [*found, ("line", screen.line, index.lines), ("replicate", screen.replicate, index.replicates)]


def _of_hyperparameters(posterior: Posterior, prior: Predictor) -> list[Item]:
    marked = posterior.not_identified
    scalars = [site for site in prior.sites.shared if not any(site.axis_dims())]
    from_prior = {site.name: prior.shared[site.name].numpy().ravel() for site in scalars}
    from_fit = {site.name: posterior.draws(site.name).to_numpy().ravel().astype(np.float64) for site in scalars}
    locations = [site.name for site in scalars if site.support is constraints.real]
    return [
        hyperparameters.prior_overlap(from_prior, from_fit, marked),
        hyperparameters.directions(
            {name: from_prior[name] for name in locations},
            {name: from_fit[name] for name in locations},
            marked,
            marked.get("effect"),
        ),
    ]
