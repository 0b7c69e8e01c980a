"""Which likelihood a fit has: the one asked for, or one that suits the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vihier.errors import VihierError
from vihier.models.likelihood import DISPERSIONS, FAMILIES, NOISES, Likelihood

if TYPE_CHECKING:
    from vihier.inference.request import FitRequest
    from vihier.screen import Screen
    from vihier.store.store import ScreenStore

AUTO = "auto"
# A screen of so many genes is a whole one, or a large part of one: each replicate has hundreds of rows, which tell its
# noise scale and how heavy the tails are. A handful of genes is a check or a look, and Normal rows need least.
WHOLE_FROM_GENES = 200
RICH_UP_TO = 400_000


def check_likelihood(request: FitRequest) -> None:
    """Refuse a likelihood that is not known, or that is asked for beside a program of one's own.

    Raises
    ------
    VihierError
        Naming the argument.
    """
    if not isinstance(request.model, str):
        for name in ("likelihood", "noise", "dispersion"):
            if getattr(request, name) != AUTO:
                raise VihierError(f"{name}: a program of your own says itself how rows scatter; leave it out")
        return
    for name, known in (("likelihood", FAMILIES), ("noise", NOISES), ("dispersion", DISPERSIONS)):
        value = getattr(request, name)
        if value not in (AUTO, *known):
            raise VihierError(f"{name} {value!r}: not known; choose one of {', '.join((AUTO, *known))}")
    if request.nu != AUTO:
        Likelihood("student_t", "global", request.nu)
    if request.dispersion != AUTO and request.likelihood != "negative_binomial":
        raise VihierError(
            f"dispersion {request.dispersion!r}: only counts have one; leave it out, or give --likelihood "
            "negative_binomial"
        )


def chosen_likelihood(request: FitRequest, screen: Screen | ScreenStore) -> Likelihood | None:
    """Return the likelihood of a fit; None for a program of one's own.

    With `auto`, the structured guide takes the rows of whole screens, of `WHOLE_FROM_GENES` genes or more, for
    `student_t` with noise by replicate: on real ones both the tails and the spread of noise between replicates are
    large, and held-out rows are predicted far better. Smaller screens, those of more than `RICH_UP_TO` gene-line pairs,
    where that takes many minutes, and the baseline `mean_field` have Normal rows and one noise scale. Either can be
    asked for alone. Degrees of freedom are of each library where there are several (column `screen`). Read counts,
    `negative_binomial`, have to be asked for; those of whole screens have noise by replicate, dispersion by sgRNA and
    abundance, and rows that are noisier than others.
    """
    if not isinstance(request.model, str):
        return None
    family, noise = family_and_noise(request, screen.n_genes, screen.n_lines)
    nu = ("screen" if _several_screens(screen) else "global") if request.nu == AUTO else request.nu
    dispersion = "global"
    if family == "negative_binomial":
        rich = is_rich(request, screen.n_genes, screen.n_lines)
        dispersion = ("sgrna_abundance_row" if rich else "global") if request.dispersion == AUTO else request.dispersion
    return Likelihood(family, noise, nu, dispersion)


def family_and_noise(request: FitRequest, n_genes: int, n_lines: int) -> tuple[str, str]:
    """Return what `chosen_likelihood` takes for a screen of so many genes and lines."""
    rich = is_rich(request, n_genes, n_lines)
    family = ("student_t" if rich else "normal") if request.likelihood == AUTO else request.likelihood
    return family, ("replicate" if rich else "global") if request.noise == AUTO else request.noise


def is_rich(request: FitRequest, n_genes: int, n_lines: int) -> bool:
    """Whether `auto` takes more than one noise scale: the structured guide does, of whole screens."""
    whole = n_genes >= WHOLE_FROM_GENES and n_genes * n_lines <= RICH_UP_TO
    return request.guide == "structured" and whole


def _several_screens(screen: Screen | ScreenStore) -> bool:
    return len(screen.index.categories.get("screen", ())) > 1
