"""Render a report: everything that is shown goes through a template that escapes it, or through its script as text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vihier.diagnostics.checks import Item
from vihier.errors import VihierError
from vihier.report.gene_pages import GenePages
from vihier.report.payload import script_json
from vihier.report.pictures import Picture
from vihier.report.table import ReportTable, tables_data

if TYPE_CHECKING:
    from vihier.posterior.reader import Posterior

# In this order: a constant is there before it is used.
SCRIPTS = ("tables", "charts", "genes", "main")
_NOUNS = {"hugo_symbol": "genes", "sgrna": "sgRNAs", "depmap_id": "lines", "lineage": "lineages"}


@dataclass(frozen=True, eq=False)
class Page:
    """What is on the page.

    Attributes
    ----------
    title
        Name of the fit.
    post
        The fit.
    notes
        Sentences that a reader must see first.
    checks
        The list of checks.
    parameters
        What the whole screen shares.
    quality, hits
        Tables.
    unit
        Unit of the hits' effects.
    pages
        Pages of genes; None for a fit without effects.
    pictures
        Images.
    charts
        Series of the charts of checks.
    first_gene
        The gene whose page is open at first.
    """

    title: str
    post: Posterior
    notes: Sequence[str]
    checks: Sequence[Item]
    parameters: ReportTable
    quality: Sequence[ReportTable]
    hits: Sequence[ReportTable]
    unit: str
    pages: GenePages | None
    pictures: Sequence[Picture]
    charts: Mapping[str, Any]
    first_gene: str | None


def render(page: Page) -> str:
    """Return the page as HTML.

    Its scripts are named by their hashes in a Content-Security-Policy, so that a browser runs nothing else, whatever a
    label says, and loads nothing from anywhere.
    """
    environment = Environment(
        loader=PackageLoader("vihier.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("vihier.report") / "page"
    # One scope for all, and none of their names in the page's own.
    parts = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    scripts = [_plotly(), f'"use strict";\n(() => {{\n{parts}}})();']
    data = {
        "tables": tables_data([page.parameters, *page.quality, *page.hits]),
        "genePages": None if page.pages is None else page.pages.data,
        "charts": dict(page.charts),
        "firstGene": page.first_gene,
    }
    return environment.get_template("report.html").render(
        page=page,
        facts=_facts(page.post),
        policy=_policy(scripts),
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        data=script_json(data),
    )


def _plotly() -> str:
    """Return plotly.js as plotly's own package bundles it."""
    spec = find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise VihierError("plotly: its package does not bundle plotly.min.js; install it anew: pip install plotly")


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(script: str) -> str:
    # What a browser hashes is the text after its parser made every line end a plain newline.
    text = re.sub(r"\r\n?", "\n", script)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _facts(post: Posterior) -> list[tuple[str, str]]:
    attrs = post.attrs
    sizes = [f"{len(post.labels(dim)):,} {_NOUNS.get(dim, dim)}" for dim in post.dims]
    priors = post.priors if isinstance(post.priors, Mapping) else {}
    draws = f"{post.n_draws:,}" + (f" in each of {post.n_chains} chains" if post.n_chains > 1 else "")
    facts = [
        ("Model", post.model),
        ("Guide", post.guide),
        ("Sizes", ", ".join(sizes)),
        ("Draws", draws),
        ("Seed", str(post.seed)),
        ("Priors changed", ", ".join(f"{name} = {prior}" for name, prior in priors.items()) or "none"),
        ("Screen", str(attrs.get("screen_hash", ""))[:16]),
        ("Written", f"{attrs.get('created_at', '')} by vihier {attrs.get('vihier_version', '')}"),
    ]
    return [(name, text) for name, text in facts if text.strip()]
