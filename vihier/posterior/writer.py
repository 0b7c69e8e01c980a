"""Write a posterior file, block by block, so that it is either whole under its name or not there at all.

The file grows under a temporary name in the same directory (`vihier.posterior.partial`) and is renamed at the end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from vihier.errors import VihierError
from vihier.posterior import layout
from vihier.posterior.moments import HDI_PROB, STATISTICS, moments_of_draws
from vihier.posterior.partial import PartialFile, installed_version, set_attrs
from vihier.posterior.slabs import Positions, checked_positions, write_at

Labels = Mapping[str, Sequence[Any] | np.ndarray | int]

_VERSIONS = {"torch": "torch", "pyro": "pyro-ppl", "arviz": "arviz"}
# What the caller must have said by the time a posterior file is finished.
REQUIRED_ATTRS = ("model", "guide", "seed", "priors", "config", "screen_hash")


@dataclass(frozen=True)
class _Group:
    """What the variables of one group have in common."""

    labels: dict[str, np.ndarray]
    sampled: bool
    has_moments: bool


@dataclass
class _Variable:
    """One variable in the making; `written` marks the positions of its first index that have values."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    stored: bool
    written: np.ndarray = field(repr=False)

    def positions(self, name: str, at: Positions) -> np.ndarray:
        """Positions along the first index dim, checked."""
        if at is not None and not self.shape:
            raise VihierError(f"variable {name!r}: a scalar has no positions; leave `at` out")
        return checked_positions(name, len(self.written), at)


