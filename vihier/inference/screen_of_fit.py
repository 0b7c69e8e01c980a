"""Whether a screen is the one that a fit is of."""

from __future__ import annotations

from vihier.errors import VihierError
from vihier.inference.batches import GeneBlocks
from vihier.inference.columns import columns_read
from vihier.models.program import Program
from vihier.posterior.reader import Posterior
from vihier.screen import Screen


def check_screen(posterior: Posterior, program: Program, screen: Screen) -> None:
    """Refuse a screen that is not the one a posterior was fitted to.

    Parameters
    ----------
    posterior
        A fit.
    program
        Its program; the columns that it reads are what counts beside the keys and `lfc`.
    screen
        The screen.

    Raises
    ------
    VihierError
        One line: what differs.
    """
    read = columns_read(program.model, GeneBlocks(screen, max(1, min(8, screen.n_genes // 2)))[0])
    if screen.content_hash(read) == posterior.attrs["screen_hash"]:
        return
    pairs = (("hugo_symbol", "genes", screen.index.genes), ("depmap_id", "lines", screen.index.lines))
    differ = [
        f"{len(labels):,} {noun} here, {len(posterior.labels(dim)):,} there"
        for dim, noun, labels in pairs
        if dim in posterior.dims and labels.tolist() != posterior.labels(dim).tolist()
    ]
    why = f" ({'; '.join(differ)})" if differ else " (the same genes and lines, but other rows or values)"
    raise VihierError(
        f"{posterior.path}: is a fit of another screen{why}; give the table of the fit, and the same part of it"
    )
