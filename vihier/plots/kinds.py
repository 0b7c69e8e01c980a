"""The kinds of figures by name, what each needs, and how it is drawn from what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from vihier import plots
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.posterior.reader import Posterior, open_posterior
from vihier.screen.faults import nearest
from vihier.screen.labels import ONE_LINEAGE
from vihier.screen.screen import Screen
from vihier.store.either import screen_or_store

# Genes whose rows are drawn anew for the predictive check, and replicated screens.
PREDICTED_GENES, REPLICATES = 100, 50


@dataclass(frozen=True)
class Asked:
    """What a figure is asked to show; what a kind does not need is empty.

    Attributes
    ----------
    source
        Posterior file; of `lines` also a screen.
    genes, lineages, lines, against
        Labels.
    var, measure
        A variable, and a measure of quality.
    screen
        Table of rows, or store.
    controls
        Reference genes.
    """

    source: Path
    genes: list[str] = field(default_factory=list)
    lineages: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    var: str | None = None
    measure: str | None = None
    screen: Path | None = None
    controls: ControlGenes | None = None


@dataclass(frozen=True)
class Drawn:
    """A figure's axes, and what a person should know of it."""

    ax: Axes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes
    ----------
    draw
        Draws it from an open fit and what was asked for.
    needs, takes
        Options that it cannot do without, and others that mean something to it.
    """

    draw: Callable[[Posterior, Asked], Drawn]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


_OPTIONS = {
    "genes": "--gene",
    "lineages": "--lineage",
    "lines": "--line",
    "against": "--against",
    "var": "--var",
    "measure": "--measure",
    "screen": "--screen",
    "controls": "--essential and --nonessential",
}


def check(kind: str, asked: Asked) -> None:
    """Refuse what a kind of figure lacks, and what means nothing to it.

    Raises
    ------
    VihierError
        One line that names the option.
    """
    needs, takes = KINDS[kind].needs, KINDS[kind].takes
    for name, option in _OPTIONS.items():
        given = bool(getattr(asked, name))
        if name in needs and not given:
            raise VihierError(f"{kind}: needs {option}")
        if given and name not in (*needs, *takes):
            raise VihierError(f"{kind}: {option} means nothing to it; leave it out")
    if kind == "volcano" and not (asked.lineages or asked.lines):
        raise VihierError("volcano: which lines? name the first set: --lineage skin, or --line A,B")
    if kind != "heatmap" and len(asked.genes) > 1:
        raise VihierError(f"{kind}: draws one gene; give one, not {len(asked.genes)}")


def draw(kind: str, asked: Asked) -> Drawn:
    """Draw a figure.

    Parameters
    ----------
    kind
        One of `KINDS`.
    asked
        What it is to show; see `check`.

    Raises
    ------
    VihierError
        A file or label that is not there, or a fit that does not hold what the figure shows.
    """
    if kind == "lines":
        return _lines(asked)
    with open_posterior(asked.source) as post:
        return KINDS[kind].draw(post, asked)


def _heatmap(post: Posterior, asked: Asked) -> Drawn:
    chosen = {"hugo_symbol": asked.genes, "lineage": asked.lineages, "depmap_id": asked.lines}
    labels: dict[str, Any] = {dim: names for dim, names in chosen.items() if names}
    return Drawn(plots.effect_heatmap(post, var=asked.var or "effect", **labels))


def _gene(post: Posterior, asked: Asked) -> Drawn:
    screen = None if asked.screen is None else _read(asked.screen, post)
    note = () if screen else ("without --screen SCREEN the rows are not drawn",)
    return Drawn(plots.gene_page(post, asked.genes[0], screen), note)


def _volcano(post: Posterior, asked: Asked) -> Drawn:
    from vihier.answers.contrast import contrast
    from vihier.answers.line_sets import REST, lines_of

    first = lines_of(post, [*asked.lineages, *asked.lines])
    second = None if asked.against in ([], [REST]) else lines_of(post, asked.against)
    found = contrast(post, first, second, controls=asked.controls)
    if asked.controls is None:
        return Drawn(plots.volcano(found))
    return Drawn(plots.volcano(found, unit="essential genes -1"))


def _shrinkage(post: Posterior, asked: Asked) -> Drawn:
    assert asked.screen is not None
    return Drawn(plots.shrinkage(post, _read(asked.screen, post), gene=asked.genes[0] if asked.genes else None))


def _predictive(post: Posterior, asked: Asked) -> Drawn:
    from vihier.inference.predict import posterior_predictive
    from vihier.models.counts import COUNTS, EXPECTED, log2_ratio

    assert asked.screen is not None
    screen = _read(asked.screen, post)
    notes: tuple[str, ...] = ()
    if asked.genes:
        screen = screen.subset(genes=asked.genes)
    elif screen.n_genes > PREDICTED_GENES:
        notes = (f"{PREDICTED_GENES} of {screen.n_genes:,} genes, drawn at random; --gene A for one",)
        screen = screen.subset(n_genes=PREDICTED_GENES)
    draws = min(REPLICATES, post.n_draws * post.n_chains)
    replicated = posterior_predictive(post, screen, draws=draws)
    measured, values = screen.lfc, replicated.values[0]
    if replicated.name == "counts":
        expected = screen.covariates[EXPECTED]
        measured, values = log2_ratio(screen.covariates[COUNTS], expected), log2_ratio(values, expected)
    return Drawn(plots.predictive_check(measured, values), notes)


def _controls(post: Posterior, asked: Asked) -> Drawn:
    from vihier.answers.export import effect_matrix

    assert asked.controls is not None
    return Drawn(plots.control_distributions(effect_matrix(post), asked.controls))


def _lines(asked: Asked) -> Drawn:
    from vihier.quality.judge import judge
    from vihier.quality.limits import FIT_LIMITS, SCREEN_LIMITS
    from vihier.quality.screen_quality import ScreenQuality

    quality = judge(asked.source, controls=asked.controls)
    limits = SCREEN_LIMITS if isinstance(quality, ScreenQuality) else FIT_LIMITS
    there = {limit.measure: limit for limit in limits if limit.about == "line" and limit.measure in quality.lines}
    measure = asked.measure or ("auroc" if "auroc" in there else next(iter(there), "auroc"))
    if measure not in there:
        cure = f"it has {', '.join(there)}" if there else "it has none"
        more = "" if asked.controls else "; auroc and nnmd need --essential and --nonessential"
        raise VihierError(f"--measure {measure}: not of {asked.source}{nearest(measure, there)}; {cure}{more}")
    return Drawn(plots.line_quality(quality.lines, there[measure]))


def _nuts(post: Posterior, asked: Asked) -> Drawn:
    return Drawn(plots.guide_vs_nuts(*plots.nuts_tables(post)))


def _one_gene(figure: Callable[..., Axes]) -> Callable[[Posterior, Asked], Drawn]:
    return lambda post, asked: Drawn(figure(post, asked.genes[0], var=asked.var or "effect"))


def _of_variable(figure: Callable[..., Axes]) -> Callable[[Posterior, Asked], Drawn]:
    def drawn(post: Posterior, asked: Asked) -> Drawn:
        assert asked.var is not None
        chosen = {"hugo_symbol": asked.genes, "lineage": asked.lineages, "depmap_id": asked.lines}
        return Drawn(figure(post, asked.var, **{dim: names for dim, names in chosen.items() if names}))

    return drawn


def _read(path: Path, post: Posterior) -> Screen:
    """Read the screen as the fit had it."""
    single = "lineage" in post.dims and post.labels("lineage").tolist() == [ONE_LINEAGE]
    screen = screen_or_store(path, single_lineage=single)
    if isinstance(screen, Screen):
        return screen
    with screen:
        return screen.to_screen()


KINDS: dict[str, Kind] = {
    "elbo": Kind(lambda post, asked: Drawn(plots.elbo(post))),
    "drift": Kind(lambda post, asked: Drawn(plots.drift(post))),
    "heatmap": Kind(_heatmap, takes=("genes", "lineages", "lines", "var")),
    "lineages": Kind(_one_gene(plots.effects_by_lineage), needs=("genes",), takes=("var",)),
    "forest": Kind(_one_gene(plots.forest), needs=("genes",), takes=("var",)),
    "gene": Kind(_gene, needs=("genes",), takes=("screen",)),
    "volcano": Kind(_volcano, takes=("lineages", "lines", "against", "controls")),
    "shrinkage": Kind(_shrinkage, needs=("screen",), takes=("genes",)),
    "predictive": Kind(_predictive, needs=("screen",), takes=("genes",)),
    "controls": Kind(_controls, needs=("controls",)),
    "lines": Kind(lambda post, asked: _lines(asked), takes=("measure", "controls")),
    "density": Kind(_of_variable(plots.density), needs=("var",), takes=("genes", "lineages", "lines")),
    "trace": Kind(_of_variable(plots.trace), needs=("var",), takes=("genes", "lineages", "lines")),
    "nuts": Kind(_nuts),
}
"""Kinds of figures by name."""
