"""`vihier compare` of one fit: its guide against the NUTS draws that `vihier refine` has added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vihier.commands import answer_options as answers
from vihier.commands.messages import say


def compare_nuts(fit: Path, var: str | None, out: Path | None, figure: Path | None, as_json: bool) -> None:
    """Write or show the table, and the figure where one is asked for.

    Parameters
    ----------
    fit
        A refined fit.
    var
        A variable whose elements are listed; all variables, a row each, when None.
    out, figure
        Where to write them.
    as_json
        Print JSON.
    """
    if figure is not None:
        from vihier.atomic import check_writable

        check_writable(figure)
    from vihier.posterior.reader import open_posterior
    from vihier.refinement.agreement import agreement_table, element_table

    with open_posterior(fit) as post:
        summary = agreement_table(post, None if var is None else [var])
        group = post.group("nuts", only=())
        failures = json.loads(group.attrs["failures"])
        table = summary if var is None else element_table(post, var)
        differ = summary["variable"][~summary["agrees"]].tolist()
        about: dict[str, Any] = {
            "genes": group["hugo_symbol"].values.tolist(),
            "agrees": not differ,
            "differ": differ,
            "nuts_failures": failures,
        }
        if figure is not None:
            about["figure"] = str(figure)
            _draw(post, figure)
    n_genes = len(about["genes"])
    heading = f"guide against NUTS, {n_genes} gene{'s' * (n_genes != 1)}: " + (
        f"{', '.join(differ)} differ" if differ else "every quantile agrees"
    )
    answers.hand_over(table, about, heading, out, as_json)
    for failure in failures:
        say(f"warning: NUTS did not pass: {failure}")


def _draw(post: Any, figure: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from vihier.atomic import renamed_when_whole
    from vihier.plots import nuts_quantiles

    drawn = nuts_quantiles(post).get_figure(root=True)
    assert drawn is not None
    with renamed_when_whole(figure) as partial:
        drawn.savefig(partial, format=figure.suffix[1:].lower() or "png", dpi=120, bbox_inches="tight")
    plt.close(drawn)
