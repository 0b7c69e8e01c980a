"""Whether the fit came to an end, and whether its guide can stand for the posterior."""

from __future__ import annotations

import numpy as np

from vihier.diagnostics.checks.items import Item, judged, listed
from vihier.diagnostics.psis import KHAT_LIMIT
from vihier.posterior.reader import Posterior

KHAT_FAILS = 1.0
GENES_WARN = 0.1
RHAT_WARN, RHAT_FAILS = 1.05, 1.2


def convergence(converged: bool, reason: str) -> Item:
    """Judge whether the fit met its own stated rule.

    Examples
    --------
    >>> convergence(False, "it was stopped after 5 steps").status
    'fail'
    """
    if converged:
        return Item("convergence", "pass", f"the fit met its rule: {reason}")
    return Item("convergence", "fail", f"the fit did not converge: {reason}; fit longer (--max-steps)")


def guide_khat(khat_globals: float, khat: np.ndarray, genes: np.ndarray, sweeps: float) -> Item:
    """Judge Pareto k-hat of the guide: of what genes share, and of each gene given that.

    Parameters
    ----------
    khat_globals
        Of the globals.
    khat, genes
        Of each gene, and the genes' labels.
    sweeps
        How many exact sweeps moved each draw since; after some, what the guide got wrong is gone.
    """
    bad = [str(gene) for gene in genes[khat > KHAT_LIMIT]]
    figures = {"khat_globals": khat_globals, "genes_above": len(bad), "genes": len(genes), "sweeps": sweeps}
    found = (
        f"k-hat is {khat_globals:.2f} for what genes share, above {KHAT_LIMIT} for {len(bad):,} of {len(genes):,} genes"
    )
    if sweeps > 0:
        sentence = f"every draw was moved by {sweeps:.0f} exact sweeps, which undo what the guide gets wrong ({found})"
        return Item("k-hat", "pass", sentence, figures)
    if not np.isfinite(khat_globals) or khat_globals > KHAT_FAILS:
        return Item("k-hat", "fail", f"{found}: the guide cannot stand for the posterior; refine with NUTS", figures)
    if khat_globals > KHAT_LIMIT or len(bad) > GENES_WARN * len(genes):
        named = f" ({listed(bad)}; their scales were moved by sweeps)" if bad else ""
        return Item("k-hat", "warn", f"{found}{named}: the guide is approximate there; refine with NUTS", figures)
    return Item("k-hat", "pass", found, figures)


def only_swept(sweeps: float, rhat: float | None = None) -> Item:
    """Judge a fit whose draws no guide stands for: chains of an exact sampler.

    Parameters
    ----------
    sweeps
        Sweeps of each chain.
    rhat
        R-hat of what genes share, where the fit says it; else convergence says the rest.

    Examples
    --------
    >>> only_swept(0).status, only_swept(40, 1.01).status, only_swept(40, 1.3).status
    ('fail', 'pass', 'fail')
    """
    figures = {"sweeps": sweeps} | ({} if rhat is None else {"rhat_globals": rhat})
    if not sweeps > 0:
        return Item(
            "k-hat", "fail", "the file has neither k-hat of the guide nor sweeps of its draws; fit anew", figures
        )
    sentence = f"does not apply: every draw is of a chain of {sweeps:.0f} exact sweeps, not of a guide"
    if rhat is None:
        return Item("k-hat", "pass", sentence, figures)
    sentence += f"; R-hat of what genes share is {rhat:.2f}"
    return Item("k-hat", judged(rhat, RHAT_WARN, RHAT_FAILS), sentence, figures)


def of_fit(posterior: Posterior) -> list[Item]:
    """Return the items about the fit as such."""
    items = [convergence(posterior.converged, str(posterior.attrs.get("reason", "it does not say why")))]
    if posterior.guide == "structured":
        group = posterior.group("diagnostics")
        sweeps = max((float(group[name]) for name in ("sweeps", "passes") if name in group), default=0.0)
        if "khat_globals" not in group:
            rhat = float(group["rhat_globals"]) if "rhat_globals" in group else None
            return [*items, only_swept(sweeps, rhat)]
        genes = posterior.labels("hugo_symbol")
        return [*items, guide_khat(float(group["khat_globals"]), group["khat"].to_numpy(), genes, sweeps)]
    sentence = f"guide {posterior.guide!r} does not say how far it is from the posterior; fit with guide 'structured'"
    return [*items, Item("k-hat", "warn", sentence)]
