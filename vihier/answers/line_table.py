"""One row for each cell line: its own effect, its noise, and how well it separates control genes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vihier.answers.effect_draws import lineages, require_effect
from vihier.answers.effect_summary import LOWER, UPPER
from vihier.answers.export import effect_matrix
from vihier.answers.noise import line_noise
from vihier.answers.residuals import Residuals
from vihier.diagnostics.control_genes import ControlGenes, separation
from vihier.posterior.moments import moments_of_draws
from vihier.posterior.reader import Posterior

# Sites that a model may have for each line; of `crossed` only the sum of beta and theta is identified.
_LINE_EFFECTS = {"beta_plus_theta": "beta_plus_theta_dev", "beta_dev": "beta_dev"}
LINE_EFFECT_COLUMNS = tuple(_LINE_EFFECTS.values())
"""What the column of line effects is called."""


def line_table(
    post: Posterior, controls: ControlGenes | None = None, residuals: Residuals | None = None
) -> pd.DataFrame:
    """Return a table of the lines.

    Parameters
    ----------
    post
        A fit with `effect`.
    controls
        Reference genes, by which quality is judged.
    residuals
        Of the rows that were fitted, from `vihier.answers.residuals`.

    Returns
    -------
    DataFrame
        `depmap_id`; `lineage` where the fit knows it; where the model has an effect of lines, `beta_dev` (log2 fold
        change; `beta_plus_theta_dev` of `crossed`) with `sd`, bounds of its 0.89 interval and `prob_negative`; where
        noise is a line's own, `sigma` and `sigma_sd` (of noise by replicate, the root mean square of the line's); with
        residuals `residual`, the root mean square of the line's rows minus what the fit expects of them;
        `median_effect_sd`, the median over genes of the effects' sd;
        and with control genes `nonessential` and `essential`, their median effects, `auroc` and `nnmd`.

    Raises
    ------
    VihierError
        No `effect` in the fit, or no control gene of one kind.
    """
    require_effect(post)
    columns: dict[str, np.ndarray] = {"depmap_id": post.labels("depmap_id")}
    if "lineage_of_line" in post.group("index"):
        names, of_line = lineages(post)
        columns["lineage"] = names[of_line]
    columns |= _line_effect(post)
    noise = line_noise(post)
    if noise is not None:
        columns |= dict(zip(("sigma", "sigma_sd"), noise, strict=True))
    if residuals is not None:
        columns["residual"] = residuals.line
    columns["median_effect_sd"] = effect_matrix(post, "sd").median(axis=1).to_numpy()
    if controls is not None:
        effect = effect_matrix(post)
        essential, nonessential = (effect.iloc[:, places].median(axis=1) for places in controls.among(effect.columns))
        columns |= {"nonessential": nonessential.to_numpy(), "essential": essential.to_numpy()}
        judged = separation(effect, controls)
        columns |= {name: judged[name].to_numpy() for name in ("auroc", "nnmd")}
    return pd.DataFrame(columns)


def _line_effect(post: Posterior) -> dict[str, np.ndarray]:
    name = next((name for name in _LINE_EFFECTS if post.variables.get(name) == ("depmap_id",)), None)
    if name is None:
        return {}
    draws = post.draws(name).values
    # Raw line effects are known up to an offset that all lines share; deviations from their mean are not.
    moments = moments_of_draws(draws - draws.mean(axis=2, keepdims=True))
    return {
        _LINE_EFFECTS[name]: moments["mean"],
        "sd": moments["sd"],
        LOWER: moments["hdi_lower"],
        UPPER: moments["hdi_upper"],
        "prob_negative": moments["prob_negative"],
    }
