"""Read a posterior file: summaries, draws and moments of what is asked for, and nothing else from disk."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import xarray as xr

from vihier.posterior.layout import SAMPLE_DIMS
from vihier.posterior.moments import STATISTICS
from vihier.posterior.selection import Label, Selection, shown
from vihier.posterior.stored import DrawSource, StoredPosterior

if TYPE_CHECKING:
    import pandas as pd

Wanted = Label | Sequence[Label]


class Posterior:
    """A fit's posterior, read from its file as it is asked for.

    Made by `open_posterior` and by `vihier.fit`. It is a context manager, and closes its file when collected.

    Parameters
    ----------
    path : path-like
        A file that `vihier fit` wrote.
    regenerate : DrawSource, optional
        Yields draws of the variables whose draws are not stored.
    owned_tempdir : path-like, optional
        A directory removed together with this object: where ``vihier.fit(out=None)`` put the file.
    origin : Posterior, optional
        What this file was made from, which must live as long as this object: it may own the directory.

    Raises
    ------
    VihierError
        The file is missing, not ours, truncated, unfinished or from a newer format; one line each.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        regenerate: DrawSource | None = None,
        owned_tempdir: str | os.PathLike[str] | None = None,
        origin: Posterior | None = None,
    ) -> None:
        self._origin = origin
        self._stored = StoredPosterior(Path(path), regenerate=regenerate, owned_tempdir=owned_tempdir)

    @property
    def path(self) -> Path:
        """The file."""
        return self._stored.path

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Root attributes, JSON decoded."""
        return MappingProxyType(self._stored.attrs)

    @property
    def converged(self) -> bool:
        """Whether the fit met its stopping rule."""
        return self.attrs["converged"]

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.attrs["model"]

    @property
    def guide(self) -> str:
        """Name of the variational family."""
        return self.attrs["guide"]

    @property
    def seed(self) -> int:
        """Seed of the fit."""
        return self.attrs["seed"]

    @property
    def priors(self) -> Any:
        """Priors by site name."""
        return self.attrs["priors"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that the fit ran with, read from its TOML; empty where the file has none."""
        return tomllib.loads(self.attrs.get("config", ""))

    @property
    def not_identified(self) -> dict[str, str]:
        """Variables the data say nothing about, each with the reason."""
        return self._stored.not_identified

    @property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """Index dims of every variable, those without stored draws included."""
        return dict(self._stored.variables)

    @property
    def dims(self) -> tuple[str, ...]:
        """Every dimension that has labels."""
        return self._stored.index.dims

    @property
    def n_chains(self) -> int:
        """Number of chains; 1 for a variational fit."""
        return self._stored.size("chain")

    @property
    def n_draws(self) -> int:
        """Draws in each chain."""
        return self._stored.size("draw")

    def labels(self, dim: str) -> np.ndarray:
        """Labels of one dimension [n], sorted by code point."""
        return self._stored.index.labels(dim).copy()

    def summary(self, var: str | Sequence[str], /, *, prob: float = 0.89, **labels: Wanted) -> pd.DataFrame:
        """Mean, sd, highest-density interval and probability of being negative.

        Parameters
        ----------
        var : str or sequence of str
            One variable or several.
        prob : float
            Probability of the interval. 0.89 is in the file; for any other the draws are read, in blocks.
        **labels : str or sequence of str
            What to show, by dimension: ``hugo_symbol="KRAS"``, ``depmap_id=[...]``. ``lineage`` selects its lines and
            ``hugo_symbol`` its sgRNAs where a variable has those dims only.

        Returns
        -------
        DataFrame
            One row per element: ``variable``, the label columns, ``mean``, ``sd``, the bounds (``hdi_5.5%`` and
            ``hdi_94.5%`` at 0.89), ``prob_negative``; and ``not_identified``, with the reason, where the data say
            nothing about a variable asked for.

        Raises
        ------
        VihierError
            An unknown variable, dimension or label (the message names the nearest one).
        """
        import pandas as pd

        return pd.concat(self.summary_blocks(var, prob=prob, selection=labels), ignore_index=True)

    def summary_blocks(
        self, var: str | Sequence[str], *, prob: float = 0.89, selection: Selection | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield `summary` in blocks of rows with the same columns, in bounded memory."""
        from vihier.posterior.summary import summary_blocks

        return summary_blocks(self._stored, [var] if isinstance(var, str) else list(var), prob, selection or {})

    def draws(self, var: str, /, **labels: Wanted) -> xr.DataArray:
        """Draws of one variable, reading only what is selected.

        Parameters
        ----------
        var : str
            A variable; without a selection all of it is read.
        **labels : str or sequence of str
            As in `summary`. A dimension stays even where one label is asked for.

        Returns
        -------
        DataArray
            Dims ``(chain, draw, ...)``, with labels in the order asked for.
        """
        stored = self._stored
        positions = stored.resolve(var, labels)
        dims = stored.variables[var]
        note = stored.not_identified.get(var)
        return xr.DataArray(
            stored.read_draws(var, positions),
            dims=(*SAMPLE_DIMS, *dims),
            coords={**stored.sample_coords(), **stored.coords(dims, positions)},
            name=var,
            attrs={} if note is None else {"not_identified": note},
        )

    def moments(self, var: str, /, **labels: Wanted) -> xr.Dataset:
        """Moments and quantiles of one variable, as stored (the interval is the 0.89 highest-density one).

        Returns
        -------
        Dataset
            ``mean, sd, q05, q50, q95, hdi_lower, hdi_upper, prob_negative``, over the index dims of the variable.
        """
        stored = self._stored
        positions = stored.resolve(var, labels)
        dims = stored.variables[var]
        return xr.Dataset(
            {name: (dims, stored.read_moment(var, name, positions)) for name in STATISTICS},
            coords=stored.coords(dims, positions),
        )

    def to_arviz(self, **labels: Wanted) -> Any:
        """ArviZ's container of this posterior.

        Parameters
        ----------
        **labels : str or sequence of str
            As in `summary`, applied to every variable it concerns. What is selected is read at once; without a
            selection, variables are read when they are used, and not kept.

        Returns
        -------
        arviz.InferenceData or xarray.DataTree
            Whichever the installed ArviZ works with; groups ``posterior`` and, where the file has it, ``sample_stats``.
        """
        from vihier.posterior.arviz import to_arviz

        return to_arviz(self._stored, labels)

    def group(self, name: str, only: Sequence[str] | None = None) -> xr.Dataset:
        """Read one of the small groups (``vi_history``, ``sample_stats``, ``index``, ``nuts``) with its labels.

        Parameters
        ----------
        name
            The group.
        only
            Variables to read; all when None.
        """
        return self._stored.group(name, only)

    def has_group(self, name: str) -> bool:
        """Return whether the file has a group of that name."""
        return name in self._stored.groups

    def close(self) -> None:
        """Close the file, and remove it where it is a temporary one."""
        self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        about = ", ".join(f"{key}={shown(value)}" for key, value in self._about().items())
        return f"Posterior({shown(str(self.path))}, {about})"

    def _repr_html_(self) -> str:
        # Names come from whoever made the screen and the program: none may reach a notebook as markup.
        rows = {**self._about(), **{name: ", ".join(dims) for name, dims in self.variables.items()}}
        cells = (f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in rows.items())
        return f"<table><caption>{escape(str(self.path))}</caption>{''.join(cells)}</table>"

    def _about(self) -> dict[str, Any]:
        if not self._stored.is_open:
            return {"closed": True}
        about = {name: self.attrs[name] for name in ("model", "guide", "seed", "converged")}
        sizes = {dim: self._stored.size(dim) for dim in (*SAMPLE_DIMS, *self.dims)}
        return {**about, **sizes, "variables": len(self.variables)}


def open_posterior(path: str | os.PathLike[str]) -> Posterior:
    """Open a posterior file.

    Parameters
    ----------
    path : path-like
        A file that `vihier fit` or `vihier.fit` wrote.

    Returns
    -------
    Posterior
        Nothing but attributes and the names of variables has been read yet.

    Raises
    ------
    VihierError
        The file is missing, a directory, empty, not HDF5, not ours, truncated, unfinished or from a newer format.

    Examples
    --------
    >>> import vihier
    >>> vihier.open_posterior("missing.h5")
    Traceback (most recent call last):
    ...
    vihier.errors.VihierError: missing.h5: no such file; `vihier fit SCREEN --out missing.h5` writes one
    """
    return Posterior(path)
