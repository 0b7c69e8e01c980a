"""How a gene's effect differs between two sets of cell lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vihier.answers.control_scaling import ControlScaling, control_scaling
from vihier.answers.effect_draws import require_effect
from vihier.answers.effect_summary import strongest_first, summarise_effects
from vihier.answers.false_sign import check_beyond, check_level, false_discovery_rate
from vihier.answers.line_sets import other_lines
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior
from vihier.screen.faults import nearest, shown


@dataclass(frozen=True, eq=False)
class Contrast:
    """Differences between two sets of lines.

    Attributes
    ----------
    table
        One row a gene: `hugo_symbol`; `effect` and `effect_against`, posterior means of the mean effect over the lines
        of each set; `difference`, the posterior mean of the first minus the second, with `sd`, bounds of its 0.89
        interval, `prob_negative`; `lfsr`, its local false sign rate; `fdr`, the mean of it over all genes that are at
        least as sure; `hit`. Hits come first, of these the negative differences (selective dependencies of the first
        set), of these the strongest, by the bound of the interval that is nearer to 0; then the others, surest first.
    lines, against
        The two sets.
    fdr
        The level asked for.
    """

    table: pd.DataFrame
    lines: tuple[str, ...]
    against: tuple[str, ...]
    fdr: float


def contrast(
    post: Posterior,
    lines: Sequence[str],
    against: Sequence[str] | None = None,
    *,
    fdr: float = 0.05,
    beyond: float = 0.0,
    controls: ControlGenes | None = None,
) -> Contrast:
    """Compare each gene's mean effect over one set of lines with that over another, draw by draw.

    Subtracting posterior means would lose what the lines' effects have in common: the sgRNAs' efficacy, which cancels
    in the difference, and the line effects, which do not.

    Parameters
    ----------
    post
        A fit with `effect`.
    lines
        The first set, by `depmap_id`.
    against
        The second; all other lines when None.
    fdr
        Bayesian false discovery rate of the hits: their mean local false sign rate.
    beyond
        Call differences whose size is beyond this; in log2 fold change, or in the unit of the control genes.
    controls
        Bring each line to its own unit first: non-essential genes at 0, essential ones at -1. Without this, sets of
        lines that differ in how far all genes set them back differ in most genes.

    Raises
    ------
    VihierError
        A set that is empty or names a line that the fit does not have, a line in both sets, no `effect` in the fit, or
        control genes of no use.
    """
    check_level(fdr)
    check_beyond(beyond)
    require_effect(post)
    first = _checked(post, lines, "the first set")
    second = _checked(post, other_lines(post, first) if against is None else against, "the set against it")
    both = sorted(set(first) & set(second))
    if both:
        more = f" (and {len(both) - 1:,} more)" if len(both) > 1 else ""
        raise VihierError(f"line {shown(both[0])}{more} is in both sets; take it out of one of them")
    split = len(first)

    def combine(effects: np.ndarray) -> np.ndarray:
        means = [effects[:, :, :split].mean(axis=2), effects[:, :, split:].mean(axis=2)]
        return np.stack([means[0] - means[1], *means], axis=2)

    scaling = None if controls is None else _of_lines(post, control_scaling(post, controls), [*first, *second])
    summary = summarise_effects(post, combine, 3, scaling=scaling, beyond=beyond, lines=[*first, *second])
    difference = np.arange(len(summary.mean)) * 3
    rate = false_discovery_rate(summary.lfsr[:, 0])
    table = pd.DataFrame(
        {
            "hugo_symbol": post.labels("hugo_symbol"),
            "effect": summary.mean[:, 1],
            "effect_against": summary.mean[:, 2],
            "difference": summary.mean[:, 0],
            **summary.columns(difference),
            "fdr": rate,
            "hit": rate <= fdr,
        }
    )
    ranked = strongest_first(*(values[:, 0] for values in (summary.mean, summary.hdi_lower, summary.hdi_upper)))
    called = ranked[(rate <= fdr)[ranked]]
    others = np.setdiff1d(ranked, called)
    order = np.r_[called, others[np.argsort(rate[others], kind="stable")]]
    return Contrast(table.take(order).reset_index(drop=True), tuple(first), tuple(second), fdr)


def _checked(post: Posterior, lines: Sequence[str], which: str) -> list[str]:
    known = post.labels("depmap_id")
    chosen = [lines] if isinstance(lines, str) else list(dict.fromkeys(lines))
    if not chosen:
        raise VihierError(f"no line is in {which}; name one, such as {shown(known[0])}")
    for line in chosen:
        if line not in known:
            raise VihierError(f"line {shown(line)} of {which} is not in the fit{nearest(line, known)}")
    return chosen


def _of_lines(post: Posterior, scaling: ControlScaling, lines: Sequence[str]) -> ControlScaling:
    place = {line: i for i, line in enumerate(post.labels("depmap_id"))}
    chosen = [place[line] for line in lines]
    return replace(scaling, zero=scaling.zero[chosen], unit=scaling.unit[chosen])