class PosteriorWriter:
    """Write the draws of a fit, and their moments beside them, to one file.

    Use it in a ``with`` statement. Leaving that without `finish` removes what was written and leaves a file that
    already had the name as it was.

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
        self._groups: dict[str, _Group] = {}
        self._variables: dict[tuple[str, str], _Variable] = {}
        self._finished = False
        self._define_groups(n_draws, n_chains)

    def _define_groups(self, n_draws: int, n_chains: int) -> None:
        if n_draws < 1 or n_chains < 1:
            raise VihierError(f"{n_draws} draws in {n_chains} chains: both must be at least 1")
        self._define(layout.POSTERIOR, self._labels, n_draws, n_chains, has_moments=True)

    def _define(
        self, group: str, labels: dict[str, np.ndarray], n_draws: int, n_chains: int, has_moments: bool
    ) -> None:
        sampled = {"chain": np.arange(n_chains, dtype=np.int64), "draw": np.arange(n_draws, dtype=np.int64)}
        self._groups[group] = _Group({**sampled, **labels}, sampled=True, has_moments=has_moments)

    def add_group(self, group: str, *, labels: Labels, n_draws: int, n_chains: int = 1) -> None:
        """Declare a further group of draws with labels and draws of its own, such as ``nuts`` over a few genes."""
        checked = {dim: layout.checked_labels(dim, given) for dim, given in labels.items()}
        self._define(group, checked, n_draws, n_chains, has_moments=False)

    def __enter__(self) -> Self:
        self._partial = PartialFile(self.path)
        self._file = self._partial.file
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
        name_of_group = group or self._main_group
        if name_of_group not in self._groups:
            raise VihierError(f"group {name_of_group!r} of {self.path}: declare it first with add_group")
        if (name_of_group, name) in self._variables:
            raise VihierError(f"variable {name!r}: added twice to group {name_of_group}")
        spec = self._groups[name_of_group]
        layout.check_name(name, spec.labels)
        if list(dims) != layout.ordered_dims(dims):
            raise VihierError(f"variable {name!r}: dims {tuple(dims)} are not in the order {layout.ordered_dims(dims)}")
        shape = layout.sizes_of(spec.labels, dims)
        written = np.zeros(shape[0] if shape else 1, dtype=bool)
        self._variables[name_of_group, name] = _Variable(tuple(dims), shape, stored, written)
        lead = layout.SAMPLE_DIMS if spec.sampled else ()
        with self._partial.speaking_plainly():
            if stored:
                self._make(name_of_group, name, (*lead, *dims), dtype)
            if spec.has_moments:
                for statistic in STATISTICS:
                    self._make(layout.MOMENTS, f"{name}_{statistic}", tuple(dims), np.float32, spec.labels)

    def _make(
        self, group: str, name: str, dims: Sequence[str], dtype: Any, labels: Mapping[str, np.ndarray] | None = None
    ) -> h5py.Dataset:
        target = self._file.require_group(group)
        known = self._groups[group].labels if labels is None else labels
        for dim in dims:
            layout.make_scale(target, dim, known[dim])
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
        name_of_group = group or self._main_group
        variable = self._declared(name_of_group, name)
        if not variable.stored:
            raise VihierError(f"variable {name!r}: declared without draws; use write_moments")
        spec = self._groups[name_of_group]
        positions = variable.positions(name, at)
        expected = (len(positions), *variable.shape[1:]) if variable.shape else ()
        if spec.sampled:
            expected = (len(spec.labels["chain"]), len(spec.labels["draw"]), *expected)
        dataset = self._file[name_of_group][name]
        block = np.asarray(values).astype(dataset.dtype, copy=False)
        if spec.sampled and expected[0] == 1 and block.ndim == len(expected) - 1:
            block = block[None]
        if block.shape != expected:
            raise VihierError(f"variable {name!r}: values of shape {expected} wanted, {block.shape} given")
        with self._partial.speaking_plainly():
            write_at(dataset, block, positions, axis=2 if spec.sampled else 0)
        variable.written[positions] = True
        if spec.has_moments:
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
        variable = self._declared(layout.POSTERIOR, name)
        if set(moments) != set(STATISTICS):
            raise VihierError(f"variable {name!r}: moments {STATISTICS} wanted, {tuple(moments)} given")
        positions = variable.positions(name, at)
        self._put_moments(name, moments, positions)
        if not variable.stored:
            variable.written[positions] = True

    def _put_moments(self, name: str, moments: Mapping[str, np.ndarray], positions: np.ndarray) -> None:
        with self._partial.speaking_plainly():
            for statistic in STATISTICS:
                dataset = self._file[layout.MOMENTS][f"{name}_{statistic}"]
                write_at(dataset, np.asarray(moments[statistic]).astype(np.float32), positions, axis=0)

    def _declared(self, group: str, name: str) -> _Variable:
        if (group, name) not in self._variables:
            raise VihierError(f"variable {name!r}: not declared in group {group}; call add first")
        return self._variables[group, name]

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
        spec = self._groups.get(group) or self._groups.get(self._main_group)
        labels = {**spec.labels} if spec else {}
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
        regenerated = [name for (_, name), variable in self._variables.items() if not variable.stored]
        everything = {
            **self._attrs,
            **(attrs or {}),
            "converged": bool(converged),
            "regenerated": regenerated,
            "not_identified": list(reasons),
            "not_identified_reasons": reasons,
            **{f"{name}_version": installed_version(package) for name, package in _VERSIONS.items()},
        }
        missing = [name for name in REQUIRED_ATTRS if name not in everything]
        if missing:
            raise VihierError(f"{self.path}: attribute {missing[0]!r} was not given")
        if layout.MOMENTS in self._file:
            set_attrs(self._file[layout.MOMENTS], {"hdi_prob": HDI_PROB})
        self._complete(everything)

    def _complete(self, attrs: Mapping[str, Any]) -> None:
        for (group, name), variable in self._variables.items():
            if not variable.written.all():
                n_missing = int((~variable.written).sum())
                raise VihierError(
                    f"variable {name!r} of group {group}: {n_missing} of {len(variable.written)} positions not written"
                )
        with self._partial.speaking_plainly():
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

    def _define_groups(self, n_draws: int, n_chains: int) -> None:
        self._groups[layout.TRUTH] = _Group(self._labels, sampled=False, has_moments=False)

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
