"""Quality of lines and sgRNAs, from what a fit says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vihier.answers.control_scaling import ControlScaling, control_scaling
from vihier.answers.line_table import LINE_EFFECT_COLUMNS, line_table
from vihier.answers.noise import replicate_table
from vihier.answers.residuals import residuals
from vihier.answers.sgrna_table import has_sgrna_effects, sgrna_table
from vihier.diagnostics.control_genes import ControlGenes
from vihier.posterior.reader import Posterior
from vihier.quality.flags import Words, flags_of, measured
from vihier.quality.limits import FIT_LIMITS, Limit, robust_z
from vihier.screen.screen import Screen
from vihier.store.store import ScreenStore

# An sgRNA is not flagged for a deviation whose very sign is in doubt.
SURE_OF_SIGN = 0.99


@dataclass(frozen=True, eq=False)
class FitQuality:
    """Tables of what a fit says of lines and sgRNAs.

    Attributes
    ----------
    lines
        `line_table`, and `shift` and `noise`: the line's effect and noise (the model's own, or the residuals') in
        robust standard deviations (1.4826 MAD) from the medians over lines, where they are known.
    sgrnas
        `sgrna_table`, and `z`: `alpha_dev` in robust standard deviations of all sgRNAs; None where the model has no
        effects of sgRNAs.
    replicates
        `replicate_table`, and `noise`: the scale in robust standard deviations from the median over replicates; None
        where the model has no noise scale for each replicate.
    flags
        What is beyond a limit: `about`, `label`, `measure`, `value`, `limit`, `text`.
    overview
        Sizes of the whole, and `measured`: of each measure that has a limit its median and worst value.
    """

    lines: pd.DataFrame
    sgrnas: pd.DataFrame | None
    replicates: pd.DataFrame | None
    flags: pd.DataFrame
    overview: dict[str, Any]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables that have rows, by name."""
        found = {"lines": self.lines, "sgrnas": self.sgrnas, "replicates": self.replicates, "flags": self.flags}
        return {name: table for name, table in found.items() if table is not None and len(table)}


def fit_quality(
    post: Posterior,
    controls: ControlGenes | None = None,
    limits: Sequence[Limit] = FIT_LIMITS,
    screen: Screen | ScreenStore | None = None,
) -> FitQuality:
    """Judge the lines and sgRNAs of a fit.

    Parameters
    ----------
    post
        A fit with `effect`.
    controls
        Reference genes.
    limits
        Where a measure becomes a flag.
    screen
        What was fitted; its rows say how noisy a line is where the model has one noise for all.

    Raises
    ------
    VihierError
        No `effect` in the fit, or no control gene of one kind.
    """
    off = None if screen is None else residuals(post, screen)
    lines = line_table(post, controls, off)
    effect = next((name for name in LINE_EFFECT_COLUMNS if name in lines), None)
    if effect is not None:
        lines["shift"] = robust_z(lines[effect].to_numpy(np.float64))
    noise = next((name for name in ("sigma", "residual") if name in lines), None)
    if noise is not None:
        lines["noise"] = robust_z(lines[noise].to_numpy(np.float64))
    sgrnas = None
    if has_sgrna_effects(post):
        sgrnas = sgrna_table(post, _scaling(post, lines, controls), off)
        doubtful = sgrnas["prob_negative"].between(1 - SURE_OF_SIGN, SURE_OF_SIGN)
        sgrnas["z"] = robust_z(sgrnas["alpha_dev"].to_numpy(np.float64))
    words = _line_words(effect, noise)
    flags = [flags_of(lines, [each for each in limits if each.about == "line"], words, "depmap_id")]
    if sgrnas is not None:
        of_sgrnas = [each for each in limits if each.about == "sgRNA"]
        flags.append(flags_of(sgrnas[~doubtful], of_sgrnas, {"z": _sgrna_words}, "sgrna"))
    replicates = replicate_table(post)
    if replicates is not None:
        replicates["noise"] = robust_z(replicates["sigma"].to_numpy(np.float64))
        of_replicates = [each for each in limits if each.about == "replicate"]
        flags.append(flags_of(replicates, of_replicates, {"noise": _replicate_words}, "replicate"))
    found = pd.concat(flags, ignore_index=True)
    judged = {"line": lines, "sgRNA": None if sgrnas is None else sgrnas[~doubtful], "replicate": replicates}
    overview = {
        "model": post.model,
        "guide": post.guide,
        "converged": post.converged,
        "n_genes": len(post.labels("hugo_symbol")),
        "n_lines": len(lines),
        "n_sgrnas": None if sgrnas is None else len(sgrnas),
        "measured": measured({name: table for name, table in judged.items() if table is not None}, limits),
        "n_flags": len(found),
    }
    return FitQuality(lines, sgrnas, replicates, found, overview)


def _scaling(post: Posterior, lines: pd.DataFrame, controls: ControlGenes | None) -> ControlScaling | None:
    """Return the lines' units; None where a line has none, which is for this module to flag and not to refuse."""
    if controls is None or not (lines["essential"] < lines["nonessential"]).all():
        return None
    return control_scaling(post, controls)


def _line_words(effect: str | None, noise: str | None) -> dict[str, Words]:
    return {
        "shift": lambda row: (
            f"line {row['depmap_id']}: {effect} is {row[effect]:.2f}, {abs(row['shift']):.0f} robust sds "
            "from the others"
        ),
        "noise": lambda row: (
            f"line {row['depmap_id']}: its noise is {row[noise]:.2f}, {row['noise']:.0f} robust sds above the others'"
        ),
        "auroc": lambda row: f"line {row['depmap_id']} tells control genes apart with AUROC {row['auroc']:.2f}",
        "nnmd": lambda row: f"line {row['depmap_id']} tells control genes apart with NNMD {row['nnmd']:.1f}",
    }


def _replicate_words(row: pd.Series) -> str:
    size = f"{row['sigma']:.2f}, {row['noise']:.0f} robust sds above the others'"
    return f"replicate {row['replicate']}: its noise is {size}"


def _sgrna_words(row: pd.Series) -> str:
    side = "below" if row["alpha_dev"] < 0 else "above"
    return f"sgRNA {row['sgrna']} of {row['hugo_symbol']} is {abs(row['alpha_dev']):.2f} {side} the mean of its gene's"
