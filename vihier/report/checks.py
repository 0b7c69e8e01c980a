"""The list of checks that a report shows: of the rows too, where the screen is the one that was fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vihier.diagnostics.checks import Checked, check_fit
from vihier.diagnostics.control_genes import ControlGenes
from vihier.errors import VihierError
from vihier.screen.screen import Screen

if TYPE_CHECKING:
    import xarray as xr

    from vihier.posterior.reader import Posterior
    from vihier.store.store import ScreenStore


def checks_of(
    post: Posterior, screen: Screen | ScreenStore | None, controls: ControlGenes | None, draws: int
) -> tuple[Checked, str]:
    """Go through the list of `vihier check`.

    Parameters
    ----------
    post
        A fit.
    screen
        The screen that was fitted, or one of which it is a part. The rows of a store are not looked at.
    controls
        Reference genes.
    draws
        Draws that rows are drawn from; with none, rows are not looked at.

    Returns
    -------
    checked : Checked
        The list, gone through.
    note : str
        Why the rows of a screen that was given were not looked at; nothing where they were.
    """
    if screen is None or draws == 0:
        return check_fit(post, controls=controls), ""
    if not isinstance(screen, Screen):
        return check_fit(post, controls=controls), "The rows of this store are too many to be checked here."
    try:
        return check_fit(post, screen, controls=controls, draws=draws), ""
    except VihierError as error:
        # Another screen, or a program of the user's own: said, and the rest of the report written.
        return check_fit(post, controls=controls), f"Rows were not checked: {error}."


def khat_of_genes(post: Posterior) -> xr.DataArray | None:
    """Return Pareto k-hat of each gene's own scales, [G], where the file has it."""
    try:
        diagnostics = post.group("diagnostics")
    except VihierError:
        return None
    if "khat" not in diagnostics or diagnostics["khat"].dims != ("hugo_symbol",):
        return None
    return diagnostics["khat"]
