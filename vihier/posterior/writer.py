"""Write a posterior file, block by block, so that it is either whole under its name or not there at all.

The file grows under a temporary name in the same directory (`vihier.posterior.partial`) and is renamed at the end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from vihier.errors import VihierError
from vihier.posterior import layout
from vihier.posterior.declared import DeclaredGroup
from vihier.posterior.moments import STATISTICS, moments_of_draws
from vihier.posterior.moments_group import MomentsGroup
from vihier.posterior.partial import PartialFile, installed_version, set_attrs
from vihier.posterior.slabs import Positions, checked_positions, write_at

Labels = Mapping[str, Sequence[Any] | np.ndarray | int]

_VERSIONS = {"torch": "torch", "pyro": "pyro-ppl", "arviz": "arviz"}
# What the caller must have said by the time a posterior file is finished.
REQUIRED_ATTRS = ("model", "guide", "seed", "priors", "config", "screen_hash")


class PosteriorWriter:
    """Write the draws of a fit, and their moments beside them, to one file.

    Leaving the ``with`` statement without `finish` removes what was written and leaves an earlier file as it was.

    Parameters
    ----------
    path : path-like
        Where the finished file will be.
    labels : mapping of str to sequence
        Labels of every dimension: ``sgrna, hugo_symbol, depmap_id, lineage`` (unique, sorted by code point) and those
        of a user's own plates (str, int, or a length).
    n_draws, n_chains : int
        Draws in each chain, and chains (1 for variational fits).
    attrs : mapping, optional
        Root attributes. ``model, guide, seed, priors, config, screen_hash`` must be given here or to `finish`. Dicts
        and lists become JSON.

    Raises
    ------
    VihierError
        Labels that cannot be stored, a directory that is not there or not writable, a full disk.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> about = dict(model="additive", guide="structured", seed=0, priors={}, config="", screen_hash="")
    >>> path = Path(tempfile.mkdtemp(), "fit.h5")
    >>> with PosteriorWriter(path, labels={"hugo_symbol": ["KRAS", "TP53"]}, n_draws=100, attrs=about) as writer:
    ...     writer.add("mu_alpha", ("hugo_symbol",))
    ...     writer.write("mu_alpha", np.random.default_rng(0).normal(size=(100, 2)))
    ...     writer.finish(converged=True)
    >>> path.exists()
    True
    """

    _main_group = layout.POSTERIOR

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        labels: Labels,
        n_draws: int,
        n_chains: int = 1,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._labels = {dim: layout.checked_labels(dim, given) for dim, given in labels.items()}
        self._attrs = dict(attrs or {})
        self._groups: dict[str, DeclaredGroup] = {}
        # Kept open: HDF5 writes out a dataset's chunks when it is closed, and h5py cannot raise what goes wrong then.
        self._datasets: dict[tuple[str, str], h5py.Dataset] = {}
        self._finished = False
        self._declare_main_group(n_draws, n_chains)

    def _declare_main_group(self, n_draws: int, n_chains: int) -> None:
        name = layout.POSTERIOR
        self._groups[name] = DeclaredGroup.of_draws(name, self._labels, n_draws, n_chains, has_moments=True)

    def add_group(self, group: str, *, labels: Labels, n_draws: int, n_chains: int = 1) -> None:
        """Declare a further group of draws with labels and draws of its own, such as ``nuts`` over a few genes."""
        if group in self._groups:
            raise VihierError(f"group {group!r}: added twice")
        checked = {dim: layout.checked_labels(dim, given) for dim, given in labels.items()}
        self._groups[group] = DeclaredGroup.of_draws(group, checked, n_draws, n_chains)

    def _open_partial(self) -> PartialFile:
        return PartialFile(self.path)

    def __enter__(self) -> Self:
        self._partial = self._open_partial()
        self._file = self._partial.file
        self._moments = MomentsGroup(self._file, self._labels)
        main = self._groups[self._main_group]
        try:
            with self._partial.speaking_plainly():
                group = self._file.require_group(main.name)
                for dim in main.leading:
                    layout.make_scale(group, dim, main.labels[dim])
        except BaseException:
            self._partial.abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._partial.abandon()

    def add(
        self,
        name: str,
        dims: Sequence[str] = (),
        *,
        group: str | None = None,
        dtype: Any = np.float32,
        stored: bool = True,
    ) -> None:
        """Declare a variable.

        Parameters
        ----------
        name : str
            Site or derived variable.
        dims : sequence of str
            Its index dims, in the file's order (``sgrna``, ``hugo_symbol`` before ``depmap_id`` or ``lineage``);
            chain and draw are put before them.
        group : str, optional
            ``posterior`` unless said otherwise.
        dtype : dtype
            Type on disk.
        stored : bool
            False for a variable whose draws are regenerated on demand: only its moments are written.
        """
        declared = self._group(group)
        declared.declare(name, dims, stored)
        with self._partial.speaking_plainly():
            if stored:
                dataset = self._make(declared.name, name, (*declared.leading, *dims), dtype, declared.labels)
                self._datasets[declared.name, name] = dataset
            if declared.has_moments:
                self._moments.add(name, dims)

    def _group(self, name: str | None) -> DeclaredGroup:
        if (name or self._main_group) not in self._groups:
            raise VihierError(f"group {name!r} of {self.path}: declare it first with add_group")
        return self._groups[name or self._main_group]

    def _make(
        self, group: str, name: str, dims: Sequence[str], dtype: Any, labels: Mapping[str, np.ndarray]
    ) -> h5py.Dataset:
        target = self._file.require_group(group)
        for dim in dims:
            layout.make_scale(target, dim, labels[dim])
        return layout.make_variable(target, name, dims, dtype)

    def write(self, name: str, values: Any, at: Positions = None, *, group: str | None = None) -> None:
        """Write all draws of some elements, and their moments.

        Parameters
        ----------
        name : str
            A variable declared with `add`.
        values : ndarray [draw, len(at), ...]
            ``[chain, draw, len(at), ...]`` when there are several chains; ``[len(at), ...]`` in a truth file.
        at : int array or slice, optional
            Positions along the first index dim. None means all of them.
        """
        declared = self._group(group)
        variable = declared.variable(name)
        if not variable.stored:
            raise VihierError(f"variable {name!r}: declared without draws; use write_moments")
        positions = variable.positions(at)
        dataset = self._datasets[declared.name, name]
        block = declared.block(variable, values, len(positions), dataset.dtype)
        with self._partial.speaking_plainly():
            write_at(dataset, block, positions, axis=len(declared.leading))
        variable.written[positions] = True
        if declared.has_moments:
            self._put_moments(name, moments_of_draws(block), positions)

    def write_moments(self, name: str, moments: Mapping[str, np.ndarray], at: Positions = None) -> None:
        """Write moments computed otherwise than from stored draws (Rao-Blackwellised, say).

        Parameters
        ----------
        name : str
            A variable of group ``posterior``.
        moments : mapping of str to ndarray [len(at), ...]
            Keys ``mean, sd, q05, q50, q95, hdi_lower, hdi_upper, prob_negative``.
        at : int array or slice, optional
            Positions along the first index dim. None means all of them.
        """
        variable = self._group(layout.POSTERIOR).variable(name)
        if set(moments) != set(STATISTICS):
            raise VihierError(f"variable {name!r}: moments {STATISTICS} wanted, {tuple(moments)} given")
        positions = variable.positions(at)
        self._put_moments(name, moments, positions)
        if not variable.stored:
            variable.written[positions] = True

    def _put_moments(self, name: str, moments: Mapping[str, np.ndarray], positions: np.ndarray) -> None:
        with self._partial.speaking_plainly():
            self._moments.put(name, moments, positions)

    def add_table(self, group: str, name: str, dims: Sequence[str], dtype: Any) -> None:
        """Declare a table of a small group that is written in parts, such as one of ``cells``."""
        with self._partial.speaking_plainly():
            labels = self._groups[self._main_group].labels
            self._datasets[group, name] = self._make(group, name, dims, dtype, labels)

    def write_table(self, group: str, name: str, values: np.ndarray, at: Positions = None) -> None:
        """Write a part of such a table, at positions along its first dim."""
        dataset = self._datasets[group, name]
        positions = checked_positions(name, dataset.shape[0], at)
        with self._partial.speaking_plainly():
            write_at(dataset, values, positions, axis=0)

    def write_group(
        self,
        group: str,
        variables: Mapping[str, Any],
        dims: Mapping[str, Sequence[str]],
        *,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a small group in one go, such as ``vi_history``, ``sample_stats`` or ``index``.

        Parameters
        ----------
        group : str
            Called again for the same group, it adds to it.
        variables : mapping of str to array
            Numbers, booleans or text.
        dims : mapping of str to sequence of str
            Dims of each variable. ``chain`` and ``draw`` and dims with labels have those; any other is numbered.
        attrs : mapping, optional
            Attributes of the group.
        """
        labels = dict(self._groups.get(group, self._groups[self._main_group]).labels)
        for name, values in variables.items():
            array, dtype, flags = layout.stored_values(values)
            its_dims = tuple(dims[name])
            layout.check_name(name, its_dims)
            if its_dims[:2] == layout.SAMPLE_DIMS and array.ndim == len(its_dims) - 1:
                array = array[None]
            if array.ndim != len(its_dims):
                raise VihierError(f"variable {name!r} of group {group}: dims {its_dims} for shape {array.shape}")
            for dim, size in zip(its_dims, array.shape, strict=True):
                labels.setdefault(dim, np.arange(size, dtype=np.int64))
                if len(labels[dim]) != size:
                    raise VihierError(
                        f"variable {name!r} of group {group}: {dim} is {len(labels[dim])} long, not {size}"
                    )
            with self._partial.speaking_plainly():
                variable = self._make(group, name, its_dims, dtype, labels)
                variable[...] = array
                variable.attrs.update(flags)
        set_attrs(self._file.require_group(group), attrs or {})

    def finish(
        self,
        *,
        converged: bool,
        not_identified: Mapping[str, str] | Sequence[str] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Check that everything declared was written, mark the file complete and give it its name.

        Parameters
        ----------
        converged : bool
            What the fit says of itself.
        not_identified : mapping of str to str, or sequence of str
            Variables the data say nothing about, each with the reason; it travels into every summary.
        attrs : mapping, optional
            Further root attributes.

        Raises
        ------
        VihierError
            A variable lacks values, a required attribute lacks, or the disk is full.
        """
        reasons = dict(not_identified) if isinstance(not_identified, Mapping) else dict.fromkeys(not_identified, "")
        regenerated = [v.name for group in self._groups.values() for v in group.variables.values() if not v.stored]
        given = {**self._attrs, **(attrs or {})}
        own = [name for name in ("converged", "regenerated", "not_identified") if name in given]
        if own:
            raise VihierError(f"{self.path}: attribute {own[0]!r} is not for `attrs`; it is an argument of finish")
        everything = {
            **given,
            "converged": bool(converged),
            "regenerated": regenerated,
            "not_identified": list(reasons),
            "not_identified_reasons": reasons,
            **{f"{name}_version": installed_version(package) for name, package in _VERSIONS.items()},
        }
        missing = [name for name in REQUIRED_ATTRS if name not in everything]
        if missing:
            raise VihierError(f"{self.path}: attribute {missing[0]!r} was not given")
        self._complete(everything)

    def _complete(self, attrs: Mapping[str, Any]) -> None:
        for group in self._groups.values():
            group.check_written()
        with self._partial.speaking_plainly():
            self._moments.flush()
            index = self._file.require_group(layout.INDEX)
            for dim, labels in self._labels.items():
                layout.make_scale(index, dim, labels)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            set_attrs(self._file, {**attrs, "created_at": now, "vihier_version": installed_version("vihier")})
        self._partial.publish()
        self._finished = True


class TruthWriter(PosteriorWriter):
    """Write the truth behind a simulated screen: a file like a posterior file, without chain and draw.

    Its group ``truth`` has the names, dims and labels that a fit of the screen would have in ``posterior``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> path = Path(tempfile.mkdtemp(), "screen.truth.h5")
    >>> labels = {"hugo_symbol": ["KRAS", "TP53"], "depmap_id": ["ACH-000001"]}
    >>> with TruthWriter(path, labels=labels) as writer:
    ...     writer.add("effect", ("hugo_symbol", "depmap_id"))
    ...     for gene in range(2):
    ...         writer.write("effect", np.full((1, 1), -0.5), at=[gene])
    ...     writer.finish(attrs={"seed": 0})
    """

    _main_group = layout.TRUTH

    def __init__(self, path: str | os.PathLike[str], *, labels: Labels, attrs: Mapping[str, Any] | None = None) -> None:
        super().__init__(path, labels=labels, n_draws=1, attrs=attrs)

    def _declare_main_group(self, n_draws: int, n_chains: int) -> None:
        name = layout.TRUTH
        self._groups[name] = DeclaredGroup(name, self._labels, sampled=False, has_moments=False)

    def finish(self, *, attrs: Mapping[str, Any] | None = None) -> None:  # type: ignore[override]
        """Check that everything declared was written, mark the file complete and give it its name."""
        self._complete({**self._attrs, **(attrs or {})})


def write_truth(
    path: str | os.PathLike[str],
    variables: Mapping[str, tuple[Sequence[str], Any]],
    labels: Labels,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a truth file whose variables fit in memory.

    Parameters
    ----------
    path : path-like
        Where the file will be.
    variables : mapping of str to (dims, array)
        Index dims in the file's order, and the values.
    labels : mapping of str to sequence
        Labels of every dim.
    attrs : mapping, optional
        Root attributes, such as the seed.
    """
    with TruthWriter(path, labels=labels, attrs=attrs) as writer:
        for name, (dims, values) in variables.items():
            writer.add(name, dims)
            writer.write(name, values)
        writer.finish()
