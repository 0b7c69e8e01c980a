"""What the file itself says of how far the fit can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from vihier.errors import VihierError

if TYPE_CHECKING:
    import xarray as xr

    from vihier.posterior.reader import Posterior

Status = Literal["pass", "warn", "fail"]
# Vehtari et al. (2024, JMLR 25, 72): importance weights with a larger shape have no use.
KHAT_LIMIT = 0.7


@dataclass(frozen=True)
class CheckItem:
    """One item of a list of checks, in one sentence."""

    name: str
    status: Status
    sentence: str


def checks_of_file(post: Posterior) -> list[CheckItem]:
    """Return what can be said without the screen: convergence, k-hat, what is not identified."""
    reason = str(post.attrs.get("reason", ""))
    verdict = "It met its stopping rule" if post.converged else "It did not meet its stopping rule"
    found = [
        CheckItem(
            "convergence", "pass" if post.converged else "fail", f"{verdict}: {reason}." if reason else f"{verdict}."
        )
    ]
    found += _khat_items(post)
    names = sorted(post.not_identified)
    if names:
        effect = "effect" in names
        sentence = f"The data say nothing about {', '.join(names)}; do not interpret them."
        found.append(CheckItem("identification", "fail" if effect else "warn", sentence))
    return found


def khat_of_genes(post: Posterior) -> xr.DataArray | None:
    """Return Pareto k-hat of each gene's own scales, [G], where the file has it."""
    diagnostics = _diagnostics(post)
    if diagnostics is None or "khat" not in diagnostics or diagnostics["khat"].dims != ("hugo_symbol",):
        return None
    return diagnostics["khat"]


def _diagnostics(post: Posterior) -> xr.Dataset | None:
    try:
        return post.group("diagnostics")
    except VihierError:
        return None


def _khat_items(post: Posterior) -> list[CheckItem]:
    diagnostics = _diagnostics(post)
    if diagnostics is None:
        return []
    found = []
    swept = int(diagnostics["sweeps"]) if "sweeps" in diagnostics else 0
    corrected = f"; {swept} sweeps of an exact sampler moved the draws since" if swept else ""
    if "khat_globals" in diagnostics:
        khat = float(diagnostics["khat_globals"])
        status: Status = "pass" if khat <= KHAT_LIMIT or swept else "warn"
        found.append(CheckItem("k-hat of the globals", status, f"{khat:.2f} (limit {KHAT_LIMIT}){corrected}."))
    khat_genes = khat_of_genes(post)
    if khat_genes is not None:
        values = khat_genes.values
        high = int(np.count_nonzero(values > KHAT_LIMIT))
        worst = str(khat_genes["hugo_symbol"].values[int(np.nanargmax(values))])
        sentence = (
            f"{high:,} of {len(values):,} genes are above {KHAT_LIMIT}, {worst} the most ({np.nanmax(values):.2f})"
        )
        found.append(CheckItem("k-hat of genes", "pass" if high == 0 or swept else "warn", f"{sentence}{corrected}."))
    return found
