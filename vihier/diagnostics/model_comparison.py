"""Several fits of one screen beside each other: leave-one-out or held-out log predictive densities.

Differences are taken unit by unit, so that their standard errors are those of paired data (Vehtari, Gelman & Gabry
2017, Statistics and Computing 27, 1413, eq. 24).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vihier.diagnostics.leave_one_out import By, LeaveOneOut, Method, leave_rows_out, likelihood_unit, standard_error
from vihier.errors import VihierError
from vihier.inference.predict import Model, program_of
from vihier.inference.predict_table import RowsToPredict, predicted_blocks
from vihier.inference.predictor import Predictor
from vihier.inference.screen_of_fit import fitted_part
from vihier.posterior.reader import Posterior
from vihier.screen import Screen

if TYPE_CHECKING:
    import pandas as pd

Fits = Mapping[str, Posterior]
BAD_SHARE = 0.01


def compare_loo(
    fits: Fits,
    screen: Screen,
    *,
    by: By = "row",
    method: Method = "conditional",
    draws: int | None = 500,
    seed: int = 0,
    models: Mapping[str, Model] | None = None,
) -> pd.DataFrame:
    """Compare fits of one screen by PSIS-LOO.

    Parameters
    ----------
    fits
        Name -> fit, two or more (one is only described).
    screen
        The screen that all are fits of, or one that holds it.
    by
        Leave out `row` s, or all replicate rows of an (sgRNA, line) `cell`.
    method
        `conditional` (exact given the scales) or `draws`; see `vihier.diagnostics.leave_one_out`.
    draws
        How many draws of each fit to use, evenly spaced; None is all.
    seed
        Of what is drawn on the way.
    models
        Name -> program, for fits of one's own programs.

    Returns
    -------
    DataFrame
        As ArviZ's `compare`, best first: index the names; ``rank``, ``elpd_loo`` (nats), ``p_loo``, ``elpd_diff``
        (best less this), ``se``, ``dse`` (of the difference), ``bad_k`` (share of units with k-hat above 0.7),
        ``warning`` (more than 1 % are), ``scale``.

    Raises
    ------
    VihierError
        A fit of another screen, likelihoods of different units, a program outside the family of `conditional`.
    """
    predictors = {}
    for name, post in fits.items():
        program = program_of(post, (models or {}).get(name))
        part = fitted_part(post, program, screen)
        n_there = post.n_draws * post.n_chains
        n_draws = None if draws is None else min(draws, n_there)
        predictors[name] = Predictor.of(post, part, program, draws=n_draws, seed=seed)
    _check_same_training(fits)
    _check_units(predictors)
    return loo_table({name: leave_rows_out(predictor, by, method) for name, predictor in predictors.items()})


def loo_table(found: Mapping[str, LeaveOneOut]) -> pd.DataFrame:
    """Return the table of `compare_loo` from leave-one-out densities of the same units."""
    import pandas as pd

    order = sorted(found, key=lambda name: -found[name].total)
    best = found[order[0]].elpd
    rows = []
    for rank, name in enumerate(order):
        loo = found[name]
        rows.append(
            {
                "rank": rank,
                "elpd_loo": loo.total,
                "p_loo": loo.p_loo,
                "elpd_diff": float((best - loo.elpd).sum()),
                "se": loo.se,
                "dse": standard_error(best - loo.elpd),
                "bad_k": loo.share_bad,
                "warning": loo.share_bad > BAD_SHARE,
                "scale": "log",
            }
        )
    return pd.DataFrame(rows, index=pd.Index(order, name="model"))


def compare_held_out(
    fits: Fits,
    rows: RowsToPredict,
    *,
    draws: int | None = 500,
    seed: int = 0,
    models: Mapping[str, Model] | None = None,
) -> pd.DataFrame:
    """Compare fits by the log predictive density of rows that none of them has seen.

    Parameters
    ----------
    fits
        Name -> fit, all of the same training screen.
    rows
        Rows with `lfc`.
    draws, seed, models
        As for `compare_loo`.

    Returns
    -------
    DataFrame
        Best first: ``rank``, ``elpd`` (sum of log predictive densities, nats), ``elpd_diff``, ``se``, ``dse``,
        ``per_row``, ``scale``.

    Raises
    ------
    VihierError
        No row has `lfc`; fits to different screens; likelihoods of different units.
    """
    import pandas as pd

    _check_same_training(fits)
    predictors = {}
    for name, post in fits.items():
        n_there = post.n_draws * post.n_chains
        n_draws = None if draws is None else min(draws, n_there)
        program = program_of(post, (models or {}).get(name))
        predictors[name] = Predictor.of(post, rows.screen, program, draws=n_draws, seed=seed)
    _check_units(predictors)
    column, measured = rows.measured(next(iter(predictors.values())).program)
    if measured is None or not np.isfinite(measured).any():
        raise VihierError(f"held-out rows: none has a value in column {column!r}; give the rows with what was measured")
    density = {}
    for name, predictor in predictors.items():
        blocks = predicted_blocks(predictor, rows, fits[name])
        values = np.concatenate([block["log_density"].to_numpy() for block in blocks])
        density[name] = values[np.isfinite(measured)]
    order = sorted(density, key=lambda name: -float(density[name].sum()))
    best = density[order[0]]
    table = [
        {
            "rank": rank,
            "elpd": float(density[name].sum()),
            "elpd_diff": float((best - density[name]).sum()),
            "se": standard_error(density[name]),
            "dse": standard_error(best - density[name]),
            "per_row": float(density[name].mean()),
            "scale": "log",
        }
        for rank, name in enumerate(order)
    ]
    return pd.DataFrame(table, index=pd.Index(order, name="model"))


def _check_units(predictors: Mapping[str, Predictor]) -> None:
    units = {name: likelihood_unit(predictor) for name, predictor in predictors.items()}
    first, *others = units
    for name in others:
        if units[name] != units[first]:
            raise VihierError(
                f"{name}: gives densities to {units[name]} and {first} to {units[first]}; densities of different units "
                "cannot be compared, so compare models of one kind of data"
            )


def _check_same_training(fits: Fits) -> None:
    first, *others = fits
    for name in others:
        for dim in ("sgrna", "hugo_symbol", "depmap_id"):
            ours, theirs = (
                fits[each].labels(dim).tolist() if dim in fits[each].dims else None for each in (first, name)
            )
            if ours is not None and theirs is not None and ours != theirs:
                raise VihierError(
                    f"{name}: is a fit of another screen than {first} (their {dim} differ); fit both to the same rows"
                )
