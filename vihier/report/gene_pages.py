"""What the page of a gene shows: its effect in every line, its parameters, its sgRNAs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_hex

from vihier.answers.control_scaling import ControlScaling
from vihier.answers.effect_draws import lineages
from vihier.plots.axes import lineage_colours
from vihier.report.checks import khat_of_genes
from vihier.report.measured import measured_means
from vihier.report.payload import packed, packed_thousandths

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior
    from vihier.screen.screen import Screen
    from vihier.store.store import ScreenStore

STATISTICS = ("mean", "sd", "hdi_lower", "hdi_upper", "prob_negative")
# Genes are left out of a page whose data would be larger than this. It is what a browser opens in a second or two.
LARGEST = 18_000_000
_BYTES_PER_EFFECT = 4 * 4 / 3 * len(STATISTICS)
_BYTES_PER_MEASUREMENT = 2 * 4 / 3


@dataclass(frozen=True, eq=False)
class GenePages:
    """Genes that have a page, and what is on it.

    Attributes
    ----------
    genes
        Labels, in the fit's order.
    n_genes
        Genes of the fit.
    data
        What the page's script reads.
    """

    genes: list[str]
    n_genes: int
    data: dict[str, Any] = field(repr=False)


def genes_that_fit(post: Posterior, ranked: Sequence[str], screen: Screen | ScreenStore | None) -> list[str]:
    """Return the genes that get a page where none is named: all where there is room, else the first ranked.

    Parameters
    ----------
    post
        The fit.
    ranked
        Genes, the most interesting first.
    screen
        Shown beside the fit.
    """
    genes = post.labels("hugo_symbol").tolist()
    per_effect = _BYTES_PER_EFFECT
    if screen is not None:
        per_effect += _BYTES_PER_MEASUREMENT * len(screen.index.sgrnas) / len(screen.index.genes)
    room = max(1, int(LARGEST / (per_effect * len(post.labels("depmap_id")))))
    if len(genes) <= room:
        return genes
    first = list(dict.fromkeys([*ranked, *genes]))[:room]
    return sorted(first)


def gene_pages(
    post: Posterior,
    genes: Sequence[str],
    scaling: ControlScaling | None = None,
    screen: Screen | ScreenStore | None = None,
) -> GenePages:
    """Collect the pages of some genes.

    Parameters
    ----------
    post
        A fit with `effect`.
    genes
        Labels.
    scaling
        Lets the reader choose each line's own unit.
    screen
        The measurements shown beside the posterior.
    """
    everything = post.labels("hugo_symbol").tolist()
    chosen = sorted(dict.fromkeys(genes))
    selection = {} if chosen == everything else {"hugo_symbol": chosen}
    lines = post.labels("depmap_id")
    moments = post.moments("effect", **selection)
    data: dict[str, Any] = {
        "genes": packed(np.array(chosen, dtype=object)),
        "lines": packed(lines),
        "effect": {name: packed(moments[name].values) for name in STATISTICS},
        "parameters": _parameters(post, selection),
        "lineages": [],
    }
    if "lineage_of_line" in post.group("index"):
        names, of_line = lineages(post)
        data |= {"lineages": packed(names), "lineageOfLine": packed(of_line)}
        data["colours"] = [to_hex(colour) for colour in lineage_colours(len(names))]
    if scaling is not None:
        data["unit"] = {"zero": packed(scaling.zero), "unit": packed(scaling.unit)}
    khat = _khat(post, selection)
    if khat is not None:
        data["khat"] = packed(khat)
    data["sgrnas"] = _sgrnas(post, chosen, selection, screen, lines.tolist())
    return GenePages(chosen, len(everything), data)


def _parameters(post: Posterior, selection: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return what the model has one of for each gene: statistics [G], and whether the data identify it."""
    found = []
    for name, dims in post.variables.items():
        if dims == ("hugo_symbol",):
            moments = post.moments(name, **selection)
            values = {statistic: packed(moments[statistic].values) for statistic in STATISTICS}
            found.append({"name": name, "note": post.not_identified.get(name, ""), **values})
    return found


def _khat(post: Posterior, selection: dict[str, list[str]]) -> np.ndarray | None:
    khat = khat_of_genes(post)
    return None if khat is None else khat.sel(selection).values


def _sgrnas(
    post: Posterior,
    genes: Sequence[str],
    selection: dict[str, list[str]],
    screen: Screen | ScreenStore | None,
    lines: Sequence[str],
) -> dict[str, Any]:
    """Return the sgRNAs gene by gene: labels [S], starts [G + 1], alpha_dev and measurements where there are any."""
    estimates = _alpha_dev(post, selection)
    measured = None if screen is None else measured_means(screen, genes, lines)
    of_gene: list[list[str]] = [[] for _ in genes]
    if measured is not None:
        of_gene = [labels for labels, _ in measured]
    elif estimates:
        place = {gene: number for number, gene in enumerate(genes)}
        index = post.group("index")
        names, all_genes = post.labels("sgrna"), post.labels("hugo_symbol")
        for sgrna, gene in zip(names.tolist(), all_genes[index["gene_of_sgrna"].values].tolist(), strict=True):
            if gene in place:
                of_gene[place[gene]].append(sgrna)
    labels = [label for group in of_gene for label in group]
    starts = np.concatenate([[0], np.cumsum([len(group) for group in of_gene])]).astype(np.int32)
    data: dict[str, Any] = {"labels": labels, "starts": packed(starts)}
    if estimates:
        nothing = (np.nan,) * len(STATISTICS)
        rows = np.array([estimates.get(label, nothing) for label in labels], dtype=np.float32)
        columns = rows.reshape(-1, len(STATISTICS)).T
        data["alphaDev"] = {name: packed(column) for name, column in zip(STATISTICS, columns, strict=True)}
    if measured is not None:
        data["measured"] = packed_thousandths(np.concatenate([values for _, values in measured]))
    return data


def _alpha_dev(post: Posterior, selection: dict[str, list[str]]) -> dict[str, tuple[float, ...]]:
    """Return the statistics of `alpha_dev` by sgRNA; nothing where the model has none."""
    if post.variables.get("alpha_dev") != ("sgrna",) or "gene_of_sgrna" not in post.group("index"):
        return {}
    moments = post.moments("alpha_dev", **selection)
    rows = zip(*(moments[name].values.tolist() for name in STATISTICS), strict=True)
    return dict(zip(moments["sgrna"].values.tolist(), rows, strict=True))
